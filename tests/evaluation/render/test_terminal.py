from __future__ import annotations

import io

import pytest
from rich.console import Console

from ikc_deploy.evaluation.render.tables import Table
from ikc_deploy.evaluation.render.terminal import print_table


@pytest.mark.parametrize("width", [20, 80])
def test_no_digit_is_lost_on_a_narrow_terminal(width: int) -> None:
    numbers = [f"{30 + column / 100:.2f}" for column in range(12)]
    table = Table("Set[5], \\ as it is", ("", *map(str, range(12))), (("sigma 1.8", *numbers),))
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == table.title
    assert lines[-2].split() == ["sigma", "1.8", *numbers]
