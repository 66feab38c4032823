from __future__ import annotations

from pathlib import Path

import pytest

from ikc_deploy.errors import InputError
from ikc_deploy.imaging.input_files import list_images


def test_list_images_sorts_and_stays_in_the_folder(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.txt", "below/d.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_list_images_refuses_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*gone"):
        list_images(tmp_path / "gone")
    with pytest.raises(InputError, match="has no images"):
        list_images(tmp_path)


def test_hidden_files_are_not_taken(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".a.1f2e.png"):
        (tmp_path / name).touch()
    (tmp_path / "b.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"has no images.*hidden: \._a\.png"):
        list_images(tmp_path)


def test_names_are_sorted_as_people_number_them(tmp_path: Path) -> None:
    order = ["A1.png", "a2.png", "a10.png", "b.png", "b 9.png", "b 10.png", f"b{10**30}.png"]
    for name in reversed(order):
        (tmp_path / name).touch()
    names = [path.name for path in list_images(tmp_path)]
    assert names[:3] == order[:3]
    assert names.index("b 9.png") < names.index("b 10.png")
    assert sorted(names) == sorted(order)
