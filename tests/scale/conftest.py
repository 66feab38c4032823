"""What the tests of both engines share: the bundle of the shipped weights, exported by make."""

from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy import Bundle


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    folder = Path(__file__).parents[2] / ".scale" / "bundle"
    if not folder.is_dir():
        pytest.skip("there is no bundle in .scale; `make test-scale` exports it")
    return Bundle.open(folder)
