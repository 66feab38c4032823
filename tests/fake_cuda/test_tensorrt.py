from __future__ import annotations

import gc
import shutil
from pathlib import Path

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import BackendError, Bundle, EngineError, OutOfMemoryError, Upscaler
from ikc_deploy.bundle.engine_store import Profile, this_platform
from ikc_deploy.bundle.tensorrt_variants import TensorRTVariantName
from ikc_deploy.loops import IKC
from ikc_deploy.runtime.backends.backend_choice import choose_backend
from tests.fake_cuda.driver import Driver
from tests.fake_cuda.tensorrt import StandIn
from tests.half import write_engine
from tests.samples import photo

ITERS = 3
TENSORRT_VARIANTS: list[TensorRTVariantName] = ["tensorrt", "tensorrt-rtx"]
VERSION = "1.7.1"


@pytest.fixture(scope="module")
def cpu(bundle: Bundle) -> Upscaler:
    return ikc_deploy.load(bundle, "onnxruntime", ITERS, threads=1)


@pytest.fixture
def built(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A bundle with an engine of each variant for the fake driver and frames up to 64x64."""
    folder = tmp_path / "built"
    shutil.copytree(bundle.path, folder)
    opened = Bundle.open(folder)
    for name, variant in zip("ab", TENSORRT_VARIANTS, strict=True):
        opened = write_engine(
            opened,
            name,
            variant=variant,
            version=VERSION,
            platform=this_platform(),
            compute_capabilities=("8.9",),
            profiles=(Profile((1, 8, 8), (1, 16, 16), (2, 64, 64)),),
        )
    return opened


@pytest.fixture
def stand_in(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> StandIn:
    stand_in = StandIn(bundle)
    loader = "ikc_deploy.runtime.backends.tensorrt.load_tensorrt"
    monkeypatch.setattr(loader, lambda variant: stand_in.library(variant, VERSION))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return stand_in


@pytest.mark.parametrize("variant", TENSORRT_VARIANTS)
def test_the_loop_on_engines_equals_the_cpu(
    built: Bundle, cpu: Upscaler, stand_in: StandIn, driver: Driver, variant: TensorRTVariantName
) -> None:
    with ikc_deploy.load(built, variant, ITERS) as upscaler:
        assert upscaler.backend.name == variant
        for seed, (height, width) in enumerate([(16, 20), (9, 30), (16, 20), (16, 20)]):
            frame = photo(height, width, seed)
            assert np.array_equal(upscaler(frame).image, cpu(frame).image)
            assert np.array_equal(upscaler(frame).codes, cpu(frame).codes)
            assert np.array_equal(upscaler.submit(frame).result(60).image, cpu(frame).image)
        assert driver.count("graph launches") > 0
        batch = np.stack([photo(16, 20, 1), photo(16, 20, 2)])
        assert np.array_equal(upscaler(batch).image, cpu(batch).image)
    assert driver.left() == {}


def test_a_session_has_one_context_for_each_graph(
    built: Bundle, stand_in: StandIn, driver: Driver
) -> None:
    with ikc_deploy.load(built, "tensorrt", ITERS) as upscaler:
        for seed in range(3):
            upscaler(photo(16, 20, seed))
        assert stand_in.contexts == len(IKC.graphs)


def test_contexts_end_before_their_stream_and_with_the_device_current(
    built: Bundle, stand_in: StandIn, driver: Driver
) -> None:
    """Also when a shape is evicted, and when an exception still refers to the session."""
    upscaler = ikc_deploy.load(built, "tensorrt", ITERS)
    for width in range(10, 16):
        upscaler(photo(16, width))
    gc.collect()
    assert len(stand_in.ends) >= len(IKC.graphs)
    driver.fail("cuGraphLaunch")
    with pytest.raises(BackendError) as raised:
        for _ in range(2):
            upscaler(photo(16, 15))
    upscaler.close()
    gc.collect()
    assert raised.tb is not None
    assert len(stand_in.ends) == stand_in.contexts
    assert all(depth > 0 and gone == 0 for depth, gone in stand_in.ends)
    assert driver.left() == {}


def test_programs_share_contexts_and_one_block_of_scratch(
    built: Bundle, cpu: Upscaler, stand_in: StandIn, driver: Driver
) -> None:
    frame = photo(64, 64)
    with ikc_deploy.load(built, "tensorrt", ITERS) as upscaler:
        for way in ("full", "crops", "track", "track"):
            expected = cpu(frame, estimate=way)
            assert np.array_equal(upscaler(frame, estimate=way).image, expected.image)
        upscaler(frame, sigma=1.5)
        assert stand_in.contexts == len(IKC.graphs)
        assert len({address for address, _ in stand_in.scratch}) == 1
        upscaler(photo(16, 20))
        assert stand_in.contexts == 2 * len(IKC.graphs)
        assert len({address for address, _ in stand_in.scratch}) == 1


def test_a_context_that_cannot_be_made_counts_as_too_little_memory(
    built: Bundle, stand_in: StandIn
) -> None:
    with ikc_deploy.load(built, "tensorrt", ITERS) as upscaler:
        stand_in.refuse("create_execution_context")
        with pytest.raises(OutOfMemoryError, match="cannot prepare the predictor"):
            upscaler(photo(16, 20))


@pytest.mark.parametrize(
    ("method", "after"),
    [
        ("set_optimization_profile_async", 1),
        ("set_input_shape", 2),
        ("create_execution_context", 0),
        ("set_tensor_address", 5),
        # In the middle of the first loop.
        ("execute_async_v3", 4),
    ],
)
def test_what_tensorrt_refuses_is_raised_with_its_words(
    built: Bundle, cpu: Upscaler, stand_in: StandIn, driver: Driver, method: str, after: int
) -> None:
    frame = photo(16, 20)
    with ikc_deploy.load(built, "tensorrt", ITERS) as upscaler:
        stand_in.refuse(method, after)
        with pytest.raises(BackendError, match=f"tensorrt 1.7.1 cannot .*{method} was refused"):
            upscaler(frame)
        assert np.array_equal(upscaler(frame).image, cpu(frame).image)
    assert driver.left() == {}


def test_a_frame_that_no_engine_takes_is_refused_by_its_shape(
    built: Bundle, stand_in: StandIn
) -> None:
    with (
        ikc_deploy.load(built, "tensorrt", ITERS) as upscaler,
        pytest.raises(EngineError, match=r"to 2x64x64 .*, not 1x65x64"),
    ):
        upscaler(photo(65, 64))


def test_a_plan_that_tensorrt_does_not_take_is_named(built: Bundle, stand_in: StandIn) -> None:
    del stand_in.sessions["corrector"]
    with (
        ikc_deploy.load(built, "tensorrt", ITERS) as upscaler,
        pytest.raises(BackendError, match="load the corrector of engine a: the plan is corrupt"),
    ):
        upscaler(photo(16, 20))


def test_a_half_kernel_code_is_refused(built: Bundle, stand_in: StandIn) -> None:
    stand_in.half_codes = True
    with (
        ikc_deploy.load(built, "tensorrt", ITERS) as upscaler,
        pytest.raises(EngineError, match="a kernel code of float16"),
    ):
        upscaler(photo(16, 20))


def test_rtx_that_cannot_be_recorded_runs_call_by_call(
    built: Bundle, cpu: Upscaler, stand_in: StandIn, driver: Driver
) -> None:
    stand_in.capturable = False
    frame = photo(16, 20)
    with ikc_deploy.load(built, "tensorrt-rtx", ITERS) as upscaler:
        for _ in range(2):
            assert np.array_equal(upscaler(frame).image, cpu(frame).image)
    assert driver.count("graph launches") == 0


def test_rtx_keeps_its_compiled_kernels(built: Bundle, stand_in: StandIn, tmp_path: Path) -> None:
    def upscale() -> None:
        with ikc_deploy.load(built, "tensorrt-rtx", ITERS) as upscaler:
            upscaler(photo(16, 20))

    upscale()
    assert stand_in.caches_read == 0
    files = sorted((tmp_path / "cache").rglob("runtime/*.cache"))
    assert [file.name for file in files] == [f"b-{graph}-8.9.cache" for graph in sorted(IKC.graphs)]
    upscale()
    assert stand_in.caches_read == len(IKC.graphs)
    # One that is refused is replaced.
    files[0].write_bytes(b"of another driver")
    upscale()
    assert files[0].read_bytes() == b"cache of kernels"
    # Where none can be kept, that is no reason to fail.
    files[0].unlink()
    files[0].mkdir()
    (files[0] / "file").touch()
    with pytest.warns(RuntimeWarning, match="compiled kernels are not kept in"):
        upscale()


def test_auto_takes_the_best_that_loads(
    built: Bundle, bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, passed = choose_backend(built)
    assert (backend.name, passed) == ("tensorrt", {})
    backend.close()
    backend, passed = choose_backend(bundle)
    # There is a GPU, as far as the driver says, but no engine and no CUDA for ONNX Runtime.
    assert backend.name == "onnxruntime"
    assert passed["tensorrt"] == passed["tensorrt-rtx"] == "the bundle has no engine for it"
    assert "CUDAExecutionProvider does not start here" in passed["onnxruntime-cuda"]


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
def test_a_named_backend_is_never_replaced(
    bundle: Bundle, stand_in: StandIn, driver: Driver, name: str
) -> None:
    with pytest.raises((BackendError, EngineError)):
        ikc_deploy.load(bundle, name)
    assert driver.left() == {}
