"""Tests that only run on the fake driver; runtime/test_cuda_on_the_fake_driver.py starts them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ikc_deploy import Bundle
from ikc_deploy.runtime.cuda.device import open_device
from tests.fake_cuda.driver import Driver, on_fake_cuda

collect_ignore_glob = [] if on_fake_cuda() else ["test_*.py"]

BUNDLE = "IKC_TEST_BUNDLE"
"""Environment variable that holds the folder of a bundle of small float32 graphs on frames."""


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """A bundle that was exported before, as exporting needs torch and time."""
    return Bundle.open(Path(os.environ[BUNDLE]))


@pytest.fixture(scope="module", autouse=True)
def _what_is_imported_is_no_garbage() -> None:
    """Otherwise every collection passes over all objects of torch, which takes seconds."""
    gc.freeze()


@pytest.fixture
def driver() -> Iterator[Driver]:
    """The fake driver with its counters at 0; whatever happens, contexts are popped again."""
    driver = Driver()
    open_device()
    # Kernels of earlier tests are cycles that hold device memory.
    gc.collect()
    driver.reset()
    yield driver
    assert driver.depth == 0
    assert driver.count("busy frees") == 0
