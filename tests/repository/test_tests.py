"""The tests lie as the package does: the file of a module's tests has its folder and its name."""

from __future__ import annotations

from pathlib import Path

NOT_OF_A_MODULE = ("repository", "fake_cuda", "scale", "wheel")
"""Folders with rules for the whole repository, a test double, real services, and the wheel."""


def subjects(folder: Path) -> set[str]:
    """Paths of all modules and packages of a folder, without suffix and leading underscores."""
    files = [path.relative_to(folder) for path in folder.rglob("*.py")]
    modules = {path.parent / path.stem.lstrip("_") for path in files}
    return {path.as_posix() for path in modules | {path.parent for path in files}}


def has_a_subject(test: Path, known: set[str]) -> bool:
    """Whether a test file is named after a module, or after one and what it tests of it."""
    words = test.stem.removeprefix("test_").split("_")
    names = ("_".join(words[:count]) for count in range(1, len(words) + 1))
    return any((test.parent / name).as_posix() in known for name in names)


def test_every_test_file_is_named_after_a_module(repository: Path) -> None:
    known = subjects(repository / "ikc_deploy")
    known |= {f"tools/{name}" for name in subjects(repository / "tools")}
    folder = repository / "tests"
    files = [path.relative_to(folder) for path in folder.rglob("*.py")]
    tests = [path for path in files if path.name.startswith("test_")]
    lost = [
        path.as_posix()
        for path in tests
        if path.parts[0] not in NOT_OF_A_MODULE and not has_a_subject(path, known)
    ]
    assert len(tests) > 100
    assert lost == []


def test_a_test_without_a_module_is_found() -> None:
    assert has_a_subject(Path("video/test_clip_faults.py"), {"video/clip"})
    assert not has_a_subject(Path("video/test_faults.py"), {"video/clip"})
    assert not has_a_subject(Path("test_clip.py"), {"video/clip"})
