"""No class and no module has the name of another, and the public names are complete."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
import typing
from collections import defaultdict
from configparser import ConfigParser
from itertools import chain
from pathlib import Path
from typing import Any

import numpy.typing

import ikc_deploy
from ikc_deploy import errors
from ikc_deploy.runtime.cuda.arrays import DeviceArray

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


CREATED_INSIDE = (DeviceArray, ikc_deploy.Stream)
"""Public classes that only the package creates: their constructors are no part of the API."""


def public_functions(thing: object) -> list[object]:
    """What carries the annotations of something public: itself, and its public methods."""
    if not isinstance(thing, type):
        return [thing] if inspect.isfunction(thing) else []
    found: list[object] = [thing]
    for name, member in vars(thing).items():
        constructor = name == "__init__"
        if (name.startswith("_") and not name.endswith("__")) or (
            constructor and thing in CREATED_INSIDE
        ):
            continue
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, functools.cached_property):
            member = member.func
        function = inspect.unwrap(getattr(member, "__func__", member))
        if inspect.isfunction(function):
            found.append(function)
    return found


def named_types(function: Any) -> dict[str, object]:
    """Every type of this package that annotations name: classes, and aliases such as `Estimate`."""
    module = vars(sys.modules[function.__module__])
    words: set[str] = set()
    for name, annotation in inspect.get_annotations(function).items():
        if not name.startswith("_"):
            nodes = ast.walk(ast.parse(str(annotation), mode="eval"))
            words |= {node.id for node in nodes if isinstance(node, ast.Name)}
    known = {word: module[word] for word in words if word in module}
    return {
        word: value
        for word, value in known.items()
        if (isinstance(value, type) and value.__module__.startswith("ikc_deploy"))
        or (typing.get_origin(value) is not None and not hasattr(numpy.typing, word))
    }


def test_every_type_of_a_public_signature_is_public() -> None:
    exported = [getattr(ikc_deploy, name) for name in ikc_deploy.__all__]
    walked = 0
    missing = defaultdict(set)
    for function in chain.from_iterable(map(public_functions, exported)):
        for name, value in named_types(function).items():
            walked += 1
            if getattr(ikc_deploy, name, None) is not value or name not in ikc_deploy.__all__:
                missing[name].add(getattr(function, "__qualname__", ""))
    assert walked > 50
    assert missing == {}


def test_every_error_is_public() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.IkcError)
    }
    assert found <= set(ikc_deploy.__all__)
