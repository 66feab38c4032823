"""Settings and fixtures of the whole test suite."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from ikc_deploy import Bundle
from ikc_deploy.runtime.backends.backend_names import ONNXRUNTIME
from ikc_deploy.runtime.backends.cpu_backends import CPU_BACKEND_VARIABLE
from tests.bundles import EXPORTS, export_small, save_small, with_usrnet
from tests.repeating import repeating_bundle
from tests.traced_graphs import keep_traces

# Tests compare bits, and OpenVINO would compile every tiny network. Those of "auto" clear it.
os.environ.setdefault(CPU_BACKEND_VARIABLE, ONNXRUNTIME)
# Otherwise OpenVINO would compute in bfloat16 on CPUs that have it.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

LONGEST: Final = (
    "tests/runtime/test_cuda_on_the_fake_driver.py",
    "tests/export/",
    "tests/web/",
)
"""Beginnings of the names of tests that take longest."""

settings.register_profile(
    "ikc", deadline=None, max_examples=20, derandomize=True, database=None, print_blob=True
)
settings.load_profile("ikc")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the reference material, so that `-m "not shared"` leaves it out.

    The longest modules come first, so that the workers of a run end together.
    """
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)
    items.sort(key=lambda item: [not item.nodeid.startswith(name) for name in LONGEST])


def pytest_collection_finish() -> None:
    """Leave imported objects out of garbage collections, which would examine them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the workers of a run share the exports of small networks, and the traces of all."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ.setdefault(EXPORTS, str(shared / "exports"))
    with pytest.MonkeyPatch.context() as patch:
        keep_traces(patch)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared(repository: Path) -> Path:
    """The reference material beside the checkout; the test is skipped where there is none."""
    folder = repository.parent / "shared"
    if not (folder / "official_ikc").is_dir():
        pytest.skip("needs the reference material in ../shared, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of small compact x4 networks, untrained."""
    return save_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_bundle(small_checkpoint: Path) -> Bundle:
    """The float32, uint8-frame export of `small_checkpoint`."""
    return export_small(small_checkpoint.parent)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle whose F repeats pixels, to read only; modules with another one override it."""
    return repeating_bundle(tmp_path_factory.mktemp("bundles") / "repeating")


@pytest.fixture(scope="session")
def usrnet_bundle(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`small_bundle` with a fourth graph, for LR frames of 72x64."""
    return with_usrnet(small_bundle, tmp_path_factory.mktemp("usrnet"), (72, 64))
