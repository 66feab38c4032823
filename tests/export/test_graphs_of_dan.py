from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle
from ikc_deploy.bundle.manifest import FrameIO, Precision
from ikc_deploy.export.deployable import deployable
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import new_dan_networks
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.frames import frame_shape
from ikc_deploy.runtime.session import Session
from tests.bundles import export_small, save_small
from tests.networks.dan_formulas import published
from tests.networks.test_reference_dan import published_state
from tests.samples import photo, small_architecture

VERSIONS: tuple[Design, ...] = ("dan1", "dan2")
SIZES = ((1, 1), (1, 5), (2, 1), (9, 7), (8, 10))


def exported(
    folder: Path, design: Design, io: FrameIO, precision: Precision = "fp32", scale: int = 3
) -> Bundle:
    checkpoint = save_small(folder, design, scale, f"{design}-{precision}-{io}")
    weights = load_weights(str(checkpoint))
    return export_bundle(weights, checkpoint.with_suffix(""), ExportSettings(precision, io))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A float32 bundle of a small DAN with 8-bit frames."""
    return export_small(tmp_path_factory.mktemp("dan"), "dan2", 3)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("design", VERSIONS)
def test_rewritten_networks_equal_the_plain_ones(
    design: Design, scale: int, size: tuple[int, int]
) -> None:
    networks = new_dan_networks(small_architecture(design, scale), seed=1)
    for module in networks.modules().values():
        module.double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    code = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    rewritten = deployable(networks)
    sr = networks.restorer(lr, code)
    torch.testing.assert_close(rewritten["restorer"](lr, code), sr, rtol=0, atol=1e-12)
    found = rewritten["estimator"](sr, lr)
    torch.testing.assert_close(found, networks.estimator(sr, lr), rtol=0, atol=1e-12)


def loop_of(
    bundle: Bundle, lr: NDArray[Any], iters: int
) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """The unclamped images and the codes of every step, in ONNX Runtime."""
    backend = open_backend("onnxruntime", bundle)
    session = Session(backend, bundle, frame_shape(lr, bundle.manifest.io), iters)
    images: list[NDArray[Any]] = []
    session.upload(lr)
    session.blind().run(lambda _: images.append(backend.download(session.sr)))
    codes = np.stack([backend.download(code) for code in session.codes])
    backend.close()
    return images, codes


@pytest.mark.parametrize("design", VERSIONS)
def test_loops_of_graphs_follow_the_formulas(
    design: Design, bundle: Bundle, tmp_path: Path
) -> None:
    """On float planes with the first version, on 8-bit frames with the second."""
    frames: NDArray[Any]
    if design == "dan1":
        bundle = exported(tmp_path, design, "float", scale=2)
        frames = np.random.default_rng(0).random((2, 3, 9, 12), dtype=np.float32)
        planes = torch.from_numpy(frames)
    else:
        frames = np.stack([photo(9, 12, seed) for seed in range(2)])
        planes = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    scale = bundle.manifest.scale
    networks = new_dan_networks(small_architecture(design, scale), seed=0)
    srs, codes = published(published_state(networks), planes, scale, loops=3)
    images, found = loop_of(bundle, frames, iters=3)
    np.testing.assert_allclose(np.stack(images[:3]), torch.stack(srs), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1:], torch.stack(codes), rtol=0, atol=1e-5)


def test_a_bundle_names_its_loop_and_measures_every_step(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.loop, manifest.recommended_iters) == ("dan", 3)
    assert set(bundle.files) == {"restorer.onnx", "estimator.onnx", "basis.npz"}
    assert manifest.parity is not None
    assert set(manifest.parity.graphs) == {"restorer", "estimator"}
    assert [step.step for step in manifest.parity.steps] == [0, 1, 2, 3]


def test_all_ways_to_estimate_run_and_start_at_the_delta_kernel(bundle: Bundle) -> None:
    frame = photo(96, 96)
    with ikc_deploy.load(bundle, "onnxruntime", 2) as upscaler:
        full = upscaler(frame)
        np.testing.assert_array_equal(full.codes[0], bundle.basis.delta_code())
        assert set(full.timings) == {"restorer", "estimator", "total"}
        crops = upscaler(frame, estimate="crops")
        np.testing.assert_array_equal(crops.codes[0], bundle.basis.delta_code())
        given = upscaler(frame, code=full.codes[-1])
        np.testing.assert_array_equal(given.image, full.image)
        upscaler(frame, estimate="track")
        np.testing.assert_array_equal(upscaler(frame, estimate="track").codes[0], crops.codes[-1])
        # A known code in between must not change where the next frame starts.
        np.testing.assert_array_equal(upscaler(frame).codes, full.codes)


@pytest.mark.parametrize(
    ("design", "precision", "scale"), [("dan1", "fp16", 4), ("dan2", "int8", 3)]
)
def test_other_precisions_pass_the_gate(
    design: Design, precision: Precision, scale: int, tmp_path: Path
) -> None:
    manifest = exported(tmp_path, design, "uint8", precision, scale).manifest
    assert manifest.precision == precision
    assert manifest.parity is not None
