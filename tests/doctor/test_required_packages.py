from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from ikc_deploy.doctor.required_packages import (
    BASE,
    COMMANDS,
    Command,
    Gap,
    Package,
    check_command,
    merge_requirements,
    required_packages,
)


@pytest.fixture
def setup(repository: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read(repository / "setup.cfg")
    return parser


def package(name: str, *extras: str, version: str | None = None) -> Package:
    return Package(name, version, extras, f"{name}>=1")


def test_every_command_and_extra_is_one_of_the_projects(setup: ConfigParser) -> None:
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")
    names = {line.partition("=")[0].strip() for line in scripts if line}
    assert set(COMMANDS) == names - {"ikc-doctor"}
    extras = {extra for needs in COMMANDS.values() for extra, _ in needs}
    assert extras <= set(setup["options.extras_require"]) | {BASE}


def test_requirements_are_read_off_the_metadata() -> None:
    found = merge_requirements(
        [
            "numpy<3,>=1.26",
            'torch>=2.6; extra == "export"',
            "torch>=2.6 ; extra == 'training'",
            'no_such_thing[all]<2,>=1.1; python_version > "3" and extra == "rtx"',
            'ikc-deploy[export]; extra == "dev"',
            'elsewhere>=1; sys_platform == "none" or platform_machine == "none"',
            'elsewhere>=1; (sys_platform == "none") and extra == "rtx"',
        ]
    )
    shown = [(item.name, item.extras, item.requirement) for item in found]
    assert shown == [
        ("no_such_thing", ("rtx",), "no_such_thing[all]<2,>=1.1"),
        ("numpy", (BASE,), "numpy<3,>=1.26"),
        ("torch", ("export", "training"), "torch>=2.6"),
    ]
    assert found[0].version is None and found[1].version is not None


def test_this_installation_names_every_extras_packages() -> None:
    names = {item.name for item in required_packages()}
    assert {"numpy", "torch", "av", "tensorrt", "tensorrt_rtx", "pycuda", "cuda-bindings"} <= names


def test_a_command_is_ready_unless_all_of_it_lacks_something() -> None:
    needs = ((BASE, ""), ("export", ""), ("video", "video files"))
    av, torch, pillow = package("av", "video"), package("torch", "export"), package("pillow", BASE)
    whole = [package("numpy", BASE, version="2.0")]
    assert check_command("c", needs, whole) == Command("c", True, ())
    video = Gap("video files", ("av",), "pip install 'ikc-deploy[video]'")
    assert check_command("c", needs, [*whole, av]) == Command("c", True, (video,))
    export = Gap("", ("torch",), "pip install 'ikc-deploy[export]'")
    assert check_command("c", needs, [torch, av]) == Command("c", False, (export, video))
    base = Gap("", ("pillow",), "pip install 'pillow>=1'")
    assert check_command("c", needs, [pillow]) == Command("c", False, (base,))
