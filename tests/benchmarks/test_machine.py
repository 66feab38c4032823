from __future__ import annotations

import getpass
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ikc_deploy.benchmarks.machine import (
    cpu_model,
    describe_machine,
    installed_version,
    usable_cores,
)


def test_a_machine_is_json_and_names_no_owner() -> None:
    machine = describe_machine()
    assert {"cpu", "cores", "memory_gib", "os", "python", "packages", "gpus"} <= set(machine)
    assert machine["cpu"] and machine["cores"] >= 1
    assert set(machine["packages"]) == {"ikc-deploy", "numpy", "onnxruntime", "torch"}
    text = json.dumps(machine)
    assert json.loads(text) == machine
    words = set(re.split(r"[^\w.-]+", text))
    assert not words & {socket.gethostname(), getpass.getuser()}
    assert str(Path.home()) not in text


def test_describing_a_machine_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ikc_deploy.benchmarks.machine import describe_machine as describe\n"
        "describe()\n"
        "print([m for m in ('torch', 'onnxruntime', 'tensorrt', 'pycuda') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_first_installed_distribution_counts() -> None:
    assert installed_version("no-such-thing", "numpy") == installed_version("numpy")
    assert installed_version("no-such-thing") is None


@pytest.mark.parametrize("quota", ["100000 100000", "50000 100000"])
def test_a_containers_quota_bounds_the_cores(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path / "cpu.max") == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path / "cpu.max") == usable_cores(tmp_path / "gone")


def test_a_cpu_without_a_name_still_has_one(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3.00GHz\n")
    assert cpu_model(cpuinfo) == "Some CPU @ 3.00GHz"
    cpuinfo.write_text("processor\t: 0\nCPU part\t: 0xd42\n")
    assert cpu_model(cpuinfo)
