from __future__ import annotations

import csv
import io

from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.render.csv_report import to_csv
from tests.evaluation.recorded import records, report


def test_every_record_is_a_line_with_what_it_belongs_to() -> None:
    text = to_csv(report(degradation=Degradation(noise=2.5, jpeg=80)))
    lines = list(csv.DictReader(io.StringIO(text)))
    found = list(records())
    assert len(lines) == len(found)
    for line, record in zip(lines, found, strict=True):
        assert (line["weights"], line["noise"], line["jpeg"]) == ("paper", "2.5", "80")
        assert (line["dataset"], line["image"], line["blur"]) == (
            record.dataset,
            record.image,
            record.blur,
        )
        step = "" if record.step is None else str(record.step)
        assert (line["method"], line["step"]) == (record.method, step)
        assert float(line["psnr_y"]) == record.psnr_y
        estimate = record.sigma_estimate
        assert line["sigma_estimate"] == ("" if estimate is None else str(estimate))


def test_what_is_not_known_is_empty() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(report(gaussian=False)))))
    assert {(line["sigma"], line["kernel_psnr"], line["jpeg"]) for line in lines} == {("", "", "")}
