from __future__ import annotations

from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.render.markdown import to_markdown
from ikc_deploy.reporting.tables import Table
from tests.evaluation.recorded import report


def test_tables_follow_what_was_measured_and_names_are_shown_as_they_are() -> None:
    tables = [
        Table("a|b_[1]", ("", "dB"), (("step 0", "30.10"), ("step 1", ""))),
        Table("", (), ()),
    ]
    text = to_markdown(report(degradation=Degradation(noise=15)), tables)
    assert text.startswith("Weights paper, x4, fp32. Gaussians, noise 15. ")
    expected = r"""
## a\|b\_\[1\]

|  | dB |
|---|---:|
| step 0 | 30.10 |
| step 1 |  |
"""
    assert expected in text
    assert text.count("\n## ") == 2
