"""No class and no module stands for two things."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path

FOLDERS = ("ikc_deploy", "tools")


def sources(repository: Path) -> list[Path]:
    found = [path for folder in FOLDERS for path in (repository / folder).rglob("*.py")]
    return [path for path in sorted(found) if "__pycache__" not in path.parts]


def shared(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: listed for name, listed in places.items() if len(listed) > 1}


def test_no_class_name_is_used_twice(repository: Path) -> None:
    places = defaultdict(list)
    for path in sources(repository):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(
                    f"{path.relative_to(repository)}:{node.lineno}"
                )
    assert len(places) > 100
    assert shared(places) == {}


def test_no_module_name_is_used_twice(repository: Path) -> None:
    places = defaultdict(list)
    for path in sources(repository):
        if path.stem not in ("__init__", "__main__"):
            places[path.stem.lstrip("_")].append(str(path.relative_to(repository)))
    for package in {path.parent for path in sources(repository)}:
        if package.name in places:
            places[package.name].append(str(package.relative_to(repository)))
    assert len(places) > 100
    assert shared(places) == {}


def test_every_module_of_the_commands_is_a_command_or_private(repository: Path) -> None:
    setup = ConfigParser()
    setup.read(repository / "setup.cfg")
    listed = setup["options.entry_points"]["console_scripts"]
    commands = set(re.findall(r"= ikc_deploy\.cli\.(\w+):main", listed))
    assert len(commands) == len(listed.split("\n")) - 1
    modules = {path.stem for path in (repository / "ikc_deploy" / "cli").glob("*.py")}
    assert {name for name in modules if not name.startswith("_")} == commands
    assert all(name.replace("_", "-").startswith("ikc-") for name in commands)


def test_limits_are_called_max_and_min(repository: Path) -> None:
    words = ("MOST", "LEAST", "LARGEST", "SMALLEST")
    found = [
        f"{path.relative_to(repository)}:{node.lineno}: {node.id}"
        for path in sources(repository)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
        and node.id.isupper()
        and set(node.id.split("_")) & set(words)
    ]
    assert found == []
