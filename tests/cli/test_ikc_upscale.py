from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import ikc_deploy
from ikc_deploy import Bundle, OutOfMemoryError
from ikc_deploy.cli.ikc_upscale import main
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.runtime.backends.onnxruntime_cpu import OnnxRuntimeCpu
from tests.cli.running import assert_one_clear_line, invoke
from tests.repeating import LEVELS, repeated
from tests.samples import photo
from tests.sealing import seal


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of different kinds and sizes."""
    write_rgb(photo(12, 16), tmp_path / "in" / "a.png")
    write_rgb(photo(10, 9, seed=1), tmp_path / "in" / "b.jpg")
    Image.fromarray(photo(11, 8)[:, :, 0].astype(np.uint16) * 257).save(tmp_path / "in" / "c.png")
    return tmp_path / "in"


def test_a_folder_is_upscaled_with_a_line_for_each_image(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = invoke(main, folder, "-o", out, "--bundle", bundle.path, "--iters", 1)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    first, second, third = result.stdout.splitlines()
    assert first.startswith(f"{out / 'a.png'}: 16x12 -> 64x48, sigma ") and first.endswith(" ms")
    assert second.startswith(f"{out / 'b.jpg'}: 9x10 -> 36x40, ")
    assert third.startswith(f"{out / 'c.png'}: 8x11 -> 32x44, ") and "16 bits -> 8" in third
    assert ", sigma 1.50, " in first
    expected = np.minimum(repeated(photo(12, 16)).astype(int) + LEVELS, 255)
    np.testing.assert_array_equal(read_rgb(out / "a.png"), expected)
    with Image.open(out / "c.png") as grey:
        assert grey.mode == "L"


def test_json_is_one_object_for_each_image(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    options = ("--bundle", bundle.path, "--sigma", 2.5, "--json")
    result = invoke(main, folder / "a.png", folder / "b.jpg", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    timings = first.pop("timings_ms")
    assert first == {
        "input": str(folder / "a.png"),
        "output": str(tmp_path / "out" / "a.png"),
        "lr": [12, 16],
        "sr": [48, 64],
        "sigma": pytest.approx(2.5, abs=1e-3),
        "ellipse": None,
        "noise": None,
        "jpeg_quality": None,
        "not_kept": [],
    }
    assert timings["predictor"] == timings["corrector"] == 0 < timings["sftmd"] < timings["total"]
    assert second["lr"] == [10, 9]


def test_one_image_with_its_steps(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    options = ("--bundle", bundle.path, "--iters", 2, "--save-steps", tmp_path / "steps")
    result = invoke(main, folder / "a.png", "-o", tmp_path / "x.png", *options)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "steps" / "a").iterdir())
    assert names == ["kernels.png", "step0.png", "step1.png", "step2.png"]
    last = read_rgb(tmp_path / "steps" / "a" / "step2.png")
    np.testing.assert_array_equal(last, read_rgb(tmp_path / "x.png"))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_damaged_image_does_not_stop_the_others(
    bundle: Bundle, folder: Path, tmp_path: Path, as_json: bool
) -> None:
    (folder / "b[old].png").write_bytes((folder / "a.png").read_bytes()[:200])
    write_rgb(photo(5, 30), folder / "thin.png")
    options = ("--bundle", bundle.path, "--iters", 0, *(("--json",) if as_json else ()))
    result = invoke(main, folder, "-o", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert len(result.stdout.splitlines()) == 3
    heading, damaged, thin = result.stderr.splitlines()
    assert heading == "error: 2 of 5 images failed:"
    assert damaged.startswith(f"'{folder / 'b[old].png'}' cannot be read as an image: ")
    assert thin.startswith(f"'{folder / 'thin.png'}': a frame needs at least 8 pixels")
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a.png", "b.jpg", "c.png"]


def test_a_single_failure_is_one_line(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    result = invoke(main, tmp_path / "bad.png", "-o", tmp_path / "x.png", "--bundle", bundle.path)
    assert_one_clear_line(result, "bad.png' cannot be read as an image")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sigma", "4.5"), ("sigma must lie in [0.2, 4]", "4.5")),
        (("--sigma", "nan"), ("sigma must lie in [0.2, 4]",)),
        (("--backend", "abacus"), ("invalid backend 'abacus'", "onnxruntime")),
        (("--weights", "x4-lite"), ("--weights or --bundle, not both",)),
    ],
)
def test_impossible_options_are_one_line_before_anything_is_written(
    bundle: Bundle,
    folder: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    result = invoke(main, folder, "-o", tmp_path / "out", "--bundle", bundle.path, *options)
    assert_one_clear_line(result, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "word"), [({"random_weights": True}, "random weights"), ({"io": "float"}, "--io")]
)
def test_bundles_that_are_not_for_pictures_are_one_line(
    bundle: Bundle, folder: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    changed = copytree(bundle.path, tmp_path / "changed")
    seal(changed, replace(bundle.manifest, **changes))
    result = invoke(main, folder, "-o", tmp_path / "out", "--bundle", changed)
    assert_one_clear_line(result, str(changed), word)


def test_missing_inputs_are_one_line_before_a_bundle_is_opened(tmp_path: Path) -> None:
    result = invoke(
        main, tmp_path / "gone.png", "-o", tmp_path / "x.png", "--bundle", tmp_path / "none"
    )
    assert_one_clear_line(result, "no image, clip or folder", "gone.png")


def test_weights_come_from_the_cache_and_random_ones_are_refused(
    bundle: Bundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = {"x4-lite": bundle, "mine": bundle}
    monkeypatch.setattr(
        "ikc_deploy.cli._bundle_options.default_bundle", lambda name, _: cached[name]
    )
    for options in ((), ("--weights", "mine")):
        result = invoke(
            main, folder / "a.png", "-o", tmp_path / "x.png", "--iters", 0, "--overwrite", *options
        )
        assert result.exit_code == 0, result.output
    result = invoke(main, folder, "-o", tmp_path / "out", "--weights", "random:x4")
    assert_one_clear_line(result, "'random:x4' means random weights")


def test_steps_without_matplotlib_name_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    result = invoke(main, folder, "-o", tmp_path / "out", "--save-steps", tmp_path / "steps")
    assert_one_clear_line(result, "--save-steps needs", "ikc-deploy[evaluation]")


def test_crops_and_tiles_give_the_picture_too(bundle: Bundle, tmp_path: Path) -> None:
    """The repeating network has the same answer everywhere, so every way gives one picture."""
    write_rgb(photo(120, 100), tmp_path / "a.png")
    expected = np.minimum(repeated(photo(120, 100)).astype(int) + 2 * LEVELS, 255)
    ways = (
        ("--estimate", "crops"),
        ("--tile", "64"),
        ("--max-memory", "80M", "--estimate", "crops"),
        ("--tile", "none", "--max-memory", "1.5g"),
    )
    for way in ways:
        options = ("-o", tmp_path / "out.png", "--bundle", bundle.path, "--iters", 2, *way)
        (tmp_path / "out.png").unlink(missing_ok=True)
        result = invoke(main, tmp_path / "a.png", *options)
        assert result.exit_code == 0, result.output
        np.testing.assert_array_equal(read_rgb(tmp_path / "out.png"), expected)


def test_out_of_memory_is_a_warning_and_a_picture_all_the_same(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = OnnxRuntimeCpu.allocate

    def cramped(self: OnnxRuntimeCpu, shape: tuple[int, ...], dtype: Any) -> Any:
        if np.prod(shape) > 3 * 300 * 300:
            raise OutOfMemoryError("no room")
        return allocate(self, shape, dtype)

    monkeypatch.setattr(OnnxRuntimeCpu, "allocate", cramped)
    write_rgb(photo(120, 140), tmp_path / "a.png")
    options = ("-o", tmp_path / "out.png", "--bundle", bundle.path, "--iters", 0)
    result = invoke(main, tmp_path / "a.png", *options)
    assert result.exit_code == 0, result.output
    assert result.stderr == "warning: no room; continuing with tiles of 64 LR pixels\n"
    np.testing.assert_array_equal(read_rgb(tmp_path / "out.png"), repeated(photo(120, 140)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--estimate", "crops", "--sigma", "2"), ("--sigma gives the blur", "only one of them")),
        (("--estimate", "track"), ("--estimate track is only for video",)),
        (("--streams", "2"), ("--streams: only for video", "the inputs are images")),
        (("--tile", "70"), ("a multiple of 16", "70")),
        (("--max-memory", "0"), ("a positive number of bytes",)),
        (("--max-memory", "9K"), ("too little even for tiles of 64",)),
    ],
)
def test_ways_that_cannot_be_are_refused(
    bundle: Bundle, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    write_rgb(photo(30, 30), tmp_path / "a.png")
    paths = (tmp_path / "a.png", "-o", tmp_path / "out.png", "--bundle", bundle.path)
    assert_one_clear_line(invoke(main, *paths, *options), *words)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("option", "text", "word"), [("--tile", "big", "auto, none"), ("--max-memory", "much", "4G")]
)
def test_tiles_and_sizes_are_parsed(option: str, text: str, word: str) -> None:
    result = invoke(main, "a.png", "-o", "b.png", option, text)
    assert result.exit_code == 2
    assert word in result.stderr


def test_a_large_picture_is_read_if_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    write_rgb(photo(40, 50), tmp_path / "a.png")
    paths = (tmp_path / "a.png", "-o", tmp_path / "out.png", "--bundle", bundle.path, "--iters", 0)
    assert_one_clear_line(invoke(main, *paths, "--max-pixels", "1.9K"), "50x40", "--max-pixels")
    for most in ("2K", "200M", "none"):
        assert invoke(main, *paths, "--overwrite", "--max-pixels", most).exit_code == 0
    assert "expected for example 200M" in invoke(main, *paths, "--max-pixels", "big").stderr


def test_the_output_has_the_requested_size_and_opacity(bundle: Bundle, tmp_path: Path) -> None:
    opaque = Image.fromarray(photo(12, 16))
    opaque.putalpha(128)
    opaque.save(tmp_path / "a.png")
    options = ("--bundle", bundle.path, "--iters", 0, "--size", "40x400", "--strength", 0.5)
    result = invoke(main, tmp_path / "a.png", "-o", tmp_path / "b.png", *options)
    assert result.exit_code == 0, result.output
    assert "16x12 -> 40x30" in result.stdout
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (40, 30) and image.mode == "RGBA"


def test_metadata_is_kept_unless_stripped(bundle: Bundle, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "camera"
    Image.fromarray(photo(12, 16)).save(tmp_path / "a.png", exif=exif, dpi=(300, 300))
    options = ("--bundle", bundle.path, "--iters", 0)
    for name, more in {"kept.png": (), "bare.png": ("--strip",), "b.bmp": ()}.items():
        result = invoke(main, tmp_path / "a.png", "-o", tmp_path / name, *options, *more)
        assert result.exit_code == 0, result.output
        assert ("not kept in" in result.stderr) == (name == "b.bmp")
    with Image.open(tmp_path / "kept.png") as kept, Image.open(tmp_path / "bare.png") as bare:
        assert kept.getexif()[0x010F] == "camera" and kept.info["dpi"][0] == pytest.approx(
            300, 0.01
        )
        assert not bare.getexif() and "dpi" not in bare.info


def test_a_tree_is_mirrored_and_continued(bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "in" / "out"
    for name in ("1.png", "10.png", "2.png", "sub/1.png", "sub/deep/a.png", ".hidden/b.png"):
        write_rgb(photo(12, 16), source / name)
    options = ("-o", out, "--recursive", "--bundle", bundle.path, "--iters", 0)
    result = invoke(main, source, *options)
    assert result.exit_code == 0, result.output
    written = [Path(line.split(": ")[0]).relative_to(out) for line in result.stdout.splitlines()]
    assert [path.as_posix() for path in written] == [
        *("1.png", "2.png", "10.png", "sub/1.png", "sub/deep/a.png")
    ]
    assert ".hidden" in result.stderr
    (out / "2.png").unlink()
    kept = (out / "1.png").stat().st_mtime_ns
    again = invoke(main, source, *options, "--skip-existing")
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith(f"{out / '2.png'}: ") and len(again.stdout.splitlines()) == 1
    assert "the output exists: 1.png, 10.png" in again.stderr
    assert (out / "1.png").stat().st_mtime_ns == kept


def test_a_tree_without_images_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    result = invoke(main, tmp_path / "in", "-o", tmp_path / "out", "--recursive")
    assert_one_clear_line(result, "and its subfolders have no images or clips")


def test_the_kernel_and_the_ellipse_of_one_image(folder: Path, tmp_path: Path) -> None:
    source, kept = folder / "a.png", tmp_path / "new" / "k.npy"
    options = ("--weights", "x4-aniso", "--iters", 1, "--save-kernel", kept, "--overwrite")
    line = invoke(main, source, "-o", tmp_path / "x.png", *options)
    assert line.exit_code == 0, line.output
    kernel = np.load(kept)
    assert kernel.shape == (21, 21) and kernel.dtype == np.float32
    with ikc_deploy.load(default_bundle("x4-aniso"), iters=1) as upscaler:
        expected = upscaler(read_rgb(source))
    np.testing.assert_array_equal(kernel, expected.kernel)
    as_json = invoke(main, source, "-o", tmp_path / "x.png", *options, "--json")
    ellipse = json.loads(as_json.stdout)["ellipse"]
    assert ellipse["long"] >= ellipse["short"] > 0
    told = f"ellipse {ellipse['long']:.2f} x {ellipse['short']:.2f} at {ellipse['angle']:.0f}°"
    assert told in line.stdout


def test_a_kernel_that_cannot_be_saved_is_refused_before_the_work(
    bundle: Bundle, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    one, both = (folder / "a.png",), (folder / "a.png", folder / "b.jpg")
    for inputs, kernel, word in (
        ((folder,), tmp_path / "k.npy", "single image"),
        (both, tmp_path / "k.npy", "single image"),
        (one, tmp_path / "k.png", ".npy"),
        (one, tmp_path / "file" / "k.npy", "file"),
        ((tmp_path / "clip.mp4",), tmp_path / "k.npy", "--save-kernel: only for images"),
    ):
        out = tmp_path / ("o.mp4" if inputs[0].suffix == ".mp4" else "out")
        options = ("--bundle", bundle.path, "--save-kernel", kernel)
        assert_one_clear_line(invoke(main, *inputs, "-o", out, *options), word)
        assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.png", "-o", "x.png", "-o", "y.png"), "--out is given 2 times"),
        (("a.png", "-o", "-"), "for an image, give files"),
        (("https://example.org/a.png", "-o", "x.png"), "looks like an address: download it"),
        (("%04d.png", "-o", "x.mp4"), "give a pattern with the digits of the names, or the folder"),
        (("*.png", "-o", "out"), "looks like a pattern: give the folder"),
        (("empty.png", "-o", "x.png"), "the file is empty"),
        (("empty.mp4", "-o", "x.mp4"), "the file is empty"),
        (("text.mp4", "-o", "x.mp4"), "its index, which is written last, is missing"),
        (("1x1.png", "-o", "x.png"), "at least 8 pixels on each side, got 1x1; pad it"),
        (("4x4.mkv", "-o", "x.mkv"), "'4x4.mkv' has frames of 4x4 pixels; at least 8"),
        (("4x4.mkv", "-o", "out"), "'4x4.mkv' has frames of 4x4 pixels; at least 8"),
    ],
)
def test_odd_uses_say_what_to_do(
    bundle: Bundle,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    for name in ("empty.png", "empty.mp4"):
        Path(name).touch()
    Path("text.mp4").write_text("no clip")
    write_rgb(np.zeros((1, 1, 3), np.uint8), Path("1x1.png"))
    with av.open("4x4.mkv", "w") as clip:
        stream = clip.add_stream("ffv1", width=4, height=4, pix_fmt="bgr0")
        clip.mux(stream.encode(av.VideoFrame(4, 4, "bgr0")))
        clip.mux(stream.encode())
    before = sorted(Path().rglob("*"))
    result = invoke(main, *arguments, "--bundle", bundle.path, "--iters", 0)
    assert_one_clear_line(result, words)
    assert sorted(Path().rglob("*")) in (before, [*before, Path("out")])


def test_an_empty_name_is_not_this_folder(bundle: Bundle, folder: Path) -> None:
    for arguments in (("", "-o", "x"), (folder / "a.png", "-o", "")):
        result = invoke(main, *arguments, "--bundle", bundle.path)
        assert result.exit_code == 2 and "the name is empty" in result.stderr


def test_images_of_every_readable_format_are_found_in_folders(
    bundle: Bundle, tmp_path: Path
) -> None:
    source = tmp_path / "phone"
    source.mkdir()
    for name, kind in (("a.gif", "GIF"), ("b.JFIF", "JPEG"), ("c.heic", "PNG")):
        Image.fromarray(photo(12, 16)).save(source / name, format=kind)
    (source / "notes.txt").touch()
    options = ("--bundle", bundle.path, "--iters", 0)
    result = invoke(main, source, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert "other formats, by their suffix: notes.txt" in result.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a.png", "b.png", "c.png"]
