"""Builds what CUDA tests need without a GPU: the real pycuda, and `libcuda.c` as libcuda.so.1.

    python -m tests.fake_cuda.build           # builds, and prints how to run something on it

Both are kept in `.cache/` of the checkout. pycuda comes from the package registry as source and
takes half a minute of compiling, once; the fake driver takes a second, whenever it changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy

from ikc_deploy.files import atomic_folder, atomic_path
from ikc_deploy.locks import locked

PYCUDA: Final = "pycuda==2026.1"
HEADERS: Final = ("nvidia-cuda-runtime>=13,<14", "nvidia-cuda-profiler-api>=13,<14")
SOURCE: Final = Path(__file__).with_name("libcuda.c")
KERNELS: Final = Path(__file__).with_name("gpu_kernels.cpp")
CUDA_SOURCE: Final = (
    Path(__file__).resolve().parents[2] / "ikc_deploy" / "runtime" / "cuda" / "plane_sums.cu"
)
CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "fake_cuda"

MARK: Final = "IKC_FAKE_DRIVER"
"""Environment variable that holds the path of the fake driver in processes that run on it."""

_BOOST: Final = "bpl-subset/bpl_subset"
_SOURCES: Final = (
    # First: it includes the header of numpy that the others may not include before it.
    "src/wrapper/wrap_cudadrv.cpp",
    "src/wrapper/mempool.cpp",
    "src/cpp/*.cpp",
    f"{_BOOST}/libs/python/src/**/*.cpp",
    f"{_BOOST}/libs/smart_ptr/src/*.cpp",
    f"{_BOOST}/libs/system/src/*.cpp",
    f"{_BOOST}/libs/thread/src/pthread/thread.cpp",
    f"{_BOOST}/libs/thread/src/pthread/once.cpp",
)
"""What `setup.py` of pycuda compiles into `pycuda._driver`, without OpenGL and cuRAND."""
_DEFINES: Final = (
    "BOOST_ALL_NO_LIB=1",
    "BOOST_THREAD_BUILD_DLL=1",
    "BOOST_THREAD_DONT_USE_CHRONO=1",
    "BOOST_MULTI_INDEX_DISABLE_SERIALIZATION=1",
    "BOOST_PYTHON_SOURCE=1",
    "PYGPU_PACKAGE=pycuda",
    "PYGPU_PYCUDA=1",
)

_NOT_SUPPORTED: Final = 801
"""CUDA_ERROR_NOT_SUPPORTED."""


class CannotBuildError(Exception):
    """Why there is no fake driver here."""


@dataclass(frozen=True)
class FakeCuda:
    """What was built."""

    library: Path
    """The fake driver."""
    site: Path
    """A folder for PYTHONPATH with pycuda, as far as `pycuda.driver` needs it."""

    def environment(self) -> dict[str, str]:
        """The environment of a process that finds pycuda, and the fake driver as its driver."""
        paths = [str(self.site), os.environ.get("PYTHONPATH", "")]
        return os.environ | {
            MARK: str(self.library),
            "LD_PRELOAD": str(self.library),
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }


def build() -> FakeCuda:
    """Build what is not there yet. Raises `CannotBuildError` with the reason if that fails."""
    if sys.platform != "linux":
        raise CannotBuildError("the fake driver is for Linux")
    missing = [tool for tool in ("gcc", "g++", "nm") if shutil.which(tool) is None]
    if missing:
        raise CannotBuildError(f"the fake driver needs {' and '.join(missing)}")
    tag = f"{PYCUDA}-{sysconfig.get_config_var('SOABI')}"
    pycuda = CACHE / tag
    with locked(pycuda):
        if not pycuda.is_dir():
            with atomic_folder(pycuda) as folder:
                _build_pycuda(folder)
        library = CACHE / f"{tag}-{_digest()}" / "libcuda.so.1"
        if not library.is_file():
            with atomic_path(library) as path:
                _build_library(pycuda, path)
    return FakeCuda(library, pycuda / "site")


def _build_pycuda(folder: Path) -> None:
    """pycuda into `folder/site`, and the headers that it was built with into `folder/headers`."""
    site, headers = folder / "site", folder / "headers"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        _pip("install", "--no-deps", "--target", str(headers), *HEADERS)
        # With the setuptools that torch brings; an environment for it would install numpy again.
        sources = ("--no-deps", "--no-binary", "pycuda", "--no-build-isolation")
        _pip("download", *sources, "--dest", str(work), PYCUDA)
        (archive,) = work.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            # Python 3.11.4 and newer have filters.
            safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            tar.extractall(work, **safe)
        source = work / archive.name.removesuffix(".tar.gz")
        shutil.copytree(source / "pycuda", site / "pycuda")
        (include,) = headers.glob("nvidia/*/include")
        _compile_pycuda(source, include, site / "pycuda")


def _compile_pycuda(source: Path, include: Path, package: Path) -> None:
    """Compile the two extensions of pycuda.

    Not with its `setup.py`: that compiles 30 files, each of which reads Boost's headers again. In
    one file, without optimisation and without debugging information, they take a third of the time.
    """
    names = [str(path) for pattern in _SOURCES for path in sorted(source.glob(pattern))]
    (source / "all.cpp").write_text("".join(f'#include "{name}"\n' for name in names))
    folders = (
        source / "src" / "cpp",
        source / _BOOST,
        include,
        Path(numpy.get_include()),
        Path(sysconfig.get_path("include")),
    )
    flags = ("-shared", "-fPIC", "-fwrapv", "-w", "-O0", "-g0", "-DNDEBUG")
    options = (*(f"-D{name}" for name in _DEFINES), *(f"-I{folder}" for folder in folders))
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name, file in (
        ("_driver", source / "all.cpp"),
        ("_pvt_struct", source / "src" / "wrapper" / "_pvt_struct_v3.cpp"),
    ):
        # The functions of the driver stay undefined: they come from the fake driver.
        _run("g++", *flags, *options, "-o", str(package / f"{name}{suffix}"), str(file))


def _build_library(pycuda: Path, library: Path) -> None:
    """The fake driver, and refusals in the place of functions that pycuda links and it lacks."""
    (include,) = (pycuda / "headers").glob("nvidia/*/include")
    (extension,) = (pycuda / "site").glob("pycuda/_driver*.so")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        compiled = str(work / "libcuda.o")
        flags = ("-fPIC", "-O1", "-g", "-Wall", "-Wextra", "-Werror")
        _run("gcc", "-c", *flags, "-I", str(include), "-o", compiled, str(SOURCE))
        kernels = str(work / "kernels.o")
        include_own = ("-I", str(CUDA_SOURCE.parent))
        # As on a GPU, no multiplication is merged with an addition.
        _run("g++", "-c", *flags, "-ffp-contract=off", *include_own, "-o", kernels, str(KERNELS))
        linked = _run("nm", "-D", "--undefined-only", str(extension)).split()
        defined = _run("nm", "--defined-only", compiled).split()
        absent = sorted({name for name in linked if name.startswith("cu")} - set(defined))
        refusals = "".join(f"int {name}(void) {{ return {_NOT_SUPPORTED}; }}\n" for name in absent)
        (work / "refusals.c").write_text(refusals)
        link = ("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-lpthread", "-ldl")
        _run("gcc", "-o", str(library), compiled, kernels, str(work / "refusals.c"), *link)


def _digest() -> str:
    sources = (SOURCE, KERNELS, CUDA_SOURCE, Path(__file__))
    content = b"".join(source.read_bytes() for source in sources)
    return hashlib.sha256(content).hexdigest()[:12]


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = _last_words(done.stderr.splitlines() or done.stdout.splitlines())
        raise CannotBuildError(f"{Path(command[0]).name} {command[1]} failed: {said}")
    return done.stdout


def _last_words(lines: Sequence[str]) -> str:
    errors = [line for line in lines if "error" in line.lower()] or list(lines)
    return errors[-1].strip() if errors else "it said nothing"


if __name__ == "__main__":
    environment = build().environment()
    print(" ".join(f"{name}={environment[name]}" for name in (MARK, "LD_PRELOAD", "PYTHONPATH")))
