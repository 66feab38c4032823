from __future__ import annotations

import json
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
from ikc_deploy.evaluation.gaussian8 import SIGMAS, degrade_gaussian
from ikc_deploy.evaluation.protocol import PSNR_CEILING, Report, evaluate
from ikc_deploy.images import write_rgb
from ikc_deploy.kernels import KernelBasis
from tests.samples import photo

SCALE = 4
ITERS = 2
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
def report(upscaler: Upscaler, pair: Path) -> Report:
    return evaluate(upscaler, [pair])


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


def test_the_bicubic_row_is_the_mean_that_other_libraries_give(report: Report) -> None:
    rows = []
    for hr in HR.values():
        for sigma in SIGMAS[SCALE]:
            kernel = gaussian_kernel(sigma)[:, :, None]
            blurred = ndimage.correlate(hr.astype(np.float64), kernel, mode="mirror")
            rows.append(scores(resized(resized(blurred, 1 / SCALE), SCALE), hr))
    bicubic = report.datasets["pair"].figures.bicubic
    assert (bicubic.psnr_y, bicubic.ssim_y) == pytest.approx(np.mean(rows, axis=0), abs=1e-3)


def test_the_other_rows_are_what_the_upscaler_gives(
    report: Report, upscaler: Upscaler, small_bundle: Bundle
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
    figures = report.datasets["pair"].figures
    assert (figures.true_kernel.psnr_y, figures.true_kernel.ssim_y) == expected["known"]
    assert [step.step for step in figures.steps] == [0, 1, 2]
    for row in (figures.steps[0], figures.steps[-1]):
        found = (row.psnr_y, row.ssim_y, row.sigma_mae)
        assert found == expected[f"step{row.step}"]
    assert len({step.psnr_y for step in figures.steps}) == len(figures.steps)


def test_the_report_as_json_has_the_agreed_keys(report: Report, small_bundle: Bundle) -> None:
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["protocol"] == "gaussian8"
    assert values["scale"] == SCALE
    assert values["weights"] == small_bundle.manifest.name
    assert set(values["tools"]) >= {"ikc-deploy", "numpy", "scikit-image"}
    assert list(values["datasets"]) == ["pair"]
    dataset = values["datasets"]["pair"]
    assert dataset["images"] == 2 and dataset["sigmas"] == list(SIGMAS[SCALE])
    assert set(dataset["bicubic"]) == set(dataset["true_kernel"]) == {"psnr_y", "ssim_y"}
    assert [step["step"] for step in dataset["steps"]] == [0, 1, 2]
    for step in dataset["steps"]:
        assert set(step) == {"step", "psnr_y", "ssim_y", "sigma_mae"}


def test_equal_images_count_as_the_ceiling_so_that_means_stay_finite(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    write_rgb(np.full((40, 40, 3), 77, np.uint8), tmp_path / "flat" / "grey.png")
    figures = evaluate(upscaler, [tmp_path / "flat"]).datasets["flat"].figures
    assert figures.bicubic.psnr_y == PSNR_CEILING
    assert figures.bicubic.ssim_y == pytest.approx(1)


def test_progress_counts_every_case(upscaler: Upscaler, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    for name in ("first", "second"):
        write_rgb(HR["a"][:32, :32], tmp_path / name / "0.png")
    evaluate(upscaler, [tmp_path / "first", tmp_path / "second"], lambda *c: calls.append(c))
    assert calls == [(name, done, 8) for name in ("first", "second") for done in range(9)]


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
        evaluate(upscaler, [pair, tmp_path / "bad"], never)


def test_two_folders_of_one_name_are_refused(
    upscaler: Upscaler, pair: Path, tmp_path: Path
) -> None:
    write_rgb(HR["a"], tmp_path / "pair" / "0.png")
    with pytest.raises(InputError, match="two folders are named 'pair'"):
        evaluate(upscaler, [pair, tmp_path / "pair"])


def test_a_bundle_that_takes_float_frames_is_refused(upscaler: Upscaler, pair: Path) -> None:
    bundle = upscaler.bundle
    floating = Bundle(bundle.path, replace(bundle.manifest, io="float"))
    with pytest.raises(InputError, match="export it with --io uint8"):
        evaluate(Upscaler(floating, upscaler.backend, ITERS), [pair])


def test_a_bundle_for_other_kernels_is_refused(upscaler: Upscaler, pair: Path) -> None:
    narrow = Bundle(upscaler.bundle.path, upscaler.bundle.manifest)
    narrow.basis = KernelBasis.fit((0.2, 3.0))
    with pytest.raises(InputError, match=r"sigma 0\.2 to 3, .* from 1\.8 to 3\.2"):
        evaluate(Upscaler(narrow, upscaler.backend, ITERS), [pair])
