"""Compile the CUDA kernels of the runtime to PTX, which the driver of any GPU compiles further.

    pip download --no-deps nvidia-cuda-nvrtc-cu12==12.0.140     # and unpack it
    python -m tools.compile_kernels nvidia/cuda_nvrtc/lib/libnvrtc.so.12

NVRTC of CUDA 12.0 writes PTX 8.0, which drivers since 525 read. No GPU is needed. The first line of
the PTX holds a digest of its source, which a test compares.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
from pathlib import Path
from typing import Final

SOURCE: Final = (
    Path(__file__).resolve().parents[1] / "ikc_deploy" / "runtime" / "cuda" / "plane_sums.cu"
)

_OPTIONS: Final = (b"--gpu-architecture=compute_52", b"--std=c++17", b"--fmad=false")


def header(source: Path) -> str:
    """Return the first line of the PTX of a source, without a line break."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return f"// {source.name}, SHA-256 {digest}"


def compile_ptx(source: Path, library: Path) -> str:
    """Return the PTX of a CUDA source.

    Args:
        source: The source.
        library: NVRTC's shared library.

    Raises:
        ValueError: It does not compile; the message is the compiler's log.
    """
    # NVRTC looks for its second library beside the first.
    nvrtc = ctypes.CDLL(str(library.resolve()))
    program = ctypes.c_void_p()
    text = source.read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None)
    options = (ctypes.c_char_p * len(_OPTIONS))(*_OPTIONS)
    status = nvrtc.nvrtcCompileProgram(program, len(_OPTIONS), options)
    if status != 0:
        raise ValueError(_text(nvrtc, "ProgramLog", program))
    ptx = _text(nvrtc, "PTX", program)
    # Comments, and constants of the compiler's own headers that nothing reads.
    return re.sub(r"^(//|\.global .*_INTERNAL_).*\n", "", ptx, flags=re.MULTILINE).strip()


def _text(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    nvrtc[f"nvrtcGet{what}Size"](program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    nvrtc[f"nvrtcGet{what}"](program, content)
    return content.value.decode()


def main(library: str) -> None:
    """Write the PTX beside its source.

    Args:
        library: Path of NVRTC's shared library.
    """
    ptx = f"{header(SOURCE)}\n{compile_ptx(SOURCE, Path(library))}\n"
    SOURCE.with_suffix(".ptx").write_text(ptx, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
