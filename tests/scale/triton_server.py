"""A real Triton Inference Server on the loopback: the one inside the nvidia-pytriton wheel.

It has the Python backend alone, so networks are served by `onnx_model.py` under the configuration
that the repository gives them, but for the two lines that name their backend.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

_ONNX: Final = 'platform: "onnxruntime_onnx"\ndefault_model_filename: "model.onnx"\n'
_READY_SECONDS: Final = 120


@dataclass(frozen=True)
class Server:
    grpc: str
    """HOST:PORT."""
    metrics: str
    """URL."""


@contextmanager
def running_server(repository: Path, scratch: Path) -> Iterator[Server]:
    """Serve the models of `repository`, changed as said above, until the block ends."""
    _serve_networks_by_python(repository)
    grpc, metrics = _free_port(), _free_port()
    with open(scratch / "server.log", "wb") as log:
        command = _command(repository, scratch, grpc, metrics)
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment())
        try:
            server = Server(f"127.0.0.1:{grpc}", f"http://127.0.0.1:{metrics}/metrics")
            _wait(server, process, scratch / "server.log")
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _serve_networks_by_python(repository: Path) -> None:
    for config in repository.glob("*/config.pbtxt"):
        text = config.read_text()
        if _ONNX in text:
            config.write_text(text.replace(_ONNX, 'backend: "python"\n'))
            source = Path(__file__).with_name("onnx_model.py")
            shutil.copyfile(source, config.parent / "1" / "model.py")


def _home() -> Path:
    found = find_spec("pytriton")
    if found is None or found.origin is None:
        pytest.skip("nvidia-pytriton is not installed; `make test-scale` installs it")
    return Path(found.origin).parent / "tritonserver"


def _command(repository: Path, scratch: Path, grpc: int, metrics: int) -> list[str]:
    return [
        str(_home() / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={_backends(scratch)}",
        "--allow-http=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics}",
        "--exit-on-error=true",
    ]


def _backends(scratch: Path) -> Path:
    """The Python backend together with the part of it that is this Python's."""
    folder = scratch / "backends" / "python"
    folder.mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = _home() / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        pytest.skip(f"this server has no Python backend for Python {version}")
    for file in (*(_home() / "backends" / "python").glob("*.*"), stub):
        (folder / file.name).symlink_to(file)
    return folder.parent


def _environment() -> dict[str, str]:
    libraries = [
        _home().parent.parent / "nvidia_pytriton.libs",
        sysconfig.get_config_var("LIBDIR"),
    ]
    # The backend's Python takes its packages from the environment of the first python3 found.
    paths = [sysconfig.get_path("scripts"), os.environ["PATH"]]
    return os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": os.pathsep.join(paths),
    }


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    from tritonclient import grpc

    deadline = time.monotonic() + _READY_SECONDS
    with grpc.InferenceServerClient(server.grpc) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.is_server_ready():
                    return
            except grpc.InferenceServerException:
                pass
            time.sleep(0.2)
    said = log.read_text(errors="replace")
    raise RuntimeError(f"the server does not start:\n{said[:6000]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
