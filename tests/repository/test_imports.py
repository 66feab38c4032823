from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = "ikc_deploy"
"""The package itself, as a part: what `from ikc_deploy import load` imports."""

ALLOWED = {
    "errors": set[str](),
    "version": set[str](),
    "files": {"errors"},
    "locks": {"errors", "files"},
    "paths": {"version"},
    "kernels": {"errors", "arguments", "text"},
    "loops": set[str](),
    "bundle": {
        "errors",
        "arguments",
        "loops",
        "files",
        "locks",
        "kernels",
        "parsing",
        "typed_values",
        "text",
    },
    "runtime": {
        "errors",
        "loops",
        "files",
        "paths",
        "kernels",
        "bundle",
        "arguments",
        "onnx_runtime",
        "text",
        "option_fields",
    },
    "reporting": {"errors", "files"},
    "imaging": {
        "errors",
        "arguments",
        "text",
        "option_fields",
        "files",
        "kernels",
        "bundle",
        "runtime",
        "reporting",
    },
    "video": {"errors", "option_fields", "files", "runtime", "imaging"},
    "batch": {"errors", "option_fields", "files", "bundle", "runtime", "imaging", "video", ROOT},
    "serving": {
        "errors",
        "loops",
        "text",
        "arguments",
        "files",
        "locks",
        "kernels",
        "bundle",
        "runtime",
    },
    "web": {"errors", "option_fields", "kernels", "bundle", "runtime", "imaging"},
    "weights": {"errors"},
    "evaluation": {
        "errors",
        "parsing",
        "typed_values",
        "option_fields",
        "version",
        "files",
        "locks",
        "kernels",
        "bundle",
        "runtime",
        "reporting",
        "imaging",
    },
    "engines": {
        "errors",
        "shipped_files",
        "loops",
        "files",
        "locks",
        "paths",
        "bundle",
        "runtime",
        "imaging",
        "parsing",
        "typed_values",
        "text",
    },
    "networks": {"errors", "loops", "files", "kernels", "weights", "typed_values", "text"},
    "training": {
        "errors",
        "loops",
        "files",
        "kernels",
        "imaging",
        "networks",
        "shipped_files",
        "parsing",
        "typed_values",
        "text",
    },
    "export": {
        "errors",
        "arguments",
        "option_fields",
        "parsing",
        "typed_values",
        "loops",
        "version",
        "files",
        "locks",
        "paths",
        "kernels",
        "bundle",
        "runtime",
        "imaging",
        "weights",
        "evaluation",
        "networks",
    },
    "offline": {
        "errors",
        "option_fields",
        "files",
        "locks",
        "kernels",
        "runtime",
        "reporting",
        "imaging",
        "evaluation",
        "networks",
    },
    "benchmarks": {
        "errors",
        "parsing",
        "typed_values",
        "text",
        "loops",
        "option_fields",
        "version",
        "files",
        "locks",
        "paths",
        "kernels",
        "bundle",
        "runtime",
        "reporting",
        "imaging",
        "weights",
        "evaluation",
        "engines",
        "networks",
        "export",
    },
    "doctor": {"paths", "bundle", "runtime", "weights", "export", "benchmarks", "onnx_runtime"},
    "cli": {
        "errors",
        "version",
        "loops",
        "files",
        "locks",
        "bundle",
        "runtime",
        "reporting",
        "imaging",
        "video",
        "batch",
        "serving",
        "weights",
        "evaluation",
        "engines",
        "networks",
        "training",
        "export",
        "offline",
        "benchmarks",
        "doctor",
        "web",
        "text",
        ROOT,
        "option_fields",
    },
    ROOT: {
        "errors",
        "loops",
        "version",
        "option_fields",
        "kernels",
        "bundle",
        "runtime",
        "imaging",
        "loading",
    },
    "loading": {"errors", "arguments", "text", "weights", "bundle", "runtime", "export"},
    "arguments": {"errors", "text"},
    "parsing": {"text", "typed_values"},
    "option_fields": {"errors", "arguments", "text"},
    "shipped_files": set[str](),
    "onnx_runtime": set[str](),
    "text": set[str](),
    "typed_values": {"errors", "text"},
}
"""The arrows of the design: what each part may import of the others."""

TORCH_FREE = (
    "runtime",
    "video",
    "batch",
    "serving",
    "engines",
    "evaluation",
    "bundle",
    "imaging",
    "reporting",
    "kernels",
    "files",
    "errors",
    "loops",
)


def modules_of(package: Path, part: str) -> list[Path]:
    if part == ROOT:
        return [package / "__init__.py"]
    folder = package / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [package / f"{part}.py"]


def imported(path: Path) -> set[str]:
    """Every module, and every name of a module, that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def package_modules(repository: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name; a package has the name of its folder."""
    found = {}
    for path in (repository / "ikc_deploy").rglob("*.py"):
        name = path.parent if path.stem == "__init__" else path.with_suffix("")
        found[".".join(name.relative_to(repository).parts)] = path
    return found


def parts_imported(path: Path) -> set[str]:
    """The parts of the package that a file imports anything of."""
    names = [name.split(".") for name in imported(path)]
    return {
        name[1] if name[1] in ALLOWED else ROOT
        for name in names
        if name[0] == ROOT and len(name) > 1
    }


@pytest.mark.parametrize("part", ALLOWED)
def test_arrows_point_one_way(repository: Path, part: str) -> None:
    for path in modules_of(repository / "ikc_deploy", part):
        parts = parts_imported(path) - {part}
        assert parts <= ALLOWED[part], f"{path.name} imports {parts - ALLOWED[part]}"


def test_only_imaging_imports_the_modules_of_its_formats(repository: Path) -> None:
    users = {
        name
        for name, path in package_modules(repository).items()
        if any(found.startswith("ikc_deploy.imaging.formats") for found in imported(path))
    }
    assert len(users) > 5
    assert all(name.startswith("ikc_deploy.imaging.") for name in users)


def test_every_part_is_drawn(repository: Path) -> None:
    package = repository / "ikc_deploy"
    parts = {path.stem for path in package.glob("*.py")} - {"__init__"}
    parts |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(ALLOWED) == parts | {ROOT}


def test_the_arrows_make_no_circle() -> None:
    TopologicalSorter(ALLOWED).prepare()


def test_no_modules_import_each_other_in_a_circle(repository: Path) -> None:
    """Imports below `TYPE_CHECKING` count: neither module can be understood by itself."""
    modules = package_modules(repository)
    edges = {
        name: {found if found in modules else found.rpartition(".")[0] for found in imported(path)}
        & set(modules) - {name}
        for name, path in modules.items()
    }
    assert sum(map(len, edges.values())) > len(modules)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("part", TORCH_FREE)
def test_what_embedders_install_does_without_torch(repository: Path, part: str) -> None:
    for path in modules_of(repository / "ikc_deploy", part):
        roots = {name.split(".")[0] for name in imported(path)}
        if path.name != "torch_ops.py":
            assert not roots & {"torch", "onnx", "onnxscript", "safetensors"}, path


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = (
        "av torch onnx onnxruntime onnxscript PIL rich click skimage scipy pycuda cuda tensorrt "
        "tensorrt_rtx openvino polygraphy ray"
    )
    code = (
        "import sys, ikc_deploy; "
        f"print([m for m in {heavy.split()!r} if m in sys.modules]); "
        "assert ikc_deploy.load and ikc_deploy.Upscaler"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_builder_and_its_commands_import_no_device_module_before_they_build() -> None:
    heavy = "torch onnx onnxruntime pycuda cuda tensorrt tensorrt_rtx polygraphy"
    code = (
        "import sys, ikc_deploy.engines.cache, ikc_deploy.cli.ikc_export; "
        "import ikc_deploy.cli.ikc_inspect; "
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
