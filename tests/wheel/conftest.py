"""The wheel, built from a copy of the files under version control, and an empty environment.

`make test-wheel` runs these tests; the whole suite leaves them out, because they install packages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave these tests out of runs that do not ask for them by their marker."""
    return None if "wheel" in (config.option.markexpr or "") else True


@dataclass(frozen=True)
class Installed:
    """An environment outside the checkout with the wheel in it."""

    python: Path
    folder: Path
    """Empty folder to work in, with a home of its own."""

    def run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a console script, or any other program, of the environment."""
        script = self.python.parent / command[0]
        program = str(script) if script.exists() else command[0]
        home = self.folder / "home"
        return subprocess.run(
            [program, *command[1:]],
            cwd=cwd or self.folder,
            # Nothing of the checkout's environment: no PYTHONPATH, and an empty cache.
            env={
                "PATH": f"{self.python.parent}:{os.defpath}",
                "HOME": str(home),
                "LANG": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            check=False,
        )


def _checked(*command: str, cwd: Path | None = None) -> str:
    # On that path pip would find this checkout, and leave the wheel out.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout. setuptools writes beside its source, so it builds a copy."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = _checked("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=repository)
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file() and not name.startswith(("tests/", "benchmarks/")):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((repository / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    _checked(*pip, "wheel", "--no-deps", "--quiet", "--wheel-dir", str(out), str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def base(wheel: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An empty environment with the wheel and its base requirements from the registry."""
    constraints = repository / "constraints.txt"
    return environment(wheel, constraints, tmp_path_factory.mktemp("base"), "--quiet")


@pytest.fixture(scope="session")
def full(
    base: Installed, wheel: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    """The same with the extras: third-party packages are those of the environment of the tests.

    A path in a `.pth` file is searched, but not for further `.pth` files, so an editable
    installation of this project there stays unseen.
    """
    folder = tmp_path_factory.mktemp("full")
    constraints = repository / "constraints.txt"
    installed = environment(wheel, constraints, folder, "--quiet", "--no-deps")
    library = installed.run(
        "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
    )
    (Path(library.stdout.strip()) / "packages.pth").write_text(sysconfig.get_path("purelib"))
    return installed


def environment(wheel: Path, constraints: Path, folder: Path, *options: str) -> Installed:
    """Create an environment in `folder` with a wheel, under constraints and options of pip."""
    _checked(sys.executable, "-m", "venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    pip = (str(python), "-m", "pip", "--disable-pip-version-check")
    _checked(*pip, "install", *options, "-c", str(constraints), str(wheel))
    work = folder / "work"
    work.mkdir()
    return Installed(python, work)
