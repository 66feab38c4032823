from __future__ import annotations

import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ikc_deploy import Bundle, BundleError, EngineError, OutputError
from ikc_deploy.bundle import tensorrt_variants
from ikc_deploy.bundle.engine_choice import Host, find_engine
from ikc_deploy.bundle.engine_store import engine_files, read_engines
from ikc_deploy.engines.cache import add_engine, fingerprint
from ikc_deploy.engines.targets import Target, parse_shapes
from ikc_deploy.engines.toolchain import Toolchain, prepare_toolchain
from ikc_deploy.loops import IKC
from ikc_deploy.paths import cache_folder
from tests.engines.conftest import TARGET
from tests.half import half_bundle
from tests.machines import nvidia_smi


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_plans_are_added_once_and_sealed(half: Bundle, rtx: Toolchain) -> None:
    engine, built = add_engine(half.path, rtx, TARGET)
    assert built
    whole = files(half.path)
    opened = Bundle.open(half.path)
    listed = {f"engines/{engine.record.fingerprint}/{graph}.plan" for graph in IKC.graphs}
    assert listed <= set(opened.files)
    assert all(engine.plan(graph).startswith(b"vtrt") for graph in IKC.graphs)
    again, built = add_engine(half.path, rtx, TARGET)
    assert not built and again.record == engine.record
    assert files(half.path) == whole
    host = Host("tensorrt-rtx", rtx.library.version, "8.6")
    assert find_engine(opened, host, (1, 20, 30))[0].record == engine.record


def test_everything_that_a_plan_depends_on_is_in_the_fingerprint(
    half: Bundle, rtx: Toolchain, tmp_path: Path
) -> None:
    newer = replace(rtx, library=replace(rtx.library, version="1.99"))
    other = half_bundle(tmp_path / "other", {"levels = {255}": "levels = {254}"})
    names = [
        fingerprint(half, rtx, TARGET),
        fingerprint(other, rtx, TARGET),
        fingerprint(half, newer, TARGET),
        fingerprint(half, replace(rtx, compute_capabilities=("8.6",)), TARGET),
        fingerprint(half, rtx, replace(TARGET, workspace_mib=64)),
        fingerprint(half, rtx, replace(TARGET, builder_level=0)),
        fingerprint(half, rtx, replace(TARGET, profiles=(parse_shapes("16x16:32x32:64x64"),))),
    ]
    assert len(set(names)) == len(names)
    assert fingerprint(Bundle.open(half.path), rtx, replace(TARGET, timing_cache=False)) == names[0]


def test_two_processes_at_once_end_with_one_plan(half: Bundle, rtx: Toolchain) -> None:
    code = (
        "import sys; from ikc_deploy.engines.cache import add_engine; "
        "from ikc_deploy.engines.toolchain import prepare_toolchain; "
        "from tests.engines.conftest import TARGET; "
        "toolchain = prepare_toolchain('tensorrt-rtx', TARGET); "
        "print('ready', flush=True); sys.stdin.readline(); "
        "engine, built = add_engine(sys.argv[1], toolchain, TARGET); "
        "print(engine.record.fingerprint, built)"
    )
    command = [sys.executable, "-c", code, str(half.path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = sorted(process.communicate()[0].split() for process in both)
    name = answers[0][0]
    assert answers == [[name, "False"], [name, "True"]]
    (engine,) = read_engines(Bundle.open(half.path))
    assert engine.record.fingerprint == name
    assert [path.name for path in (half.path / "engines").iterdir()] == [name]


def test_a_build_that_fails_or_is_interrupted_leaves_the_bundle_as_it_was(
    tmp_path: Path, rtx: Toolchain
) -> None:
    bundle = half_bundle(tmp_path / "b", {"DepthToSpace <blocksize = 4>": "Unheard"})
    before = files(bundle.path)
    with pytest.raises(EngineError, match="Unheard"):
        add_engine(bundle.path, rtx, TARGET)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_engine(bundle.path, rtx, TARGET, interrupted)
    assert files(bundle.path) == before


def test_a_damaged_bundle_is_never_parsed_or_sealed_again(half: Bundle, rtx: Toolchain) -> None:
    graph = half.graph("sftmd")
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="was altered"):
        add_engine(half.path, rtx, TARGET)


def test_a_bundle_that_changes_during_the_build_is_not_sealed(
    half: Bundle, rtx: Toolchain, tmp_path: Path
) -> None:
    other = half_bundle(tmp_path / "other", {"levels = {255}": "levels = {254}"})

    def exchange(graph: str, phase: str, done: int, total: int) -> None:
        if (graph, phase, done) != ("corrector", "Building engine", total):
            return
        for name, content in files(other.path).items():
            (half.path / name).write_bytes(content)

    with pytest.raises(EngineError, match="was changed while its engines were built"):
        add_engine(half.path, rtx, TARGET, exchange)
    assert Bundle.open(half.path).files == other.files


@pytest.fixture
def tensorrt(
    tmp_path: Path, rtx: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Toolchain]:
    """The `tensorrt` variant for a GPU of compute capability 9.0, with a cache in `tmp_path`.

    TensorRT itself starts only with a GPU, so its interface is played by TensorRT for RTX.
    """
    stand_in = types.ModuleType("tensorrt")
    vars(stand_in).update(vars(rtx.library.module) | {"__version__": "11.4.0"})
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    nvidia_smi(tmp_path, "echo 'GPU, 580.0, 8192, 9.0'")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tensorrt_variants._load.cache_clear()
    yield prepare_toolchain("tensorrt", Target())
    tensorrt_variants._load.cache_clear()


def test_the_tensorrt_variant_keeps_its_timings(
    half: Bundle, tensorrt: Toolchain, tmp_path: Path
) -> None:
    with pytest.warns(DeprecationWarning):
        engine, built = add_engine(half.path, tensorrt, TARGET)
    assert built and engine.record.compute_capabilities == ("9.0",)
    (timings,) = (tmp_path / "cache").rglob("*.cache")
    assert timings.name == "tensorrt-11.4.0-9.0.cache" and timings.stat().st_size > 0


def test_a_folder_with_unlisted_files_gets_no_engine(half: Bundle, rtx: Toolchain) -> None:
    """A forged engine is neither listed nor lost: the folder is refused, before any building."""
    forged = half.path / "engines" / "forged"
    forged.mkdir(parents=True)
    for name in ("predictor.plan", "sftmd.plan", "corrector.plan", "engine.json"):
        (forged / name).write_bytes(b"forged")
    (half.path / "note.txt").write_bytes(b"unlisted")
    (half.path / "engines" / "note.txt").write_bytes(b"unlisted")
    before = files(half.path)
    with pytest.raises(OutputError, match=r"not part of a bundle: 'engines/', 'note\.txt'"):
        add_engine(half.path, rtx, TARGET)
    assert files(half.path) == before
    opened = Bundle.open(half.path)
    assert opened.files == half.files and not read_engines(opened)
    assert opened.unlisted() == ["engines", "note.txt"]


def test_an_engine_seals_nothing_but_itself(half: Bundle, rtx: Toolchain) -> None:
    engine, built = add_engine(half.path, rtx, TARGET)
    assert built
    opened = Bundle.open(half.path)
    assert set(opened.files) == {*half.files, *engine_files(engine.record.fingerprint, half.loop)}
    assert [each.record.fingerprint for each in read_engines(opened)] == [engine.record.fingerprint]
    assert opened.unlisted() == []
    for name in half.files:
        assert opened.files[name] == half.files[name]


@pytest.mark.parametrize("obstacle", ["a file in the way", "a folder in its place", "damaged"])
def test_a_plan_is_kept_whatever_becomes_of_the_timings(
    half: Bundle, tensorrt: Toolchain, tmp_path: Path, obstacle: str
) -> None:
    if obstacle == "a file in the way":
        (tmp_path / "cache").write_text("")
    else:
        place = cache_folder() / "timing" / "tensorrt-11.4.0-9.0.cache"
        place.parent.mkdir(parents=True)
        if obstacle == "damaged":
            place.write_bytes(b"timings of another day" * 50)
        else:
            (place / "something").mkdir(parents=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        engine, built = add_engine(half.path, tensorrt, TARGET)
    assert built and Bundle.open(half.path).path == engine.bundle.path
    if obstacle != "damaged":
        # TensorRT itself decides what it makes of damaged timings.
        assert any("timing cache" in str(warning.message) for warning in said)
