from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ikc_deploy import MissingExtraError
from ikc_deploy.export.default_bundle import default_bundle
from tests.bundles import save_small


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_exported_once_and_then_reused(tmp_path: Path, empty_cache: Path) -> None:
    weights = str(save_small(tmp_path))
    first = default_bundle(weights)
    assert first.path.is_relative_to(empty_cache)
    written = (first.path / "manifest.json").stat().st_mtime_ns
    again = default_bundle(weights)
    assert again.path == first.path
    assert (again.path / "manifest.json").stat().st_mtime_ns == written


def test_a_damaged_one_is_made_anew(tmp_path: Path, empty_cache: Path) -> None:
    weights = str(save_small(tmp_path))
    graph = default_bundle(weights).graph("sftmd")
    whole = graph.read_bytes()
    graph.write_bytes(whole[:100])
    assert default_bundle(weights).graph("sftmd").read_bytes() == whole


def test_changed_weights_are_never_served_from_an_old_export(
    tmp_path: Path, empty_cache: Path
) -> None:
    path = save_small(tmp_path, "compact")
    first = default_bundle(str(path))
    save_small(tmp_path, "film")
    assert default_bundle(str(path)).manifest.architecture["design"] == "film"
    assert first.path.exists()


def test_a_new_version_does_not_run_the_graphs_of_an_old_one(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = default_bundle("x4-lite")
    monkeypatch.setattr("ikc_deploy.export.default_bundle.__version__", "99.0")
    assert default_bundle("x4-lite").path != first.path


def test_without_torch_a_cached_bundle_still_opens_and_a_missing_one_says_what_to_install(
    tmp_path: Path, empty_cache: Path
) -> None:
    weights = str(save_small(tmp_path))
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ikc_deploy.export.default_bundle import default_bundle\n"
        "try:\n    print(default_bundle(sys.argv[1]).manifest.name)\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )

    def without_torch() -> str:
        command = [sys.executable, "-c", code, weights]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert without_torch().startswith(MissingExtraError.__name__)
    assert "pip install 'ikc-deploy[export]'" in without_torch()
    default_bundle(weights)
    assert without_torch().strip() == "small"
