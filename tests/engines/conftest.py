"""The real TensorRT for RTX, and a bundle that it compiles quickly."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy import Bundle
from ikc_deploy.engines.targets import Target, parse_shapes
from ikc_deploy.engines.toolchain import Toolchain, prepare_toolchain
from tests.half import half_bundle

TARGET = Target(("8.6", "12.0"), (parse_shapes("16x16:32x32:2x48x64"),))


@pytest.fixture
def rtx() -> Toolchain:
    """A toolchain that builds without a GPU; the test is skipped where it is not installed."""
    pytest.importorskip("tensorrt_rtx", reason="needs TensorRT for RTX: pip install tensorrt_rtx")
    return prepare_toolchain("tensorrt-rtx", TARGET)


@pytest.fixture
def half(tmp_path: Path) -> Bundle:
    """A fresh bundle of tiny FP16 graphs without engines."""
    return half_bundle(tmp_path / "half")
