from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import ikc_deploy
from ikc_deploy import BackendError, Bundle, CheckpointError, InputError, KernelError, Upscaler
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.networks.checkpoints import load_checkpoint, save_checkpoint
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.weights_loader import load_weights
from tests.bundles import export_small
from tests.samples import photo


@pytest.fixture(scope="module")
def upscaler(small_bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(small_bundle, iters=3)


@pytest.fixture(scope="module")
def networks(small_checkpoint: Path) -> IkcNetworks:
    networks = load_checkpoint(small_checkpoint)
    assert isinstance(networks, IkcNetworks)
    return networks


def algorithm_1(
    networks: IkcNetworks, frame: NDArray[np.uint8], iters: int
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """The paper's loop, written out in torch: images in levels, and codes."""
    lr = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    images, codes = [], []
    with torch.no_grad():
        code = networks.predictor(lr)
        for step in range(iters + 1):
            sr = networks.sftmd(lr, code)
            images.append(255 * sr[0].permute(1, 2, 0).numpy())
            codes.append(code[0].numpy())
            if step < iters:
                code = networks.corrector(sr, code)
    return images, codes


def test_the_loop_is_algorithm_1(upscaler: Upscaler, networks: IkcNetworks) -> None:
    frame = photo(24, 31)
    images, codes = algorithm_1(networks, frame, upscaler.iters)
    result = upscaler(frame, steps=True)
    assert result.image.dtype == np.uint8
    assert len(result.steps) == len(result.codes) == 4
    np.testing.assert_allclose(result.codes, codes, atol=1e-5)
    for ours, expected in zip(result.steps, images, strict=True):
        assert np.abs(ours - expected).max() < 0.51
    assert np.array_equal(result.image, result.steps[-1])


@given(
    st.lists(st.tuples(st.integers(8, 20), st.integers(8, 20)), min_size=1, max_size=3),
    st.integers(0, 2**16),
)
def test_frames_do_not_depend_on_what_came_before(
    upscaler: Upscaler, sizes: list[tuple[int, int]], seed: int
) -> None:
    frames = [photo(height, width, seed + i) for i, (height, width) in enumerate(sizes)]
    first = [upscaler(frame).image for frame in frames]
    again = [upscaler(frame).image for frame in reversed(frames)]
    assert all(np.array_equal(a, b) for a, b in zip(first, reversed(again), strict=True))


def test_a_batch_is_its_frames(upscaler: Upscaler) -> None:
    frames = np.stack([photo(16, 20, seed) for seed in range(3)])
    batch = upscaler(frames, steps=True)
    assert batch.image.shape == (3, 64, 80, 3)
    assert batch.codes.shape == (4, 3, 10)
    assert batch.kernel.shape == (3, 21, 21)
    assert len(batch.steps) == 4
    for index, frame in enumerate(frames):
        alone = upscaler(frame)
        assert np.abs(batch.image[index].astype(int) - alone.image).max() <= 1
        assert batch.sigma[index] == pytest.approx(alone.sigma, abs=1e-3)


def test_a_given_blur_runs_the_sr_network_alone(upscaler: Upscaler, networks: IkcNetworks) -> None:
    frame = photo(16, 16)
    code = upscaler.bundle.basis.code_of_sigma(1.7)
    lr = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        expected = networks.sftmd(lr, torch.from_numpy(code)[None])[0].permute(1, 2, 0) * 255
    by_sigma = upscaler(frame, sigma=1.7)
    assert np.abs(by_sigma.image - expected.numpy()).max() < 0.51
    assert by_sigma.codes.shape == (1, 10)
    assert by_sigma.sigma == pytest.approx(1.7, abs=1e-3)
    assert by_sigma.timings["predictor"] == by_sigma.timings["corrector"] == 0
    kernel = ikc_deploy.gaussian_kernel(1.7)
    assert np.array_equal(upscaler(frame, kernel=kernel).image, by_sigma.image)
    small = ikc_deploy.gaussian_kernel(0.8, size=11)
    padded = upscaler(frame, kernel=np.pad(small, 5))
    assert np.array_equal(upscaler(frame, kernel=small).image, padded.image)
    assert np.array_equal(upscaler(frame, code=code).image, by_sigma.image)


def test_no_corrections_is_predictor_and_one_sr_pass(small_bundle: Bundle) -> None:
    frame = photo(12, 12)
    with ikc_deploy.load(small_bundle, iters=0) as none, ikc_deploy.load(small_bundle) as seven:
        assert none(frame).codes.shape == (1, 10)
        assert np.array_equal(none(frame).image, seven(frame, steps=True).steps[0])


def test_results_are_the_callers_own(upscaler: Upscaler) -> None:
    frame = photo(12, 12)
    first = upscaler(frame)
    image, codes = first.image.copy(), first.codes.copy()
    upscaler(255 - frame)
    assert np.array_equal(first.image, image)
    assert np.array_equal(first.codes, codes)


def test_views_with_any_strides_are_frames(upscaler: Upscaler) -> None:
    wide = photo(20, 40)
    view = wide[::-1, ::2]
    assert np.array_equal(upscaler(view).image, upscaler(np.ascontiguousarray(view)).image)


def test_threads_share_one_upscaler(upscaler: Upscaler) -> None:
    frames = [photo(12 + index % 3, 16, index) for index in range(6)]
    expected = [upscaler(frame).image for frame in frames]
    results: dict[int, NDArray[Any]] = {}

    def work(index: int) -> None:
        results[index] = upscaler(frames[index]).image

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[index], image) for index, image in enumerate(expected))


def test_stage_times_are_within_the_total(upscaler: Upscaler) -> None:
    timings = upscaler(photo(16, 16)).timings
    stages = [timings[name] for name in ("predictor", "sftmd", "corrector")]
    assert min(stages) > 0
    assert sum(stages) <= timings["total"]


BAD_FRAMES: list[tuple[Any, str]] = [
    ([[0]], "must be a numpy array, or one with DLPack or .*, got list"),
    (np.zeros((16, 16), np.uint8), "repeat a grey image"),
    (np.zeros((16, 16, 4), np.uint8), "drop the alpha channel"),
    (np.zeros((3, 16, 16), np.uint8), "move the channels last"),
    (np.zeros((16, 16, 3), np.float32), "takes uint8 frames, got float32"),
    (np.zeros((16, 16, 3), np.uint16), "takes uint8 frames, got uint16"),
    (np.zeros((7, 16, 3), np.uint8), "at least 8 pixels on each side"),
    (np.zeros((0, 16, 16, 3), np.uint8), "got 0 of 16x16"),
]


@pytest.mark.parametrize(("frame", "message"), BAD_FRAMES, ids=[text for _, text in BAD_FRAMES])
def test_what_is_no_frame_is_refused_by_name(upscaler: Upscaler, frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        upscaler(frame)


def test_float_bundles_take_and_give_planes(tmp_path: Path) -> None:
    bundle = export_small(tmp_path, "film", io="float")
    planes = photo(16, 12).transpose(2, 0, 1).astype(np.float32) / 255
    with ikc_deploy.load(bundle, iters=1) as upscaler:
        image = upscaler(planes).image
        assert image.dtype == np.float32
        assert image.shape == (3, 64, 48)
        large = photo(96, 100).transpose(2, 0, 1).astype(np.float32) / 255
        crops = upscaler(large, estimate="crops")
        assert np.array_equal(crops.image, upscaler(large, code=crops.codes[-1]).image)
        with pytest.raises(InputError, match="takes float32 frames"):
            upscaler(photo(16, 12))
        with pytest.raises(InputError, match="move the channels first"):
            upscaler(np.zeros((16, 12, 3), np.float32))
        with pytest.raises(InputError, match="divide 8-bit values by 255"):
            upscaler(planes * 255)
        with pytest.raises(InputError, match=r"must lie in \[0,1\]"):
            upscaler(np.full_like(planes, np.nan))


def test_a_blur_that_cannot_be_is_refused(upscaler: Upscaler) -> None:
    frame = photo(12, 12)
    with pytest.raises(KernelError, match=r"sigma must lie in \[0\.2, 4\]"):
        upscaler(frame, sigma=5.0)
    with pytest.raises(KernelError, match="at most 21x21 HR pixels, got 23x23"):
        upscaler(frame, kernel=np.full((23, 23), 23.0**-2))
    with pytest.raises(KernelError, match="sum must be 1, got 25"):
        upscaler(frame, kernel=np.ones((5, 5)))
    with pytest.raises(InputError, match="got sigma and kernel: specify the blur"):
        upscaler(frame, sigma=1.0, kernel=np.ones((21, 21)))
    with pytest.raises(InputError, match="one finite kernel code"):
        upscaler(frame, code=np.full(10, np.nan))
    with pytest.raises(InputError, match=r"sigma must specify one blur; .* small is \[10\]"):
        upscaler(frame, sigma=[1.0, 2.0, 3.0])


class _Broken:
    """An array of a library whose DLPack fails in its own way."""

    def __dlpack_device__(self) -> tuple[int, int]:
        raise ZeroDivisionError("no device")

    def __dlpack__(self) -> object:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((12, 12, 3), np.uint8).tolist(), "got list; convert it, for example by numpy"),
        (Image.new("RGB", (12, 12)), r"got Image; .* numpy\.asarray\(frame\)"),
        (np.ma.masked_array(np.zeros((12, 12, 3), np.uint8)), r"frame\.filled\(0\)"),
        (torch.zeros(12, 12, 3, dtype=torch.uint8, device="meta"), "of type Tensor: .*meta"),
        (torch.zeros(12, 12, 3, requires_grad=True), "detach"),
        (_Broken(), "a frame of type _Broken: no device"),
    ],
    ids=["list", "PIL", "masked", "meta", "grad", "broken"],
)
def test_frames_of_other_libraries_are_read_or_refused_in_a_sentence(
    upscaler: Upscaler, frame: object, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        upscaler(frame)


@pytest.mark.parametrize("copies", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_upscaler_is_not_copied_but_its_results_are(
    upscaler: Upscaler, copies: Callable[[Any], Any]
) -> None:
    copies(upscaler(photo(12, 12)))
    with pytest.raises(InputError, match="load one in each process"):
        copies(upscaler)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_cannot_use_the_upscaler_and_does_not_hang(small_bundle: Bundle) -> None:
    frame = photo(12, 12)
    with ikc_deploy.load(small_bundle, iters=1) as upscaler:
        upscaler.submit(frame).result(60)
        uses: list[Callable[[], Any]] = [
            lambda: upscaler(frame),
            lambda: upscaler.submit(frame),
            lambda: list(upscaler.stream([frame])),
        ]
        child = os.fork()
        if child == 0:
            try:
                for use in uses:
                    with pytest.raises(BackendError, match="forked after it was loaded"):
                        use()
                upscaler.close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        upscaler(frame)


def test_weights_are_chosen_by_name_or_path(small_checkpoint: Path) -> None:
    frame = photo(12, 12)
    with ikc_deploy.load(weights="x2-lite") as shipped:
        assert shipped.scale == 2
        assert "x2-lite, x2, fp32" in repr(shipped)
    with ikc_deploy.load(weights=small_checkpoint, iters=1) as own:
        assert own(frame).image.shape == (48, 48, 3)
    for name in ("x2-lite", "x4-lite"):
        with pytest.raises(InputError, match=f"name of shipped weights.*weights='{name}'"):
            ikc_deploy.load(name)
    with pytest.raises(CheckpointError, match="unknown weights 'x5': expected shipped"):
        ikc_deploy.load(weights="x5")
    wrong: Any = 4
    with pytest.raises(InputError, match="must be a name or a path, got 4"):
        ikc_deploy.load(weights=wrong)
    with pytest.raises(InputError, match="only one of them"):
        ikc_deploy.load("bundle", weights="x2-lite")


@pytest.mark.parametrize("iters", [-1, 1.5, "7", True])
def test_iters_must_be_a_count(small_bundle: Bundle, iters: Any) -> None:
    with pytest.raises(InputError, match="iters must be a whole number"):
        ikc_deploy.load(small_bundle, iters=iters)


def test_an_unknown_backend_names_the_known_ones(small_bundle: Bundle) -> None:
    with pytest.raises(BackendError, match=r"expected one of auto, .*, onnxruntime"):
        ikc_deploy.load(small_bundle, backend="magic")


def test_a_closed_upscaler_says_so(small_bundle: Bundle) -> None:
    upscaler = ikc_deploy.load(small_bundle)
    upscaler.close()
    upscaler.close()
    with pytest.raises(InputError, match="is closed"):
        upscaler(photo(12, 12))


def test_the_levels_of_a_given_blur_are_read_and_those_of_a_code_are_taken(tmp_path: Path) -> None:
    bundle = export_small(tmp_path, "film")
    frame = photo(40, 48)
    with ikc_deploy.load(bundle, "onnxruntime") as upscaler:
        read = upscaler(frame, steps=True).codes[0]
        given = upscaler(frame, sigma=2.0)
        np.testing.assert_array_equal(given.codes[0, :-2], bundle.basis.code_of_sigma(2.0)[:-2])
        np.testing.assert_allclose(given.codes[0, -2:], read[-2:], atol=1e-6)
        assert given.noise == pytest.approx(25 * read[-2], abs=1e-4)
        assert given.jpeg_quality == pytest.approx(100 - 50 * read[-1], abs=1e-4)
        whole = np.append(bundle.basis.code_of_sigma(2.0)[:-2], np.array([0.25, 0.5], np.float32))
        np.testing.assert_array_equal(upscaler(frame, code=whole).codes[0], whole)
        batch = upscaler(np.stack([frame, frame]), sigma=[1.0, 2.0])
        np.testing.assert_allclose(batch.codes[0, :, -2:], [read[-2:]] * 2, atol=1e-6)
    with ikc_deploy.load(bundle, "onnxruntime", tile=64) as upscaler:
        assert upscaler(photo(80, 96), sigma=2.0).codes.shape == (1, 12)


def test_without_a_number_the_bundles_own_is_run(small_checkpoint: Path, tmp_path: Path) -> None:
    networks = load_checkpoint(small_checkpoint)
    networks.training["recommended_iters"] = 2
    save_checkpoint(networks, tmp_path / "two.safetensors")
    weights = load_weights(str(tmp_path / "two.safetensors"))
    bundle = export_bundle(weights, tmp_path / "two", ExportSettings())
    assert bundle.manifest.recommended_iters == 2
    with ikc_deploy.load(bundle) as upscaler:
        assert upscaler(photo(24, 24)).codes.shape == (3, 10)
    with ikc_deploy.load(bundle, iters=1) as upscaler:
        assert upscaler(photo(24, 24)).codes.shape == (2, 10)
