"""The stand-in for TensorRT that CUDA tests run on has the interface of the real bindings.

Bindings import without a GPU, and TensorRT 11's also without its libraries if something stands in
for the few functions that they link.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.fake_cuda import tensorrt

CLASSES = (
    tensorrt.IExecutionContext,
    tensorrt.ICudaEngine,
    tensorrt.Runtime,
    tensorrt.IRuntimeConfig,
    tensorrt.IRuntimeCache,
)
RTX_ONLY = {"IRuntimeCache", "create_runtime_cache", "set_runtime_cache", "is_stream_capturable"}
OWN = {"stand_in", "session", "strategy"}
"""Of the stand-in, not of TensorRT."""

DESCRIBE = """
import json, sys
from importlib import import_module
trt = import_module(sys.argv[1])
classes = {}
for name in sys.argv[2:]:
    kind = getattr(trt, name, None)
    classes[name] = kind and {
        key: str(getattr(kind, key).__doc__) for key in dir(kind) if not key.startswith("__")
    }
strategies = {
    name: sorted(getattr(trt, name).__members__)
    for name in dir(trt) if name.endswith("Strategy")
}
print(json.dumps([classes, strategies, bool(trt.nptype(trt.DataType.HALF))]))
"""


def described(module: str, environment: dict[str, str] | None = None) -> Any:
    """Methods of the real classes with their docstrings, and the enumerations of strategies."""
    names = [kind.__name__ for kind in CLASSES]
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, module, *names],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def stubbed(folder: Path) -> dict[str, str]:
    """An environment in which TensorRT's bindings find libraries with the names they need.

    Of any version: `PYTHONPATH=FOLDER` with the unpacked wheel of another one tests that.
    """
    spec = find_spec("tensorrt_bindings")
    tools = all(map(shutil.which, ("gcc", "nm", "readelf")))
    if spec is None or spec.origin is None or not tools:
        pytest.skip("needs gcc, nm, readelf and pip install tensorrt_cu13_bindings")
    bindings = str(Path(spec.origin).with_name("tensorrt.so"))
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", bindings], capture_output=True, text=True, check=True
    )
    own = ("create", "getBuilder", "getNv", "getPlugin", "initLib")
    names = [name for name in listed.stdout.split() if name.startswith(own)]
    (folder / "stub.c").write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in names))
    dynamic = subprocess.run(
        ["readelf", "-d", bindings], capture_output=True, text=True, check=True
    ).stdout
    needed = re.findall(r"\(NEEDED\).*\[(libnv(?:infer|onnx)[^\]]*)\]", dynamic)
    assert needed
    for library in needed:
        target = str(folder / library)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", target, folder / "stub.c"], check=True)
    return os.environ | {"LD_LIBRARY_PATH": str(folder)}


@pytest.mark.parametrize("module", ["tensorrt_rtx", "tensorrt_bindings"])
def test_the_stand_in_has_the_real_interface(module: str, tmp_path: Path) -> None:
    rtx = module == "tensorrt_rtx"
    if rtx:
        pytest.importorskip("tensorrt_rtx", reason="needs pip install tensorrt_rtx")
    classes, strategies, has_nptype = described(module, None if rtx else stubbed(tmp_path))
    assert has_nptype
    assert {"STATIC", "USER_MANAGED"} <= set(strategies["ExecutionContextAllocationStrategy"])
    if rtx:
        assert {"LAZY", "EAGER"} <= set(strategies["DynamicShapesKernelSpecializationStrategy"])
    for kind in CLASSES:
        if not rtx and kind.__name__ in RTX_ONLY:
            continue
        real = classes[kind.__name__]
        for name, member in vars(kind).items():
            if name.startswith("_") or name in OWN or (not rtx and name in RTX_ONLY):
                continue
            assert name in real, f"{kind.__name__}.{name}"
            if inspect.isfunction(member):
                for parameter in list(inspect.signature(member).parameters)[1:]:
                    assert f"{parameter}:" in real[name], f"{kind.__name__}.{name}({parameter})"
