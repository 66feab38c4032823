from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ikc_deploy.evaluation.records import Record
from ikc_deploy.evaluation.summary import bootstrap_interval, summarise
from tests.evaluation.recorded import SIGMAS, records


def test_rows_are_means_over_images_and_blurs() -> None:
    five, one = summarise(records())
    assert (five.name, five.images, one.name, one.images) == ("Set5", 3, "One", 1)
    labels = ["bicubic", "step 0", "step 1", "step 2", "true kernel"]
    assert [row.label for row in five.rows] == labels
    # Images at 30, 28 and 33 dB at the first sigma, one less at the second.
    level = np.mean([30, 29, 28, 27, 33, 32])
    found = [row.psnr_y.value for row in five.rows]
    assert found == pytest.approx([level - 5, level, level + 0.1, level + 0.2, level + 1])
    errors = [row.sigma_mae.value for row in five.rows if row.sigma_mae]
    assert errors == pytest.approx([0.1, 0.2, 0.3])
    assert [row.kernel_psnr.value for row in five.rows if row.kernel_psnr] == [40, 41, 42]


def test_every_blur_has_its_own_means() -> None:
    five, _ = summarise(records())
    assert [(blur.name, blur.sigma) for blur in five.blurs] == [
        ("sigma 1.8", 1.8),
        ("sigma 2.6", 2.6),
    ]
    for index, blur in enumerate(five.blurs):
        assert blur.rows[1].psnr_y.value == pytest.approx(np.mean([30, 28, 33]) - index)
    assert len(five.blurs) == len(SIGMAS)


def test_what_is_not_known_is_none() -> None:
    five, one = summarise(records(gaussian=False))
    assert [row.label for row in five.rows] == ["bicubic", "step 0", "step 1", "step 2"]
    assert all(row.sigma_mae is None and row.kernel_psnr is None for row in five.rows)
    assert all(row.psnr_y.interval is None for row in one.rows)


def test_the_interval_is_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(3).gamma(2, 2, 40)
    scipys = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, random_state=0
    ).confidence_interval
    ours = bootstrap_interval(values, seed=0)
    assert ours == pytest.approx((scipys.low, scipys.high), abs=0.05)
    assert ours == bootstrap_interval(values, seed=0)
    assert ours != bootstrap_interval(values, seed=1)


def test_an_interval_is_over_images_however_many_blurs_each_has() -> None:
    """Repeating every image under more blurs tells nothing about other images."""

    def rows(blurs: int) -> list[Record]:
        return [
            Record("d", str(image), str(blur), None, "bicubic", None, float(image), 0.5)
            for image in range(6)
            for blur in range(blurs)
        ]

    (few,), (many,) = summarise(rows(1)), summarise(rows(20))
    assert few.rows[0].psnr_y.interval is not None
    assert many.rows[0].psnr_y.interval == pytest.approx(few.rows[0].psnr_y.interval)
