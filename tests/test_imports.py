from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {
    "arguments": {"errors"},
    "kernels": {"errors", "arguments"},
    "text": set[str](),
    "records": {"errors", "text"},
    "measured": set[str](),
    "bundle": {"errors", "files", "locks", "kernels", "measured", "records", "text"},
    "bundle_writing": {"errors", "files", "locks", "bundle"},
    "files": {"errors"},
    "errors": set[str](),
    "settings": set[str](),
    "onnx_runtime": set[str](),
    "gpus": set[str](),
    "locks": {"errors", "files"},
    "flavours": {"errors"},
    "plans": {"errors", "bundle", "flavours", "records", "text"},
    "images": {"errors", "files"},
    "video": {"errors", "files", "images", "runtime"},
    "runtime": {
        "arguments",
        "errors",
        "files",
        "kernels",
        "bundle",
        "flavours",
        "plans",
        "caches",
        "onnx_runtime",
    },
    "caches": {"version"},
    "limits": set[str](),
    "engines": {
        "errors",
        "files",
        "locks",
        "gpus",
        "flavours",
        "plans",
        "bundle",
        "bundle_writing",
        "caches",
        "limits",
        "measured",
        "records",
        "settings",
        "evaluation",
        "runtime",
    },
    "serving": {"errors", "files", "locks", "kernels", "bundle", "plans", "runtime"},
    "pictures": {"files", "errors", "images", "figures", "bundle", "runtime", "evaluation"},
    "batch": {"files", "errors", "images", "pictures", "bundle", "runtime", "video"},
    "networks": {"errors", "files", "kernels", "settings", "weights"},
    "figures": {"errors", "files"},
    "evaluation": {
        "errors",
        "files",
        "locks",
        "images",
        "figures",
        "kernels",
        "bundle",
        "runtime",
        "version",
    },
    "training": {"errors", "files", "images", "kernels", "settings", "networks", "evaluation"},
    "offline": {
        "errors",
        "files",
        "locks",
        "images",
        "figures",
        "kernels",
        "networks",
        "weights",
        "runtime",
        "evaluation",
    },
    "benchmarks": {
        "errors",
        "files",
        "images",
        "figures",
        "kernels",
        "gpus",
        "locks",
        "weights",
        "bundle",
        "default_bundle",
        "caches",
        "settings",
        "plans",
        "flavours",
        "engines",
        "networks",
        "offline",
        "export",
        "runtime",
        "evaluation",
        "version",
    },
    "export": {
        "errors",
        "images",
        "files",
        "kernels",
        "bundle",
        "bundle_writing",
        "locks",
        "limits",
        "measured",
        "plans",
        "networks",
        "runtime",
        "evaluation",
        "version",
    },
}
"""The arrows of the design: what each part may import of the others."""

TORCH_FREE = (
    "measured",
    "records",
    "text",
    "runtime",
    "video",
    "batch",
    "serving",
    "engines",
    "evaluation",
    "bundle",
    "plans",
    "flavours",
    "kernels",
    "files",
    "errors",
    "images",
    "settings",
)


def modules_of(package: Path, part: str) -> list[Path]:
    folder = package / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [package / f"{part}.py"]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("part", ALLOWED)
def test_arrows_point_one_way(repository: Path, part: str) -> None:
    for path in modules_of(repository / "ikc_deploy", part):
        parts = {name.split(".")[1] for name in imported(path) if name.startswith("ikc_deploy.")}
        assert parts - {part} <= ALLOWED[part], f"{path.name} imports {parts - ALLOWED[part]}"


@pytest.mark.parametrize("part", TORCH_FREE)
def test_what_embedders_install_does_without_torch(repository: Path, part: str) -> None:
    for path in modules_of(repository / "ikc_deploy", part):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"torch", "onnx", "onnxscript", "safetensors"}, path


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = (
        "av torch onnx onnxruntime onnxscript PIL rich click skimage scipy pycuda cuda tensorrt "
        "tensorrt_rtx polygraphy ray"
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
        "import sys, ikc_deploy.engines.cache, ikc_deploy.cli.export; "
        "import ikc_deploy.cli.inspect_bundle; "
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
