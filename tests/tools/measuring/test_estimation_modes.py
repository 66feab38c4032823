from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy import Bundle
from ikc_deploy.imaging.degrade import SIGMAS
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.runtime.estimation import ESTIMATES
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tools.measure_estimation import main
from tools.measuring import estimation_modes
from tools.measuring.estimation_modes import WINDOW, figures, panning


def test_everything_is_measured_beside_full(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeating network has the same answer for crops as for the whole, and tracks to more."""
    monkeypatch.setattr(estimation_modes, "SPEED_SIZES", ((40, 60),))
    write_rgb(photo(400, 420), tmp_path / "hr" / "a.png")
    path = tmp_path / "out.json"
    amounts = ("--blurs", 2, "--clip-frames", 5, "--drift-frames", 6, "--rounds", 1)
    folders = ("--hr", tmp_path / "hr", "--clips", tmp_path / "hr")
    files = ("--json", path, "--plot", tmp_path / "drift.png")
    result = invoke(main, *folders, *amounts, *files, "--bundle", bundle.path)
    assert result.exit_code == 0, result.output
    assert read_rgb(tmp_path / "drift.png").std() > 0
    found = json.loads(path.read_text())
    assert found["machine"]["cpu"] and found["weights"] == "repeating"
    (quality,) = found["quality"]
    assert (quality["dataset"], quality["images"], quality["loss_db"]) == ("hr", 1, 0)
    assert quality["sigmas"] == [SIGMAS[4][0], SIGMAS[4][-1]]
    for rows in (found["steady"], found["drift"]):
        full, crops, track = rows
        assert [row["estimate"] for row in rows] == list(ESTIMATES)
        assert full | {"estimate": "crops"} == crops
        assert full["sigma_jitter"] == full["flicker_levels"] == 0
        assert track["sigma_jitter"] > 0 and track["flicker_levels"] > 0
    assert len(found["drift_true_sigma"]) == len(found["drift_sigma"]["track"]) == 6
    for speed in found["speed"]:
        assert (speed["height"], speed["width"], speed["rounds"]) == (40, 60, 1)
        assert set(speed["milliseconds"]) == set(speed["processor_milliseconds"]) == set(ESTIMATES)
        assert speed["faster"]["full"] == speed["faster_by_processor"]["full"] == 1


def test_the_window_goes_from_corner_to_corner() -> None:
    hr = np.zeros((4 * WINDOW + 40, 4 * WINDOW + 80, 3), np.uint8)
    hr[:4, :4], hr[-4:, -4:] = 255, 255
    views = [view for view, _ in panning(hr, 4, [2.0, 2.0, 2.0])]
    assert all(view.shape == (4 * WINDOW, 4 * WINDOW, 3) for view in views)
    assert views[0][0, 0, 0] == views[2][-1, -1, 0] == 255
    assert not views[1].any()


def test_figures_are_means_over_frames_and_clips() -> None:
    one = ([2.0] * 6, [(30.0, 2.0, 0.0)] * 4 + [(31.0, 2.2, 0.5)] * 2)
    other = ([1.0] * 6, [(20.0, 1.5, 0.0)] * 6)
    found = figures("full", [one, other])
    assert found.psnr_db == pytest.approx((182 / 6 + 20) / 2)
    assert found.settled_psnr_db == pytest.approx((31 + 20) / 2)
    assert found.sigma_error == pytest.approx((0.4 / 6 + 0.5) / 2)
    assert found.sigma_jitter == pytest.approx(0.2 / 5 / 2)
    assert found.flicker_levels == pytest.approx(1.0 / 5 / 2)


def test_impossible_amounts_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    options = ("--json", tmp_path / "out.json", "--bundle", bundle.path)
    assert_one_clear_line(invoke(main, *options, "--blurs", 9), "--blurs must be 1 to 8")
    assert_one_clear_line(invoke(main, *options, "--clip-frames", 4), "more than 4 frames")
