from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy.imaging.metrics import MAX_PSNR
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels import fkp_size
from ikc_deploy.offline.forward_model import upscaled
from ikc_deploy.offline.optimize import FitResult
from tests.cli.running import assert_one_clear_line, invoke
from tests.offline.flows import save_untrained
from tests.samples import photo
from tools.measure_offline import main
from tools.measuring.known_kernel_case import KnownKernelCase, delta, measure


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_delta_is_as_narrow_as_the_convention_allows(scale: int) -> None:
    size = fkp_size(scale)
    kernel = delta(size, scale)
    assert np.count_nonzero(kernel) == (1 if scale == 3 else 4)
    assert kernel.sum() == pytest.approx(1)
    assert kernel.sum(axis=0) @ np.arange(size) == pytest.approx((size - scale) / 2)


def test_what_is_right_gets_full_marks_and_the_rest_is_beside_it() -> None:
    case = KnownKernelCase.cut(photo(81, 66), 64, 2, seed=3)
    assert case.hr.shape == (64, 64, 3) and case.lr.shape == (32, 32, 3)
    found = measure(case, FitResult(case.hr, case.kernel, [], True))
    assert found["kernel_psnr"]["found"] == {"peak_1": MAX_PSNR, "own_peak": MAX_PSNR}
    assert found["psnr_y"]["found"] == MAX_PSNR
    # Bicubic in the wrong alignment would be worse.
    assert found["psnr_y"]["bicubic"] > case.image_psnr(upscaled(case.lr, 2, "centre"))


def test_the_command_writes_the_figures_with_the_machine(tmp_path: Path) -> None:
    write_rgb(photo(70, 66), tmp_path / "hr.png")
    case = (tmp_path / "hr.png", "--method", "dip-fkp", "--side", 64, "--iterations", 1)
    prior = save_untrained(tmp_path, 2)
    words = (*case, "--prior", prior, "--json", tmp_path / "out.json")
    result = invoke(main, *words, "--set", "channels=8", "--set", "levels=3")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["settings"]["channels"] == 8
    assert report["settings"]["prior"] == "untrained-x2.safetensors"
    assert report["iterations"] == 1 and "mse" in report["last"]
    assert {"psnr_y", "kernel_psnr", "machine", "case"} <= set(report)
    assert_one_clear_line(invoke(main, *words, "--set", "channels=many"), "NAME=NUMBER")
