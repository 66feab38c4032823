"""What ruff's `D` does not see: arguments and errors that a docstring leaves out."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import FunctionType

import pytest

import ikc_deploy
from tests.repository.test_names import public_functions

EXEMPT = ("cli", "runtime/backends")
"""Folders of the package that are not for callers: commands, and what `load` opens by its name."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def documents(docstring: str | None, name: str) -> bool:
    """Whether a section has an entry for an argument or an error."""
    return bool(re.search(rf"^    \*{{0,2}}{re.escape(name)}: \S", docstring or "", re.MULTILINE))


def public_modules(repository: Path) -> Iterator[tuple[str, ast.Module]]:
    package = repository / "ikc_deploy"
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if not path.name.startswith("_") and not any(name.is_relative_to(e) for e in EXEMPT):
            yield name.as_posix(), ast.parse(path.read_text())


def public_classes(tree: ast.Module) -> list[ast.ClassDef]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [node for node in found if not node.name.startswith("_")]


def raised(function: Function) -> set[str]:
    """The errors that a function creates and raises itself, and does not catch."""
    found: set[str] = set()
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, Function | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Try) and node.handlers:
            pending += [*node.handlers, *node.orelse, *node.finalbody]
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            found.add(ast.unparse(node.exc.func))
        pending += ast.iter_child_nodes(node)
    return {name for name in found if name.endswith("Error") and not name.startswith("_")}


def test_a_class_documents_its_constructor(repository: Path) -> None:
    checked, missing = 0, []
    for module, tree in public_modules(repository):
        for cls in public_classes(tree):
            for method in cls.body:
                if isinstance(method, Function) and method.name in ("__init__", "__post_init__"):
                    given = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
                    wanted = [argument.arg for argument in given[1:]] + sorted(raised(method))
                    checked += len(wanted)
                    docstring = ast.get_docstring(cls)
                    missing += [
                        f"{module}: {cls.name}: {name}"
                        for name in wanted
                        if not documents(docstring, name)
                    ]
    assert checked > 100
    assert missing == []


def test_public_functions_document_what_they_raise(repository: Path) -> None:
    checked, missing = 0, []
    for module, tree in public_modules(repository):
        bodies = [tree.body, *(each.body for each in public_classes(tree))]
        for function in chain.from_iterable(bodies):
            if isinstance(function, Function) and not function.name.startswith("_"):
                errors = raised(function)
                checked += len(errors)
                docstring = ast.get_docstring(function) or ""
                missing += [
                    f"{module}: {function.name}: {name}" for name in errors if name not in docstring
                ]
    assert checked > 100
    assert missing == []


@pytest.mark.parametrize("name", sorted(set(ikc_deploy.__all__) - {"__version__"}))
def test_the_api_documents_every_argument(name: str) -> None:
    for function in public_functions(getattr(ikc_deploy, name)):
        if not inspect.isfunction(function) or not is_documented_here(function):
            continue
        parameters = set(inspect.signature(function).parameters) - {"self", "cls"}
        docstring = inspect.getdoc(function)
        undocumented = {each for each in parameters if not documents(docstring, each)}
        assert undocumented == set(), function.__qualname__


def is_documented_here(function: FunctionType) -> bool:
    """Whether a function has a docstring of its own that callers read."""
    module = function.__module__.removeprefix("ikc_deploy.").replace(".", "/")
    special = function.__name__.startswith("__") and function.__name__ != "__call__"
    ours = function.__module__.startswith("ikc_deploy")
    return ours and not special and not Path(module).is_relative_to("runtime/backends")
