"""What is in a model repository. `tests/scale/test_triton.py` serves one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from ikc_deploy import Bundle, InputError
from ikc_deploy.bundle.engine_store import Profile
from ikc_deploy.errors import OutputError
from ikc_deploy.serving.configs import ServingSettings, default_limits
from ikc_deploy.serving.repository import check_repository, write_repository
from tests.half import half_bundle, write_engine
from tests.sealing import seal


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return half_bundle(tmp_path / "half")


def test_five_models_with_the_bundles_graphs(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    (folder / "other").mkdir(parents=True)
    models = write_repository(bundle, folder)
    assert write_repository(bundle, folder) == models
    names = {"ikc", "ikc_stream", "ikc_predictor", "ikc_sftmd", "ikc_corrector"}
    assert set(models) == names
    assert {path.name for path in folder.iterdir()} == {*names, "other", ".ikc.lock"}
    for network in ("predictor", "sftmd", "corrector"):
        model = models[f"ikc_{network}"]
        assert (model / "1" / "model.onnx").read_bytes() == bundle.graph(network).read_bytes()
        assert 'platform: "onnxruntime_onnx"' in (model / "config.pbtxt").read_text()
    sftmd = (models["ikc_sftmd"] / "config.pbtxt").read_text()
    # Half precision between the networks, codes never.
    assert 'output { name: "sr" data_type: TYPE_FP16 dims: [ 3, -1, -1 ] }' in sftmd
    assert 'input { name: "code" data_type: TYPE_FP32 dims: [ 10 ] }' in sftmd
    assert "sequence_batching" in (models["ikc_stream"] / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("stranger", "words"),
    [
        ("ikc_corrector/labels.txt", "'labels.txt'"),
        ("ikc/1/mine.py", "'1/mine.py'"),
        ("ikc/2/", "'2/'"),
        ("ikc/1/__pycache__/mine.cpython-312.pyc", "'1/__pycache__/'"),
        ("ikc_stream/config.pbtxt", "was edited"),
    ],
)
def test_a_model_in_which_something_would_be_lost_stops_it_before_any_is_written(
    bundle: Bundle, tmp_path: Path, stranger: str, words: str
) -> None:
    folder = tmp_path / "models"
    write_repository(bundle, folder)
    compiled = folder / "ikc" / "1" / "__pycache__" / "model.cpython-312.pyc"
    compiled.parent.mkdir()
    compiled.touch()
    check_repository(folder)
    place = folder / stranger
    if stranger.endswith("/"):
        place.mkdir()
    else:
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(OutputError) as caught:
        write_repository(bundle, folder)
    assert words in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_that_is_no_model_of_ours_is_not_replaced(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "ikc_sftmd" / "1").mkdir(parents=True)
    (tmp_path / "ikc_sftmd" / "1" / "model.onnx").write_text("mine")
    with pytest.raises(OutputError, match="is not a model as ikc-export"):
        write_repository(bundle, tmp_path)
    assert (tmp_path / "ikc_sftmd" / "1" / "model.onnx").read_text() == "mine"
    assert not (tmp_path / "ikc_predictor").exists()


def test_the_loop_needs_nothing_but_numpy_on_the_server(bundle: Bundle, tmp_path: Path) -> None:
    code = write_repository(bundle, tmp_path / "models")["ikc"] / "1"
    (tmp_path / "triton_python_backend_utils.py").touch()
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]; import model; "
        "from ikc_deploy.kernels import KernelBasis; "
        "assert KernelBasis.load(sys.argv[1] + '/basis.npz').code_size == 10; "
        "roots = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted(roots & {'onnxruntime', 'PIL', 'av', 'filelock', 'platformdirs', 'torch'})); "
        "print(sys.modules['ikc_deploy'].__file__)"
    )
    command = [sys.executable, "-I", "-c", program, str(code), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported, package = done.stdout.splitlines()
    assert imported == "[]"
    assert package == str(code / "ikc_deploy" / "__init__.py")


def test_plans_that_triton_loads_take_the_place_of_graphs(bundle: Bundle, tmp_path: Path) -> None:
    write_engine(bundle, "rtx")
    small = Profile((1, 16, 16), (1, 96, 128), (2, 256, 256))
    large = Profile((1, 16, 16), (1, 540, 960), (1, 1080, 1920))
    trt = {"variant": "tensorrt", "version": "11.4.0"}
    write_engine(bundle, "old", **trt | {"version": "11.2.0"}, compute_capabilities=("8.6",))
    write_engine(bundle, "a", **trt, compute_capabilities=("8.9",), profiles=(small, large))
    opened = write_engine(
        bundle, "b", **trt, compute_capabilities=("9.0",), profiles=(small, large)
    )
    models = write_repository(opened, tmp_path / "models", ServingSettings(batch=8))
    sftmd = models["ikc_sftmd"]
    files = {path.name: path.read_bytes() for path in (sftmd / "1").iterdir()}
    assert files == {"model-8.9.plan": b"a sftmd", "model-9.0.plan": b"b sftmd"}
    text = (sftmd / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text
    assert 'cc_model_filenames { key: "9.0" value: "model-9.0.plan" }' in text
    assert 'profile: [ "0", "1" ]' in text
    assert "max_batch_size: 2\n" in text
    assert 'key: "lr" value { data_type: TYPE_UINT8 dims: [ 96, 128, 3 ]' in text
    # The loop takes no more frames than its networks.
    assert "max_batch_size: 2\n" in (models["ikc"] / "config.pbtxt").read_text()


def test_limits_are_parameters(bundle: Bundle, tmp_path: Path) -> None:
    limits = replace(default_limits(), largest_area=12345)
    settings = ServingSettings(limits, loops=3, queue=5, queue_seconds=1.5)
    text = (write_repository(bundle, tmp_path, settings)["ikc"] / "config.pbtxt").read_text()
    assert 'parameters { key: "largest_area" value { string_value: "12345" } }' in text
    assert "max_queue_size: 5" in text
    assert "default_timeout_microseconds: 1500000" in text
    assert "count: 3" in text
    with pytest.raises(InputError, match="queue must be above 0, got 0"):
        ServingSettings(queue=0)


def test_float_bundles_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = copytree(bundle.path, tmp_path / "float")
    seal(folder, replace(bundle.manifest, io="float"))
    with pytest.raises(InputError, match="--io uint8"):
        write_repository(Bundle.open(folder), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_model_needs_nothing_of_the_package_but_what_it_takes_along(
    bundle: Bundle, tmp_path: Path
) -> None:
    model = write_repository(bundle, tmp_path / "models")["ikc"] / "1"
    program = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, {str(model)!r})
import ikc_deploy.kernels, ikc_deploy.serving.loop
assert ikc_deploy.__file__.startswith({str(model)!r})
"""
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
