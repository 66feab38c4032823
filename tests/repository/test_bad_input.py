"""Bad input of every command is one clear sentence, exit code 2, and nothing is written."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ikc_deploy import Bundle
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo

LOOP = "loop.png"
NOT_UTF8 = os.fsdecode(b"b\xff\xfe.png")
BUNDLE = ("--bundle", "BUNDLE")
OFFLINE = ("hr.png", "--scale", "2", "--method", "dip-fkp", "-o")


def state(folder: Path) -> dict[str, bytes]:
    """Every entry below `folder` and its content; without locks, as another process may use one."""
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.suffix != ".lock"
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with what a command may be given by mistake."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", NOT_UTF8, "images/a.png"):
        write_rgb(photo(24, 32), tmp_path / name)
    write_rgb(photo(64, 64), tmp_path / "hr.png")
    (tmp_path / "empty").mkdir()
    for suffix in ("png", "npy", "toml", "json", "pth", "safetensors"):
        (tmp_path / f"zero.{suffix}").touch()
        (tmp_path / f"folder.{suffix}").mkdir()
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "bad.toml").write_bytes(b"\xff=1")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "list.json").write_text("[1]")
    np.save(tmp_path / "nan.npy", np.full((21, 21), np.nan))
    (tmp_path / LOOP).symlink_to(LOOP)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("upscale", ("a.png", "-o", LOOP, *BUNDLE), LOOP),
        ("upscale", (LOOP, "-o", "out.png", *BUNDLE), LOOP),
        ("upscale", (NOT_UTF8, "-o", NOT_UTF8, *BUNDLE), "would be overwritten"),
        ("upscale", ("zero.png", "-o", "out.png", *BUNDLE), "cannot be read"),
        ("upscale", ("folder.png", "-o", "out.png", *BUNDLE), "no images"),
        ("upscale", ("a.png", "-o", "text.txt/out.png", *BUNDLE), "is a file, not a folder"),
        ("upscale", ("a.png", "-o", "out.png", "--weights", ""), "unknown weights ''"),
        ("upscale", ("a.png", "-o", "out.png", "--bundle", "text.txt"), "not a bundle"),
        ("upscale", ("a.png", "-o", "out.png", *BUNDLE, "--kernel", "nan.npy"), "sums to nan"),
        ("upscale", ("a.png", "-o", "out.png", *BUNDLE, "--kernel", "folder.npy"), "folder.npy"),
        ("prepare", ("images", "-o", LOOP), LOOP),
        ("prepare", (LOOP, "-o", "out"), LOOP),
        ("prepare", ("images", "-o", "images", "--sigma", "1"), "images"),
        ("eval", ("--hr", LOOP, *BUNDLE), LOOP),
        ("eval", ("--hr", "images", *BUNDLE, "--json", LOOP), LOOP),
        ("eval", ("--hr", "images", *BUNDLE, "--json", "-", "--csv", "-"), "only one of"),
        ("import", ("--dan", "zero.pth", "-o", "out.safetensors"), "torch.save did not write it"),
        ("import", ("--dan", "folder.pth", "-o", "out.safetensors"), "Is a directory"),
        ("import", ("--dan", "zero.pth", "-o", "zero.pth"), "ending in .safetensors"),
        ("import", ("--dan", "zero.safetensors", "-o", "zero.safetensors"), "also an input"),
        ("bench", ("--diff", "deep.json", "list.json"), "deep.json"),
        ("bench", ("--diff", "list.json", "list.json"), "list.json"),
        ("bench", ("--diff", "gone.json", "list.json"), "gone.json"),
        ("bench", ("--csv", "-"), "--csv cannot be -"),
        ("bench", ("--json", "x", "--html", "./x"), "must be different files"),
        ("bench", ("--suite", "bad.toml", "--out", "out"), "not valid TOML"),
        ("bench", ("--suite", "folder.toml", "--out", "out"), "cannot be read"),
        ("bench", ("--quality", "gone"), "gone"),
        ("bench", ("--weights", "gone"), "unknown weights 'gone'"),
        ("bench", ("--fp16", "--int8"), "only one of --fp16 and --int8"),
        ("export", ("--weights", "", "--out", "out"), "unknown weights ''"),
        ("export", ("--fp16", "--int8"), "only one of --fp16 and --int8"),
        ("export", (*BUNDLE, "--engine", "auto", "--target", "bad.toml"), "not valid TOML"),
        ("export", ("--single", "x.onnx", "--out", "x", "--res", "64x64"), "give --usrnet too"),
        ("export", ("--single", "x.onnx", "--out", "x", "--io", "float"), "omit --io, --out"),
        ("export", ("--sigma", "1"), "give --single too"),
        ("train", ("folder.toml", "--out", "run"), "cannot be read"),
        ("train", ("zero.toml", "--out", "run"), "missing"),
        ("offline", (*OFFLINE, "text.txt"), "is a file"),
        ("offline", (*OFFLINE, "out", "--prior", "gone"), "gone"),
        ("offline", (*OFFLINE, "out", "--usrnet", "x"), "is for --then usrnet"),
        ("inspect", ("text.txt",), "not a bundle"),
        ("inspect", ("BUNDLE", "--shape", ""), "shape"),
        ("inspect", ("BUNDLE", "--weights"), "leave out BUNDLE"),
        ("web", ("--host", "0.0.0.0"), "--allow-network"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    bundle: Bundle, folder: Path, command: str, arguments: tuple[str, ...], words: str
) -> None:
    before = state(folder)
    given = [str(bundle.path) if word == "BUNDLE" else word for word in arguments]
    main = import_module(f"ikc_deploy.cli.ikc_{command}").main
    assert_one_clear_line(invoke(main, *given), words)
    assert state(folder) == before
