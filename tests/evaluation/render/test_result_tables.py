from __future__ import annotations

from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.render.result_tables import tables
from ikc_deploy.evaluation.summary import summarise
from tests.evaluation.recorded import records, report


def test_a_table_for_each_dataset_with_the_columns_that_hold_numbers() -> None:
    five, one = tables(report(degradation=Degradation(5, 70)), summarise(records()))
    assert five.title == "Set5 (images: 3), Gaussians x4, noise 5, JPEG 70: paper"
    assert five.header == ("", "PSNR-Y dB", "95 %", "SSIM-Y", "sigma MAE", "kernel dB")
    # One image has no interval.
    assert one.header == ("", "PSNR-Y dB", "SSIM-Y", "sigma MAE", "kernel dB")
    assert one.rows == (
        ("bicubic", "19.50", "0.7000", "", ""),
        ("step 0: predictor only", "24.50", "0.8000", "0.100", "40.0"),
        ("step 1", "24.60", "0.8000", "0.200", "41.0"),
        ("step 2", "24.70", "0.8000", "0.300", "42.0"),
        ("true kernel", "25.50", "0.9000", "", ""),
    )
    low, high = map(float, five.rows[1][2].split(".."))
    # Resampled means lie between the worst and the best image.
    assert 27.5 <= low < float(five.rows[1][1]) < high <= 32.5


def test_rows_by_blur_come_in_tables_of_their_own() -> None:
    found = tables(report(), summarise(records()), per_blur=True)
    assert [table.title.partition(" by blur")[0] for table in found[5:]] == [
        "One: PSNR-Y dB",
        "One: sigma MAE",
        "One: kernel dB",
    ]
    psnr, sigma, _ = found[5:]
    assert psnr.header == ("", "bicubic", "0", "1", "2", "true")
    assert psnr.rows == (
        ("sigma 1.8", "20.00", "25.00", "25.10", "25.20", "26.00"),
        ("sigma 2.6", "19.00", "24.00", "24.10", "24.20", "25.00"),
    )
    assert sigma.header == ("", "0", "1", "2")
    assert sigma.rows[1] == ("sigma 2.6", "0.100", "0.200", "0.300")


def test_kernels_without_a_sigma_have_no_such_columns() -> None:
    found = tables(report(), summarise(records(gaussian=False)), per_blur=True)
    assert found[2].header == ("", "PSNR-Y dB", "SSIM-Y")
    assert [table.title for table in found[3:]] == ["One: PSNR-Y dB by blur and step"]
    assert found[3].rows[0][0] == "kernel 0"
