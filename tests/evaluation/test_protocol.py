from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ikc_deploy import Bundle, InputError, Upscaler, gaussian_kernel, load
from ikc_deploy.evaluation.blurs import Blur, BlurSet
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.protocol import EvaluationReport, Protocol, evaluate
from ikc_deploy.evaluation.records import Record
from ikc_deploy.evaluation.summary import DatasetSummary, summarise
from ikc_deploy.imaging.degrade import SIGMAS, degrade, degrade_gaussian
from ikc_deploy.imaging.metrics import MAX_PSNR
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.kernels import KernelBasis
from tests.samples import photo

SCALE = 4
ITERS = 2
GAUSSIAN8 = Protocol(BlurSet.gaussian8(SCALE))
ONE_BLUR = Protocol(BlurSet.gaussians((2.6,)))
HR = {"a": photo(40, 68, seed=1), "b": photo(56, 36, seed=2)}


@pytest.fixture(scope="module")
def upscaler(small_bundle: Bundle) -> Iterator[Upscaler]:
    with load(small_bundle, iters=ITERS, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of different size, with a margin that no multiple of the scale covers."""
    folder = tmp_path_factory.mktemp("data") / "pair"
    for name, image in HR.items():
        ragged = np.pad(image, ((0, 1), (0, 3), (0, 0)), "edge")
        write_rgb(ragged, folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def report(upscaler: Upscaler, pair: Path) -> EvaluationReport:
    return evaluate(upscaler, [pair], GAUSSIAN8)


@pytest.fixture(scope="module")
def summary(report: EvaluationReport) -> DatasetSummary:
    (found,) = summarise(report.records)
    return found


def kernels(*arrays: NDArray[np.float64]) -> Protocol:
    blurs = (Blur(f"kernel {index}", array, None) for index, array in enumerate(arrays))
    return Protocol(BlurSet("kernels", tuple(blurs), "some.npy"))


def uneven_kernel(size: int) -> NDArray[np.float64]:
    """No symmetry, so that a flipped kernel cannot hide."""
    kernel = gaussian_kernel(2.0, size) * np.linspace(0, 1, size) ** 2
    return np.asarray(kernel / kernel.sum())


def resized(image: NDArray[Any], factor: float) -> NDArray[np.uint8]:
    """torch's bicubic with MATLAB's border, rounded to 8 bits."""
    padded = np.pad(image, ((16, 16), (16, 16), (0, 0)), "symmetric").astype(np.float64)
    tensor = torch.from_numpy(padded).permute(2, 0, 1)[None]
    size = [round(side * factor) for side in padded.shape[:2]]
    output = F.interpolate(tensor, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    inner = round(16 * factor)
    return np.rint(output.numpy()[inner:-inner, inner:-inner]).clip(0, 255).astype(np.uint8)


def scores(image: NDArray[np.uint8], hr: NDArray[np.uint8]) -> tuple[float, float]:
    """PSNR and SSIM of luma by scikit-image alone."""
    inside = slice(SCALE, -SCALE)
    ours, theirs = (rgb2ycbcr(array)[inside, inside, 0] for array in (image, hr))
    psnr = peak_signal_noise_ratio(theirs, ours, data_range=255)  # type: ignore[no-untyped-call]
    ssim = structural_similarity(  # type: ignore[no-untyped-call]
        ours, theirs, data_range=255, gaussian_weights=True, use_sample_covariance=False
    )
    return psnr, ssim


def test_the_bicubic_row_is_the_mean_that_other_libraries_give(summary: DatasetSummary) -> None:
    rows = []
    for hr in HR.values():
        for sigma in SIGMAS[SCALE]:
            kernel = gaussian_kernel(sigma)[:, :, None]
            blurred = ndimage.correlate(hr.astype(np.float64), kernel, mode="mirror")
            rows.append(scores(resized(resized(blurred, 1 / SCALE), SCALE), hr))
    bicubic = summary.rows[0]
    assert (summary.name, summary.images, bicubic.method) == ("pair", 2, "bicubic")
    assert (bicubic.psnr_y.value, bicubic.ssim_y.value) == pytest.approx(
        np.mean(rows, axis=0), abs=1e-3
    )


def test_the_other_rows_are_what_the_upscaler_gives(
    summary: DatasetSummary, upscaler: Upscaler, small_bundle: Bundle
) -> None:
    sigmas = np.linspace(0.2, 4.0, 20_000)
    curve = small_bundle.basis.code_of_sigma(sigmas)
    rows: dict[str, list[tuple[float, ...]]] = {}
    with load(small_bundle, iters=0, threads=1) as predictor_only:
        for hr in HR.values():
            for sigma in SIGMAS[SCALE]:
                lr = degrade_gaussian(hr, sigma, SCALE)
                known = upscaler(lr, sigma=sigma)
                rows.setdefault("known", []).append(scores(known.image, hr))
                for step, result in ((0, predictor_only(lr)), (ITERS, upscaler(lr))):
                    distances = np.abs(curve - result.codes[-1]).astype(np.float64) ** 2
                    error = abs(sigmas[distances.sum(axis=1).argmin()] - sigma)
                    rows.setdefault(f"step{step}", []).append((*scores(result.image, hr), error))
    expected = {name: pytest.approx(np.mean(row, axis=0), abs=1e-3) for name, row in rows.items()}
    _, *steps, known_row = summary.rows
    assert known_row.method == "true kernel"
    assert (known_row.psnr_y.value, known_row.ssim_y.value) == expected["known"]
    assert [row.step for row in steps] == [0, 1, 2]
    for row in (steps[0], steps[-1]):
        assert row.sigma_mae is not None
        found_row = (row.psnr_y.value, row.ssim_y.value, row.sigma_mae.value)
        assert found_row == expected[f"step{row.step}"]
    assert len({row.psnr_y.value for row in steps}) == len(steps)


def test_records_come_by_image_blur_and_step(report: EvaluationReport) -> None:
    cases = [
        (image, f"sigma {sigma:g}", sigma, method, step)
        for image in ("a.png", "b.png")
        for sigma in SIGMAS[SCALE]
        for method, step in (
            ("bicubic", None),
            *(("blind", step) for step in range(ITERS + 1)),
            ("true kernel", None),
        )
    ]
    assert [(r.image, r.blur, r.sigma, r.method, r.step) for r in report.records] == cases
    for record in report.records:
        estimated = (record.sigma_error is not None, record.kernel_psnr is not None)
        assert estimated == (record.method == "blind",) * 2


@pytest.mark.parametrize("size", [21, 15])
def test_any_kernel_blurs_the_image_and_is_given_to_f(
    upscaler: Upscaler, pair: Path, size: int
) -> None:
    kernel = uneven_kernel(size)
    whole = np.pad(kernel, (21 - size) // 2)
    records = [r for r in evaluate(upscaler, [pair], kernels(kernel)).records if r.image == "a.png"]
    lr = degrade(HR["a"], kernel, SCALE)
    blind, known = upscaler(lr), upscaler(lr, code=upscaler.bundle.basis.encode(whole))
    assert (records[-1].psnr_y, records[-1].ssim_y) == pytest.approx(scores(known.image, HR["a"]))
    last = records[-2]
    assert (last.psnr_y, last.ssim_y) == pytest.approx(scores(blind.image, HR["a"]))
    assert (last.sigma, last.sigma_error) == (None, None)
    assert last.sigma_estimate == pytest.approx(blind.sigma)
    decibels = peak_signal_noise_ratio(  # type: ignore[no-untyped-call]
        whole, blind.kernel.astype(np.float64), data_range=whole.max()
    )
    assert last.kernel_psnr == pytest.approx(decibels)


def test_a_kernel_larger_than_the_bundles_blurs_but_is_compared_with_nothing(
    upscaler: Upscaler, pair: Path
) -> None:
    records = evaluate(upscaler, [pair], kernels(uneven_kernel(25))).records
    assert {record.method for record in records} == {"bicubic", "blind"}
    assert {record.kernel_psnr for record in records} == {None}
    lr = degrade(HR["a"], uneven_kernel(25), SCALE)
    assert records[0].psnr_y == pytest.approx(scores(resized(lr, SCALE), HR["a"])[0], abs=1e-3)


def test_a_filter_degrades_the_image_and_is_compared_with_nothing(
    upscaler: Upscaler, pair: Path
) -> None:
    protocol = Protocol(BlurSet.degradation("median", SCALE))
    records = [r for r in evaluate(upscaler, [pair], protocol).records if r.image == "a.png"]
    filtered = ndimage.median_filter(HR["a"], size=(5, 5, 1), mode="mirror")
    lr = resized(filtered, 1 / SCALE)
    assert [r.method for r in records] == ["bicubic"] + ["blind"] * (ITERS + 1)
    assert {(r.blur, r.sigma, r.sigma_error, r.kernel_psnr) for r in records} == {
        ("median", None, None, None)
    }
    assert records[0].psnr_y == pytest.approx(scores(resized(lr, SCALE), HR["a"])[0], abs=1e-3)
    assert records[-1].psnr_y == pytest.approx(scores(upscaler(lr).image, HR["a"])[0], abs=1e-3)


def test_noise_and_jpeg_reach_every_row(upscaler: Upscaler, pair: Path) -> None:
    degradation = Degradation(noise=15, jpeg=40)
    spoilt = evaluate(upscaler, [pair], Protocol(ONE_BLUR.blurs, degradation)).records
    clean = evaluate(upscaler, [pair], ONE_BLUR).records

    def figures(records: tuple[Record, ...]) -> list[float]:
        return [record.psnr_y for record in records]

    assert all(np.array(figures(spoilt)) < np.array(figures(clean)))
    lr = degradation.apply(HR["b"], gaussian_kernel(2.6), SCALE, "b.png")
    found = next(r for r in spoilt if r.image == "b.png" and r.step == ITERS)
    assert found.psnr_y == pytest.approx(scores(upscaler(lr).image, HR["b"])[0])


def test_equal_images_count_as_the_ceiling_so_that_means_stay_finite(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    write_rgb(np.full((40, 40, 3), 77, np.uint8), tmp_path / "flat" / "grey.png")
    bicubic = evaluate(upscaler, [tmp_path / "flat"], ONE_BLUR).records[0]
    assert bicubic.psnr_y == MAX_PSNR
    assert bicubic.ssim_y == pytest.approx(1)


def test_progress_counts_every_case(upscaler: Upscaler, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    for name in ("first", "second"):
        write_rgb(HR["a"][:32, :32], tmp_path / name / "0.png")
    folders = [tmp_path / "first", tmp_path / "second"]
    protocol = Protocol(BlurSet.gaussians((1.8, 2.6)))
    evaluate(upscaler, folders, protocol, lambda *call: calls.append(call))
    assert calls == [(name, done, 2) for name in ("first", "second") for done in range(3)]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"no image"), "cannot be read as an image"),
        (lambda path: write_rgb(HR["a"][:, :31], path), r"31x40 pixels.* at least 32"),
    ],
)
def test_an_unusable_image_is_named_before_anything_is_measured(
    upscaler: Upscaler, pair: Path, tmp_path: Path, damage: object, words: str
) -> None:
    write_rgb(HR["a"], tmp_path / "bad" / "0.png")
    last = tmp_path / "bad" / "z.png"
    assert callable(damage)
    damage(last)

    def never(*_: object) -> None:
        pytest.fail("a case was measured")

    with pytest.raises(InputError, match=f"{last}.*{words}"):
        evaluate(upscaler, [pair, tmp_path / "bad"], ONE_BLUR, never)


def test_two_folders_of_one_name_are_refused(
    upscaler: Upscaler, pair: Path, tmp_path: Path
) -> None:
    write_rgb(HR["a"], tmp_path / "pair" / "0.png")
    with pytest.raises(InputError, match="two folders are named 'pair'"):
        evaluate(upscaler, [pair, tmp_path / "pair"], ONE_BLUR)


def test_a_bundle_that_takes_float_frames_is_refused(upscaler: Upscaler, pair: Path) -> None:
    bundle = upscaler.bundle
    floating = Bundle(bundle.path, replace(bundle.manifest, io="float"), bundle.files)
    with pytest.raises(InputError, match="export it with --io uint8"):
        evaluate(Upscaler(floating, upscaler.backend, ITERS), [pair], GAUSSIAN8)


def test_no_folder_is_refused(upscaler: Upscaler) -> None:
    with pytest.raises(InputError, match="give a folder of HR images"):
        evaluate(upscaler, [], ONE_BLUR)


def test_a_sigma_that_the_bundle_does_not_know_is_refused(upscaler: Upscaler, pair: Path) -> None:
    narrow = Bundle(upscaler.bundle.path, upscaler.bundle.manifest)
    narrow.basis = KernelBasis.fit((0.2, 3.0))
    with pytest.raises(InputError, match=r"covers sigma 0\.2 to 3 .* of sigma 3\.2"):
        evaluate(Upscaler(narrow, upscaler.backend, ITERS), [pair], GAUSSIAN8)
    with pytest.raises(InputError, match=r"covers sigma 0\.2 to 4 .* of sigma 4\.1"):
        evaluate(upscaler, [pair], Protocol(BlurSet.gaussians((2.6, 4.1))))
