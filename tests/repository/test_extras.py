from __future__ import annotations

import ast
import functools
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ikc_deploy import onnx_runtime

BROUGHT_BY = {"cv2": "opencv-python", "pillow_heif": "pillow-heif", "skimage": "scikit-image"}
"""Distributions whose name is not their module's."""

NEEDED = {
    "": (
        "ikc_deploy",
        "ikc_deploy.cli.ikc_export",
        "ikc_deploy.cli.ikc_upscale",
        "ikc_deploy.cli.ikc_train",
    ),
    "training": ("ikc_deploy.training.recipe_kinds", "torch.utils.tensorboard"),
    "export": (
        "ikc_deploy.export.exporter",
        "ikc_deploy.export.usrnet_graph",
        "ikc_deploy.networks.weights_loader",
        "ikc_deploy.networks.reference",
        "ikc_deploy.networks.reference_dan",
        "ikc_deploy.networks.reference_flow",
        "ikc_deploy.networks.reference_usrnet",
    ),
    "offline": ("ikc_deploy.offline.job", "ikc_deploy.offline.outputs"),
    "openvino": (
        "ikc_deploy.runtime.backends.openvino",
        "ikc_deploy.runtime.backends.precision_gate",
        "openvino",
    ),
    "evaluation": ("ikc_deploy.evaluation.render.plots", "ikc_deploy.cli.ikc_eval"),
    "web": ("ikc_deploy.web.server", "uvicorn"),
    "video": ("ikc_deploy.video.request", "ikc_deploy.video.chunks"),
}
"""What commands import once they have promised that an extra is enough."""


@pytest.fixture(scope="module")
def setup(repository: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read(repository / "setup.cfg")
    return parser


def requirements(listed: str) -> list[Requirement]:
    lines = (line.strip() for line in listed.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def of_extra(setup: ConfigParser, extra: str) -> list[Requirement]:
    return requirements(setup["options.extras_require"][extra])


def messages(repository: Path) -> Iterator[tuple[str, str, str]]:
    """(file, module, extra) of every message about a missing extra with constants for them."""
    for path in sorted((repository / "ikc_deploy").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.With):
                (call, *_) = (item.context_expr for item in node.items)
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "needs_extra":
                    extra = call.args[0]
                    # The callers of plotting.py say which of the extras with matplotlib it is.
                    if isinstance(extra, ast.Constant):
                        for module in imported(node):
                            yield path.name, module, str(extra.value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                first, extra = node.args[:2]
                if isinstance(extra, ast.Constant):
                    named = [part for part in ast.walk(first) if isinstance(part, ast.Constant)]
                    assert len(named) == 1
                    yield path.name, str(named[0].value), str(extra.value)


def imported(block: ast.With) -> set[str]:
    """The modules of other packages that a block imports."""
    found = set()
    for node in block.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found - {"ikc_deploy"}


def test_every_message_names_an_extra_that_brings_the_module(
    repository: Path, setup: ConfigParser
) -> None:
    found = list(messages(repository))
    assert len(found) > 10
    found += [("plotting.py", "matplotlib", extra) for extra in ("evaluation", "offline")]
    for file, module, extra in found:
        brought = {requirement.name for requirement in of_extra(setup, extra)}
        assert BROUGHT_BY.get(module, module) in brought, (file, module, extra)


def test_every_dependency_has_an_upper_bound(repository: Path, setup: ConfigParser) -> None:
    listed = requirements(setup["options"]["install_requires"])
    for extra in setup["options.extras_require"]:
        listed += of_extra(setup, extra)
    for requirement in listed:
        if requirement.name != "ikc-deploy":
            assert any(bound.operator == "<" for bound in requirement.specifier), str(requirement)


def test_what_was_tested_is_pinned(repository: Path, setup: ConfigParser) -> None:
    pinned = requirements((repository / "constraints.txt").read_text())
    assert all(re.fullmatch(r"==[0-9.]+", str(pin.specifier)) for pin in pinned)
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pinned}
    assert versions["torch"] == "2.13.0"
    listed = requirements(setup["options"]["install_requires"])
    for extra in setup["options.extras_require"]:
        listed += of_extra(setup, extra)
    for requirement in listed:
        if requirement.name in versions:
            assert requirement.specifier.contains(versions[requirement.name]), str(requirement)
    assert {r.name for r in of_extra(setup, "dev") if r.name != "ikc-deploy"} <= set(versions)


def test_the_minimum_versions_are_the_lower_bounds(repository: Path, setup: ConfigParser) -> None:
    lines = requirements((repository / "constraints-minimum.txt").read_text())
    minimum = {line.name: str(line.specifier).removeprefix("==") for line in lines}
    listed = requirements(setup["options"]["install_requires"])
    for extra in ("export", "training", "evaluation", "offline", "openvino", "tiff", "video"):
        listed += of_extra(setup, extra)
    bounds = {
        each.name: next(bound.version for bound in each.specifier if bound.operator == ">=")
        for each in listed
        if each.name != "onnxruntime"
    }
    assert minimum == bounds


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("linux", "armv7l", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
        ("win32", "ARM64", "onnxruntime"),
    ],
)
def test_every_platform_gets_one_onnx_runtime(
    setup: ConfigParser,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    expected: str,
) -> None:
    here = {"sys_platform": system, "platform_machine": machine}
    wanted = [
        requirement.name
        for requirement in requirements(setup["options"]["install_requires"])
        if requirement.marker is None or requirement.marker.evaluate(dict(here))
    ]
    assert [name for name in wanted if name.startswith("onnxruntime")] == [expected]
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert onnx_runtime.distribution() == expected


ALONE = """
import importlib, importlib.abc, sys
allowed, modules, known = (set(part.split()) for part in sys.argv[1:])
class Others(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in known - allowed:
            raise ModuleNotFoundError(f"not of this extra: {name}", name=top)
sys.meta_path.insert(0, Others())
for module in sorted(modules):
    importlib.import_module(module)
"""


@pytest.mark.parametrize("extra", NEEDED)
def test_an_extra_is_enough_for_what_it_promises(setup: ConfigParser, extra: str) -> None:
    wanted = requirements(setup["options"]["install_requires"])
    wanted += of_extra(setup, extra) if extra else []
    brought = closure([requirement.name for requirement in wanted])
    owners = packages_distributions()
    known = {top for top, names in owners.items() if "ikc-deploy" not in names}
    allowed = {top for top in known if {plain(name) for name in owners[top]} & brought}
    arguments = (" ".join(sorted(part)) for part in (allowed, set(NEEDED[extra]), known))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@functools.cache
def packages_distributions() -> Mapping[str, list[str]]:
    """`importlib.metadata`'s, which reads the list of files of every distribution."""
    return importlib.metadata.packages_distributions()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: list[str]) -> set[str]:
    """Distributions that come with those named, themselves included."""
    found: set[str] = set()
    waiting = [plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            listed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, listed):
            here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            waiting += [plain(requirement.name)] if here else []
    return found
