from __future__ import annotations

import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

from ikc_deploy import EngineError
from ikc_deploy.bundle import tensorrt_variants
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS, Messages, load_tensorrt


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What a test pretends is installed is forgotten after it."""
    tensorrt_variants._load.cache_clear()
    yield
    tensorrt_variants._load.cache_clear()


def pretend(monkeypatch: pytest.MonkeyPatch, version: str) -> ModuleType:
    module = ModuleType("tensorrt")
    vars(module).update(__version__=version, ILogger=type("ILogger", (), {"WARNING": 2}))
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def test_the_versions_are_those_of_setup_cfg(repository: Path) -> None:
    parser = ConfigParser()
    parser.read(repository / "setup.cfg")
    extras = parser["options.extras_require"]
    assert TENSORRT_VARIANTS["tensorrt"].requirement in extras["tensorrt"].split()
    assert TENSORRT_VARIANTS["tensorrt-rtx"].requirement in extras["rtx"].split()
    assert f"{TENSORRT_VARIANTS['tensorrt-rtx'].requirement};" in extras["dev"].split()


def test_a_variant_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(
        EngineError, match=r"not installed; run: pip install 'tensorrt>=10\.12,<12'"
    ):
        load_tensorrt("tensorrt")


def test_a_variant_that_does_not_load_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"does not load: libnvinfer\.so\.11.*pip install"):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize("version", ["10.3.0", "10.11.9", "12.0.0"])
def test_a_version_out_of_range_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, version)
    with pytest.raises(EngineError, match=rf"tensorrt {version} is installed, and 10\.12 or newer"):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize("version", ["10.12.0.36", "11.4.0.106"])
def test_one_logger_serves_the_process(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = pretend(monkeypatch, version)
    library = load_tensorrt("tensorrt")
    assert load_tensorrt("tensorrt") is library
    assert (library.module, library.version) == (module, version)
    mark = library.messages.mark()
    library.logger.log(4, "verbose")
    library.logger.log(2, "a warning")
    assert library.messages.since(mark) == "a warning"
    library.logger.log(1, "an error\n over two lines")
    assert library.messages.since(mark) == "an error over two lines"


def test_messages_are_told_from_earlier_ones_and_from_noise() -> None:
    messages = Messages()
    messages.add("earlier", error=True)
    mark = messages.mark()
    assert messages.since(mark) == "it reported no reason"
    messages.add("catchCudaError: no driver", error=True)
    assert messages.since(mark) == "catchCudaError: no driver"
    messages.add("the cause", error=True)
    messages.add("the consequence", error=True)
    assert messages.since(mark) == "the cause; the consequence"
