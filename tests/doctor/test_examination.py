from __future__ import annotations

import subprocess
import sys


def test_examining_imports_no_device_module() -> None:
    heavy = "torch onnxruntime openvino onnx tensorrt tensorrt_rtx polygraphy pycuda cuda av"
    code = (
        "import sys; from ikc_deploy.doctor import examination, probes\n"
        "probes.PROBE_SECONDS = 300.0\n"
        "report = examination.examine()\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])\n"
        "print(report.usable, [p.name for p in report.providers if p.loads])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, found = done.stdout.splitlines()
    assert imported == "[]"
    assert found.startswith("True") and "CPUExecutionProvider" in found
