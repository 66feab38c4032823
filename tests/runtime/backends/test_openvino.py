"""OpenVINO on the CPU: equal to ONNX Runtime, explicit about precision, cached on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

import ikc_deploy
from ikc_deploy import BackendError, Bundle, InputError, UpscalerOptions
from ikc_deploy.bundle.manifest import FrameIO
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.errors import MissingExtraError
from ikc_deploy.export import calibration, int8
from ikc_deploy.export.calibration import quantize_bundle
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.paths import cache_folder
from ikc_deploy.runtime.backends import openvino_models
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.backends.backend_names import OPENVINO
from ikc_deploy.runtime.backends.compiled_cache import CompiledCache
from ikc_deploy.runtime.backends.cpu_backends import CPU_BACKEND_VARIABLE
from ikc_deploy.runtime.backends.openvino import OpenVino
from ikc_deploy.runtime.backends.openvino_devices import (
    Arithmetic,
    find_device,
    loaded_core,
    open_core,
)
from ikc_deploy.runtime.backends.precision_gate import (
    MAX_CODE_LOSS_DB,
    MIN_FRAME_DB,
    SAMPLE,
    GateResult,
    choose_precision,
    measure,
)
from tests.bundles import export_small, save_busy
from tests.half import half_bundle
from tests.samples import photo
from tests.sealing import seal

pytest.importorskip("openvino", reason="needs the extra openvino")

GOOD = GateResult(MIN_FRAME_DB, MAX_CODE_LOSS_DB)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of compiled models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder() / "openvino"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the graphs that are compiled, as opposed to read from the cache."""
    import openvino

    made: list[str] = []
    compile_model = openvino.Core.compile_model

    def watched(core: Any, model: Any, *rest: Any) -> Any:
        made.append(model.get_friendly_name())
        return compile_model(core, model, *rest)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    yield made


def both(bundle: Bundle, frame: NDArray[Any], **blur: Any) -> list[ikc_deploy.Result]:
    """The results of ONNX Runtime and of OpenVINO in float32."""
    results = []
    for backend, precision in (("onnxruntime", "auto"), ("openvino", "f32")):
        with ikc_deploy.load(bundle, backend, 2, threads=1, precision=precision) as upscaler:
            results.append(upscaler(frame, **blur))
    return results


@pytest.mark.parametrize("io", ["uint8", "float"])
def test_float32_is_that_of_onnx_runtime_up_to_rounding(tmp_path: Path, io: FrameIO) -> None:
    bundle = export_small(tmp_path, "film", io=io)
    frame: NDArray[Any] = photo(20, 28)
    if io == "float":
        frame = np.ascontiguousarray(frame.transpose(2, 0, 1), np.float32) / np.float32(255)
    wanted, found = both(bundle, frame)
    np.testing.assert_allclose(found.codes, wanted.codes, rtol=0, atol=1e-5)
    white = 255 if io == "uint8" else 1
    # Frames are rounded to levels, of which a few lie on the other side.
    assert psnr(found.image / white, wanted.image / white) > (70 if io == "uint8" else 110)


def test_float16_graphs_run_in_float32_with_a_warning(tmp_path: Path) -> None:
    bundle = half_bundle(tmp_path / "bundle")
    with pytest.warns(RuntimeWarning, match=r"FP16 graphs, which .* float32 on this CPU.*--fp32"):
        wanted, found = both(bundle, photo(16, 24))
    np.testing.assert_allclose(found.codes, wanted.codes, rtol=0, atol=2e-3)
    assert psnr(found.image / 255, wanted.image / 255) > 55


def test_float32_graphs_are_not_warned_of(small_bundle: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ikc_deploy.load(small_bundle, "openvino", precision="f32").close()


def test_int8_graphs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What 8 bits cost networks that upscale nothing is not the question here.
    for limit in ("MAX_MEDIAN_LOSS", "MAX_WORST_LOSS"):
        monkeypatch.setattr(calibration, limit, 100.0)
    # Narrower ones stay in float32 (with 4 channels, OpenVINO 2026.4 computes them wrongly).
    weights = load_weights(str(save_busy(tmp_path)))
    assert weights.networks.architecture.channels >= int8.MIN_CHANNELS
    bundle = export_bundle(weights, tmp_path / "int8", ExportSettings("fp32"))
    images = [structured_image(96, seed) for seed in range(2)]
    quantize_bundle(bundle.path, bundle.manifest, images)
    operations = {node.op_type for node in onnx.load(bundle.path / "sftmd.onnx").graph.node}
    assert "QuantizeLinear" in operations
    wanted, found = both(Bundle.open(bundle.path), photo(20, 28))
    # The two round the same values, and differ where one of them rounds the other way.
    assert psnr(found.image / 255, wanted.image / 255) > 40


def test_without_openvino_the_extra_is_named(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded_core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ikc-deploy\[openvino\]'"):
        open_backend("openvino", small_bundle)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"device": "TPU"}, InputError, "invalid device 'TPU': expected one of CPU, GPU"),
        ({"device": 1}, InputError, "device='1' is for the backends tensorrt, .*GPUs have numbers"),
        ({"device": "NPU.77"}, BackendError, "no device NPU.77 here, only .*CPU"),
        ({"precision": "fp8"}, InputError, "invalid precision 'fp8': expected one of auto, f32"),
        ({"precision": None}, InputError, "invalid precision None"),
    ],
)
def test_wrong_settings_are_refused(
    small_bundle: Bundle, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ikc_deploy.load(small_bundle, "openvino", **settings)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cpu", -1, None])
def test_a_device_that_no_backend_has_is_refused(small_bundle: Bundle, device: Any) -> None:
    with pytest.raises(InputError, match=r"invalid device .*: expected the number of a GPU"):
        ikc_deploy.load(small_bundle, device=device)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_forked_after_its_first_use_does_not_hang(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CPU_BACKEND_VARIABLE, raising=False)
    frame = photo(12, 12)
    with ikc_deploy.load(small_bundle, "openvino", 1, threads=1) as upscaler:
        upscaler(frame)
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(BackendError, match="forked after its first use"):
                ikc_deploy.load(small_bundle, "openvino", 1)
            with pytest.warns(RuntimeWarning, match="forked after its first use"):
                auto = ikc_deploy.load(small_bundle, "auto", 1, threads=1)
            works = auto.backend.name == "onnxruntime" and len(auto(frame).image) == 48
            os._exit(0 if works else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "tensorrt"])
@pytest.mark.parametrize("setting", [{"device": "GPU"}, {"precision": "f32"}])
def test_other_backends_have_no_such_settings(
    small_bundle: Bundle, backend: str, setting: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=rf"{OPENVINO}.*the backend is {backend}; choose"):
        ikc_deploy.load(small_bundle, backend, **setting)


def test_a_precision_that_the_cpu_lacks_is_refused_when_named(small_bundle: Bundle) -> None:
    plain = replace(find_device(open_core(), "CPU"), capabilities=frozenset({"FP32", "INT8"}))
    for precision in ("bf16", "f16"):
        with pytest.raises(BackendError, match=f"does not compute {precision} natively"):
            OpenVino.open(small_bundle, precision=precision, found=plain)
    assert OpenVino.open(small_bundle, found=plain).precision == "f32"


def test_openvinos_silent_float32_is_noticed(small_bundle: Bundle) -> None:
    """A CPU that only claims bfloat16: OpenVINO takes float32 without a word."""
    found = find_device(open_core(), "CPU")
    if "BF16" in open_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU computes bfloat16")
    claims = replace(found, capabilities=found.capabilities | {"BF16"})
    backend = OpenVino.open(small_bundle, threads=1, found=claims)
    assert backend.precision == "f32"
    assert "in f32 instead of bf16" in backend.explanation
    with (
        ikc_deploy.Upscaler(
            small_bundle, OpenVino.open(small_bundle, precision="bf16", found=claims)
        ) as upscaler,
        pytest.raises(BackendError, match="in f32 instead of bf16"),
    ):
        upscaler(photo(16, 16))


@pytest.mark.parametrize(
    ("limit", "computes"), [("", True), ("AVX512_CORE_BF16", True), ("AVX2", False)]
)
def test_what_onednn_may_not_use_is_no_capability(
    monkeypatch: pytest.MonkeyPatch, limit: str, computes: bool
) -> None:
    """OpenVINO lists bfloat16 all the same, and running it is a segmentation fault."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    found = find_device(_BFloat16Core(), "CPU")
    assert found.computes("bf16") is computes and found.computes("f32")


class _BFloat16Core:
    available_devices = ("CPU",)

    def get_property(self, _: str, name: str) -> Any:
        return ["FP32", "BF16"] if name == "OPTIMIZATION_CAPABILITIES" else "a CPU"


def test_the_shipped_weights_pass_the_gate_in_bfloat16() -> None:
    """In a process of its own, as the tests disable bfloat16 (conftest.py)."""
    if "BF16" not in open_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not compute bfloat16")
    program = (
        "import ikc_deploy\n"
        "for name in ('x4-lite', 'x3-lite', 'x2-lite', 'x4-aniso'):\n"
        "    with ikc_deploy.load(weights=name, backend='openvino') as upscaler:\n"
        "        assert upscaler.backend.precision == 'bf16', upscaler.backend.explanation\n"
    )
    environment = {key: text for key, text in os.environ.items() if key != "ONEDNN_MAX_CPU_ISA"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_the_first_candidate_that_passes_is_taken() -> None:
    results = {"bf16": GateResult(44.9, 0.0), "f16": GOOD}

    def gate(precision: Arithmetic) -> GateResult:
        return results[precision]

    assert choose_precision(("bf16", "f16"), gate)[0] == "f16"
    precision, said = choose_precision(("bf16",), gate)
    assert precision == "f32" and "44.9 dB" in said

    def broken(_: Arithmetic) -> GateResult:
        raise BackendError("no such kernel")

    assert choose_precision(("bf16",), broken) == ("f32", "bf16: no such kernel")


@pytest.mark.parametrize(
    ("result", "passed"),
    [
        (GOOD, True),
        (replace(GOOD, frame_db=MIN_FRAME_DB - 0.01), False),
        (replace(GOOD, code_loss_db=MAX_CODE_LOSS_DB + 0.001), False),
        (GateResult(float("nan"), 0.0), False),
        (GateResult(100.0, float("nan")), False),
    ],
)
def test_both_limits_count(result: GateResult, passed: bool) -> None:
    assert result.passed is passed
    assert GateResult.decode(result.encode()).passed is passed


def spoiled(bundle: Bundle, folder: Path, graph: str, factor: float) -> Bundle:
    """A copy of a bundle with the largest weight of a graph multiplied by `factor`."""
    import shutil

    copied = Path(shutil.copytree(bundle.path, folder))
    model = onnx.load(copied / f"{graph}.onnx")
    weight = max(model.graph.initializer, key=lambda each: np.prod(each.dims, initial=1))
    weight.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(weight), weight.name))
    onnx.save(model, copied / f"{graph}.onnx")
    seal(copied, bundle.manifest)
    return Bundle.open(copied)


def test_the_gate_measures_real_models(small_bundle: Bundle, tmp_path: Path) -> None:
    reference = OpenVino.open(small_bundle, precision="f32", threads=1)
    same = measure(small_bundle, reference, OpenVino.open(small_bundle, precision="f32", threads=1))
    assert same.passed and same.frame_db == 150 and same.code_loss_db == 0
    other = measure(
        small_bundle,
        reference,
        open_backend("onnxruntime", small_bundle, UpscalerOptions(threads=1)),
    )
    assert other.passed and other.frame_db > 90
    bad = spoiled(small_bundle, tmp_path / "f", "sftmd", 30.0)
    result = measure(small_bundle, reference, OpenVino.open(bad, precision="f32", threads=1))
    assert not result.passed and result.frame_db < MIN_FRAME_DB
    nan = spoiled(small_bundle, tmp_path / "nan", "predictor", float("nan"))
    assert not measure(small_bundle, reference, OpenVino.open(nan, precision="f32")).passed


def test_the_gates_sample_is_a_part_of_the_sample_photograph(repository: Path) -> None:
    whole = np.asarray(Image.open(repository / "samples" / "kodim23.png").convert("RGB"))
    assert np.array_equal(np.load(SAMPLE), whole[150:278, 420:548])


@pytest.fixture
def fixed_shapes(small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 16x20 and more have models of their own."""
    least = 16 * 20 * small_bundle.files["sftmd.onnx"].bytes
    monkeypatch.setattr(openvino_models, "MIN_FIXED_WORK", least)


def test_models_are_compiled_once_and_read_from_the_cache_after_that(
    small_bundle: Bundle, compilations: list[str], cache: Path, fixed_shapes: None
) -> None:
    images = []
    for _ in range(2):
        with ikc_deploy.load(small_bundle, "openvino", 1, threads=1, precision="f32") as upscaler:
            images.append(upscaler(photo(16, 20)).image)
            images.append(upscaler(photo(16, 20)).image)
            assert len(compilations) == 3
    assert all(np.array_equal(image, images[0]) for image in images)
    with ikc_deploy.load(small_bundle, "openvino", 1, threads=1, precision="f32") as upscaler:
        upscaler(photo(20, 16))
    assert len(compilations) == 6
    # Every byte of an entry counts: OpenVINO itself would compute with damaged weights.
    for path in cache.glob("*.compiled"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with ikc_deploy.load(small_bundle, "openvino", 1, threads=1, precision="f32") as upscaler:
        assert np.array_equal(upscaler(photo(16, 20)).image, images[0])
    assert len(compilations) == 9


@pytest.mark.usefixtures("fixed_shapes")
def test_small_frames_of_any_size_share_one_compilation(
    small_bundle: Bundle, compilations: list[str]
) -> None:
    sizes = [(15, 21), (8, 8), (12, 26), (15, 21)]
    frames = [photo(*size) for size in sizes] + [np.stack([photo(8, 9), photo(8, 9, 1)])]
    with ikc_deploy.load(small_bundle, "openvino", 1, threads=1, precision="f32") as upscaler:
        images = [upscaler(frame).image for frame in frames]
        assert len(compilations) == 3
        upscaler(photo(16, 20))
        assert len(compilations) == 6
        # Neither the sizes before nor those of other threads change a bit.
        futures = [upscaler.submit(frame) for frame in reversed(3 * frames)]
        for future, image in zip(futures, reversed(3 * images), strict=True):
            assert np.array_equal(future.result(60).image, image)
    with ikc_deploy.load(small_bundle, "onnxruntime", 1, threads=1) as other:
        for frame, image in zip(frames, images, strict=True):
            assert psnr(image / 255, other(frame).image / 255) > 70


def test_the_choice_of_auto_is_compiled_once(
    small_bundle: Bundle, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` tries the graphs when it opens them, and the first small frame profits from it."""
    monkeypatch.setenv(CPU_BACKEND_VARIABLE, OPENVINO)
    for _ in range(2):
        with ikc_deploy.load(small_bundle, iters=1, threads=1) as upscaler:
            assert len(compilations) == 3
            upscaler(photo(16, 20))
            assert len(compilations) == 3


def test_a_cache_that_cannot_be_written_is_a_warning(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with ikc_deploy.load(small_bundle, "openvino", 1, threads=1, precision="f32") as upscaler:
        with pytest.warns(RuntimeWarning, match="compiled models are not kept in"):
            image = upscaler(photo(16, 16)).image
        assert image.shape == (64, 64, 3)


def test_the_cache_forgets_what_was_not_used_for_longest(tmp_path: Path) -> None:
    import os

    cache = CompiledCache(tmp_path, max_bytes=1000)
    for name in range(3):
        cache.store({"name": name}, bytes(300))
    for age, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (age, age))
    oldest = [name for name in range(3) if cache.load({"name": name}) is not None]
    assert oldest == [0, 1, 2]
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    assert cache.load({"name": 1}) == bytes(300)
    cache.store({"name": 3}, bytes(500))
    left = [name for name in range(4) if cache.load({"name": name}) is not None]
    assert left == [1, 3]
    cache.store({"name": 4}, bytes(5000))
    assert [name for name in range(5) if cache.load({"name": name}) is not None] == [4]


def test_several_threads_share_models_of_several_shapes(
    small_bundle: Bundle, fixed_shapes: None
) -> None:
    frames = [photo(16 + 4 * (seed % 3), 20, seed) for seed in range(6)]
    settings: dict[str, Any] = {"threads": 1, "precision": "f32", "streams": 2}
    with ikc_deploy.load(small_bundle, "openvino", 1, **settings) as upscaler:
        wanted = [upscaler(frame).image for frame in frames]
        futures = [upscaler.submit(frame) for frame in 3 * frames]
        for future, image in zip(futures, 3 * wanted, strict=True):
            assert np.array_equal(future.result(60).image, image)


def test_shapes_out_of_use_give_their_memory_back(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, fixed_shapes: None
) -> None:
    import openvino

    released: list[int] = []
    release = openvino.CompiledModel.release_memory

    def watched(model: Any) -> None:
        released.append(threading.get_ident())
        release(model)

    monkeypatch.setattr(openvino.CompiledModel, "release_memory", watched, raising=False)
    settings: dict[str, Any] = {"threads": 1, "precision": "f32"}
    with ikc_deploy.load(small_bundle, "openvino", 0, **settings) as upscaler:
        first = upscaler(photo(32, 40)).image
        upscaler(photo(8, 8))
        upscaler(photo(32, 40))
        assert not released
        upscaler(photo(40, 32))
        assert released
        assert np.array_equal(upscaler(photo(32, 40)).image, first)


def test_too_little_memory_is_said() -> None:
    from ikc_deploy.errors import OutOfMemoryError
    from ikc_deploy.runtime.backends.openvino_models import failure

    thrown = RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:117:\n"
        "Exception from src/core/src/runtime/allocator.cpp:79:\nstd::bad_alloc\n\n"
    )
    error = failure("compile the sftmd", thrown)
    assert isinstance(error, OutOfMemoryError) and "smaller frames or tiles" in str(error)
    other = failure(
        "run the sftmd", RuntimeError("Exception from x:1:\nCheck 'a' failed at b\n\nno")
    )
    assert not isinstance(other, OutOfMemoryError) and str(other).endswith(": no")


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_the_signal_stack_of_a_thread_stays_its_own(small_bundle: Bundle) -> None:
    """Of one that OpenVINO has unmapped, the next Ctrl-C would make a segmentation fault."""
    script = f"""
import ctypes, numpy, ikc_deploy
def signal_stack():
    stack = (ctypes.c_void_p * 3)()
    ctypes.CDLL(None).sigaltstack(None, stack)
    return list(stack)
before = signal_stack()
with ikc_deploy.load({str(small_bundle.path)!r}, "openvino", 1, threads=1) as upscaler:
    upscaler(numpy.zeros((16, 20, 3), numpy.uint8))
    print(signal_stack() == before)
"""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_mixture_of_experts_of_a_fixed_shape_does_not_end_the_process(tmp_path: Path) -> None:
    """The blend of experts after their linear layers is what OpenVINO's snippets crash on."""
    bundle = export_small(tmp_path, "film")
    script = f"""
import numpy, ikc_deploy
from ikc_deploy.runtime.backends import openvino_models
openvino_models.MIN_FIXED_WORK = 0
settings = {{"threads": 1, "precision": "f32"}}
with ikc_deploy.load({str(bundle.path)!r}, "openvino", 1, **settings) as upscaler:
    for count, height, width in ((1, 8, 8), (2, 16, 24)):
        print(upscaler(numpy.zeros((count, height, width, 3), numpy.uint8)).image.shape)
"""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "(1, 32, 32, 3)\n(2, 64, 96, 3)\n"), done.stderr
