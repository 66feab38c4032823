"""Starts the tests of `tests/fake_cuda` in a process that has the fake driver for a driver.

In this process it would stay loaded, and other libraries would find a GPU that is none.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ikc_deploy import Bundle
from tests.bundles import export_small
from tests.fake_cuda.build import CannotBuildError, FakeCuda, build
from tests.fake_cuda.conftest import BUNDLE


@pytest.fixture(scope="module")
def fake_cuda() -> FakeCuda:
    """The fake driver; the test is skipped, with the reason, where it cannot be built."""
    try:
        return build()
    except CannotBuildError as error:
        pytest.skip(str(error))


def test_everything_of_cuda_on_the_fake_driver(
    repository: Path, fake_cuda: FakeCuda, small_bundle: Bundle, tmp_path: Path
) -> None:
    # Exported here, where torch's exporter is loaded already.
    export_small(tmp_path, "dan2", 3)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "pytest", "tests/fake_cuda"],
        cwd=repository,
        env=fake_cuda.environment() | {BUNDLE: str(small_bundle.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_interpreter_ends_quietly_whatever_is_still_open(
    repository: Path, fake_cuda: FakeCuda, small_bundle: Bundle
) -> None:
    code = (
        "import sys\n"
        "from ikc_deploy import Bundle, Upscaler\n"
        "from tests.fake_cuda.kernels import open_fake_cuda\n"
        "from tests.samples import photo\n"
        "bundle = Bundle.open(sys.argv[1])\n"
        "upscaler = Upscaler(bundle, open_fake_cuda(bundle), 1)\n"
        "upscaler(photo(16, 20))\n"
        "upscaler.submit(photo(16, 20)).result()\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_bundle.path)],
        cwd=repository,
        env=fake_cuda.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    "code",
    [
        "import ikc_deploy",
        "import pkgutil, importlib\n"
        "from ikc_deploy import runtime\n"
        "for module in pkgutil.walk_packages(runtime.__path__, 'ikc_deploy.runtime.'):\n"
        "    importlib.import_module(module.name)",
        "from ikc_deploy.doctor.examination import examine; examine()",
    ],
    ids=["import", "runtime", "doctor"],
)
def test_nothing_touches_cuda_before_it_is_asked_to(
    repository: Path, fake_cuda: FakeCuda, code: str
) -> None:
    asked = (
        "\nfrom tests.fake_cuda.driver import Driver\n"
        "import sys\n"
        "print(Driver().count('inits'), [m for m in ('pycuda', 'cuda') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + asked],
        cwd=repository,
        env=fake_cuda.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0 []"
