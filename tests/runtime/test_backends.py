from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import numpy as np
import pytest

import ikc_deploy
from ikc_deploy import BackendError, Bundle, InputError, UpscalerOptions
from ikc_deploy.runtime.backends.backend_choice import choose_backend, open_backend
from ikc_deploy.runtime.backends.backend_names import BACKENDS
from ikc_deploy.runtime.backends.cpu_backends import CPU_BACKEND_VARIABLE, choose_cpu_backend
from ikc_deploy.runtime.backends.onnx_sessions import load_sessions
from ikc_deploy.runtime.backends.openvino_devices import loaded_core
from tests.half import half_bundle, write_engine
from tests.samples import photo

PROVIDER: Final = "CUDAExecutionProvider"
ON_A_CPU = ("openvino", "onnxruntime")
ON_A_GPU = tuple(name for name in BACKENDS if name not in ON_A_CPU)


@pytest.fixture
def no_pycuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed, pycuda is not."""
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)


@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_gpu_without_pycuda_says_what_to_install(
    small_bundle: Bundle, no_pycuda: None, name: str
) -> None:
    with pytest.raises(BackendError, match=r"needs the module pycuda.*pip install 'pycuda>="):
        open_backend(name, small_bundle)


def test_auto_says_why_it_took_the_cpu(tmp_path: Path, no_pycuda: None) -> None:
    bundle = write_engine(half_bundle(tmp_path / "bundle"), "a")
    backend, passed = choose_backend(bundle)
    assert backend.name in ON_A_CPU
    assert list(passed)[: len(ON_A_GPU)] == list(ON_A_GPU)
    assert passed["tensorrt"] == "the bundle has no engine for it"
    assert "pycuda" in passed["tensorrt-rtx"] and "pycuda" in passed["onnxruntime-cuda"]


def test_auto_takes_openvino_where_it_is_installed(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    monkeypatch.delenv(CPU_BACKEND_VARIABLE)
    backend, passed = choose_cpu_backend(small_bundle, 1)
    assert backend.name == "openvino" and passed == {}
    # Without it, ONNX Runtime is taken without a word.
    loaded_core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    backend, passed = choose_cpu_backend(small_bundle, 1)
    assert backend.name == "onnxruntime"
    assert "ikc-deploy[openvino]" in passed["openvino"]


@pytest.mark.parametrize("call", ["Core.read_model", "Core.compile_model", "Core.__init__"])
def test_an_openvino_that_fails_is_replaced_with_one_warning(
    small_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs OpenVINO")

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("this CPU is too old")

    loaded_core.cache_clear()
    monkeypatch.delenv(CPU_BACKEND_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino.Core, call.partition(".")[2], refuse)
    frame = photo(16, 20)
    with pytest.warns(RuntimeWarning, match="this CPU is too old.*backend='onnxruntime'") as said:
        upscaler = ikc_deploy.load(small_bundle, "auto", 1)
    loaded_core.cache_clear()
    assert len(said) == 1
    with upscaler, ikc_deploy.load(small_bundle, "onnxruntime", 1) as named:
        assert upscaler.backend.name == "onnxruntime"
        assert np.array_equal(upscaler(frame).image, named(frame).image)


@pytest.mark.parametrize(
    ("name", "opener"), [("openvino", "_open_openvino"), ("onnxruntime", "open_onnxruntime")]
)
def test_the_environment_names_the_cpu_backend_of_auto(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, opener: str
) -> None:
    monkeypatch.setenv(CPU_BACKEND_VARIABLE, name)
    with ikc_deploy.load(small_bundle, "auto", 1) as upscaler:
        assert upscaler.backend.name == name
    # What is named is not replaced.
    monkeypatch.setattr(f"ikc_deploy.runtime.backends.cpu_backends.{opener}", _broken)
    with pytest.raises(BackendError, match=r"no backend runs here.*broken"):
        ikc_deploy.load(small_bundle, "auto", 1)
    monkeypatch.setenv(CPU_BACKEND_VARIABLE, "tensorrt")
    with pytest.raises(InputError, match=f"invalid {CPU_BACKEND_VARIABLE} 'tensorrt': expected"):
        ikc_deploy.load(small_bundle, "auto", 1)


def _broken(*_: Any) -> Any:
    raise BackendError("broken")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86-64 CPUs")
@pytest.mark.parametrize("name", ON_A_CPU)
def test_float16_graphs_are_warned_of_where_they_gain_nothing(tmp_path: Path, name: str) -> None:
    bundle = half_bundle(tmp_path / "bundle")
    with pytest.warns(RuntimeWarning, match=rf"FP16 graphs, which {name} computes in float32"):
        ikc_deploy.load(bundle, name).close()


@pytest.mark.parametrize("name", ON_A_CPU)
def test_frames_in_gpu_memory_are_refused_on_the_cpu(small_bundle: Bundle, name: str) -> None:
    class OnAGpu:
        __cuda_array_interface__: ClassVar[dict[str, Any]] = {}

    with (
        ikc_deploy.load(small_bundle, name, 1) as upscaler,
        pytest.raises(InputError, match="copy the frame to numpy, or choose another backend"),
    ):
        upscaler(OnAGpu())


@pytest.mark.parametrize("name", ON_A_CPU)
def test_host_arrays_of_other_libraries_are_read_in_place(small_bundle: Bundle, name: str) -> None:
    import torch

    frame = photo(16, 20)
    with ikc_deploy.load(small_bundle, name, 1) as upscaler:
        image = upscaler(torch.from_numpy(frame)).image
        assert isinstance(image, np.ndarray)
        assert np.array_equal(image, upscaler(frame).image)


@pytest.mark.parametrize("name", ON_A_CPU)
def test_the_cpu_works_on_several_frames_at_once(small_bundle: Bundle, name: str) -> None:
    frames = [photo(16, 16 + seed % 2, seed) for seed in range(5)]
    with ikc_deploy.load(small_bundle, name, 1, threads=1, streams=3) as upscaler:
        tickets = [upscaler.submit(frame) for frame in frames]
        for ticket, frame in zip(tickets, frames, strict=True):
            assert np.array_equal(ticket.result(60).image, upscaler(frame).image)


@pytest.mark.parametrize("streams", [0, -1, 1.5, True])
def test_streams_must_be_a_count(small_bundle: Bundle, streams: Any) -> None:
    with pytest.raises(InputError, match="streams must be a whole number"):
        ikc_deploy.load(small_bundle, "onnxruntime", streams=streams)


@pytest.mark.parametrize("name", [*ON_A_CPU, "onnxruntime-cuda"])
def test_recording_is_required_of_backends_that_can_only(small_bundle: Bundle, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} records no CUDA graphs.*one of tensorrt"):
        ikc_deploy.load(small_bundle, name, cuda_graph="require")
    # Among all, TensorRT alone is a candidate, and this bundle has no engine.
    with pytest.raises(BackendError, match="tensorrt: the bundle has no engine for it"):
        ikc_deploy.load(small_bundle, cuda_graph="require")
    with pytest.raises(InputError, match="cuda_graph must be one of auto, require, off, got True"):
        open_backend("onnxruntime", small_bundle, UpscalerOptions(cuda_graph=cast(Any, True)))


def test_onnx_runtime_runs_nothing_on_the_cpu_instead_of_a_gpu(small_bundle: Bundle) -> None:
    """ONNX Runtime itself refuses; without the setting, it would load and compute on the CPU."""
    import onnxruntime

    path = str(small_bundle.graph("predictor"))
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 4
    given = onnxruntime.InferenceSession(path, quiet, providers=[PROVIDER]).get_providers()
    if given[0] == PROVIDER:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=f"on the CPU, which is refused: {PROVIDER} does not st"):
        load_sessions(small_bundle, PROVIDER, {})
