from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy import InputError
from ikc_deploy.batch.inputs import ClipTask, find_inputs

NAMES = ("b.png", "a.jpg", "film.avi", "clip.mp4", "notes.txt", "again/clip.mp4", "again/a.jpg")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "empty").mkdir()
    return tmp_path / "in"


def test_pictures_and_clips_are_found_and_keep_their_names(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = find_inputs([folder, folder / "a.jpg"], out)
    assert [(job.source, job.target) for job in found.pictures] == [
        (folder / name, out / name) for name in ("a.jpg", "b.png")
    ]
    assert found.clips == (
        ClipTask(folder / "clip.mp4", out / "clip.mp4"),
        ClipTask(folder / "film.avi", out / "film.mkv"),
    )


@pytest.mark.parametrize(
    ("inputs", "out", "words"),
    [
        (["gone"], "../out", "no image, clip or folder"),
        (["empty"], "../out", "has no images or clips"),
        (["."], "../out.mp4", "is a file; give a folder"),
        (["clip.mp4"], "notes.txt", "is a file; give a folder"),
        (["."], ".", "would be overwritten"),
        (["clip.mp4"], ".", "would be overwritten"),
        (["clip.mp4", "again"], "../out", "would both be written"),
        (["a.jpg", "again/a.jpg"], "../out", "would both be written"),
    ],
)
def test_impossible_inputs_are_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    inputs: list[str],
    out: str,
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=words):
        find_inputs(list(map(Path, inputs)), Path(out))
