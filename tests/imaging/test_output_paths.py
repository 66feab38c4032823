from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.errors import InputError, OutputError
from ikc_deploy.imaging.output_paths import plan_tasks


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with named, empty files: a plan opens none of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b.JPG", "in/notes.txt", "more/a.png", "more/c.gif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "out", "targets"),
    [
        (["in/a.png"], "x.jpg", ["x.jpg"]),
        (["in/a.png"], "new", ["new/a.png"]),
        (["in/a.png"], "empty", ["empty/a.png"]),
        (["in"], "new", ["new/a.png", "new/b.JPG"]),
        (["in", "in/a.png"], "new", ["new/a.png", "new/b.JPG"]),
        (["more/c.gif", "in/b.JPG"], "new.v2", ["new.v2/c.png", "new.v2/b.JPG"]),
    ],
)
def test_every_input_gets_its_output(
    files: Path, inputs: list[str], out: str, targets: list[str]
) -> None:
    jobs = plan_tasks([Path(name) for name in inputs], Path(out), Path("steps"))
    assert [job.target.as_posix() for job in jobs] == targets
    assert [job.steps for job in jobs] == [Path("steps") / job.source.stem for job in jobs]
    assert not {path.name for path in files.iterdir()} & {"new", "new.v2", "steps", "x.jpg"}


@pytest.mark.parametrize(
    ("inputs", "out", "words"),
    [
        (["gone.png"], "new", ["no image or folder 'gone.png'"]),
        (["empty"], "new", ["'empty' has no images"]),
        (["in", "more/a.png"], "new", ["'in/a.png' and 'more/a.png'", "'new/a.png'"]),
        (["in"], "x.png", ["'x.png' is the name of one image", "2"]),
        (["in"], "in/notes.txt", ["'in/notes.txt' is a file"]),
        (["in"], "new.gif", ["'new.gif': files ending in '.gif' cannot be written", ".png"]),
        (["in/a.png"], "new.jpgg", ["'new.jpgg': files ending in '.jpgg'", "create the folder"]),
        (["in"], "new.avi", ["'new.avi': files ending in '.avi'"]),
        (["in/a.png"], "new/" + 252 * "x" + ".png", ["use at most 255 bytes"]),
        (["in/a.png"], "in/notes.txt/a.png", ["notes.txt' is a file, not a folder"]),
        (["in"], "more/../in", ["'in/a.png' would be overwritten"]),
        (["in/a.png"], "in/a.png", ["'in/a.png' would be overwritten"]),
    ],
)
def test_a_plan_that_would_lose_something_is_refused(
    files: Path, inputs: list[str], out: str, words: list[str]
) -> None:
    with pytest.raises((InputError, OutputError)) as caught:
        plan_tasks([Path(name) for name in inputs], Path(out))
    for word in words:
        assert word in str(caught.value)


def test_steps_never_share_a_folder_or_overwrite_an_input(files: Path) -> None:
    (files / "in" / "a.tif").touch()
    with pytest.raises(InputError, match=r"a\.png' and 'in/a\.tif' would both .*'s/a'"):
        plan_tasks([Path("in")], Path("new"), Path("s"))
    with pytest.raises(InputError, match=r"'step0/step0\.png' would be overwritten"):
        source = files / "step0" / "step0.png"
        source.parent.mkdir()
        source.touch()
        plan_tasks([Path("step0/step0.png")], Path("new"), Path())
