from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import tifffile
from PIL import Image

from ikc_deploy import Bundle, InputError, Upscaler, load
from ikc_deploy.imaging.file_upscaling import (
    ImageTask,
    Upscaled,
    check_bundle,
    fill_hidden,
    upscale_file,
    upscale_picture,
)
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.reading import read_picture
from ikc_deploy.imaging.writing import write_picture
from tests.imaging.test_reading import ORIENTATION_TAG, ORIENTATIONS, png16
from tests.repeating import CORRECTION, FIRST, repeated, repeating_bundle
from tests.samples import photo
from tests.sealing import BASIS, SCALE


@pytest.fixture(scope="module")
def upscaler(bundle: Bundle) -> Upscaler:
    """Outputs are `repeated` inputs."""
    return load(bundle, iters=0, threads=1)


def upscale(
    upscaler: Upscaler, source: Path, suffix: str | None = None
) -> tuple[Upscaled, Image.Image]:
    """Upscale a file by repetition; what was reported, and what the written file holds."""
    target = source.parent / "out" / f"result{suffix or source.suffix}"
    done = upscale_file(upscaler, ImageTask(source, target))
    with Image.open(target) as written:
        written.load()
        assert (written.height, written.width) == done.sr
        assert done.sr == (SCALE * done.lr[0], SCALE * done.lr[1])
        return done, written


def refused(upscaler: Upscaler, source: Path, suffix: str = ".png") -> str:
    """The reason why `source` is refused; nothing may be written."""
    target = source.parent / "out" / f"result{suffix}"
    with pytest.raises(InputError) as caught:
        upscale_file(upscaler, ImageTask(source, target, source.parent / "out" / "steps"))
    assert not target.parent.exists() or not list(target.parent.iterdir())
    return str(caught.value)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_the_output_is_upright_in_pixels_and_metadata(
    upscaler: Upscaler, tmp_path: Path, suffix: str, orientation: int
) -> None:
    # Patches of 16 pixels in eight flat colours: JPEG keeps them to a few levels.
    stored = np.kron(np.arange(20, 260, 40).reshape(2, 3), np.ones((16, 16))).astype(np.uint8)
    stored = np.dstack((stored, stored[:, ::-1], stored[::-1]))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    source = tmp_path / f"camera{suffix}"
    Image.fromarray(stored).save(source, exif=exif, quality=95, subsampling=0)
    done, written = upscale(upscaler, source)
    expected = ORIENTATIONS[orientation](stored)
    assert done.lr == expected.shape[:2]
    assert np.abs(np.asarray(written, int) - repeated(expected)).max() <= 8
    assert written.getexif().get(ORIENTATION_TAG, 1) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_stays_grey(upscaler: Upscaler, tmp_path: Path, mode: str, suffix: str) -> None:
    image = Image.fromarray(photo(12, 9)).convert(mode)
    image.save(tmp_path / f"grey{suffix}")
    _, written = upscale(upscaler, tmp_path / f"grey{suffix}")
    assert written.mode == ("LA" if mode == "LA" else "L")
    expected = repeated(np.asarray(image.convert("L")))
    np.testing.assert_array_equal(np.asarray(written.convert("L")), expected)


def test_grey_is_the_luma_of_what_the_network_made(tmp_path: Path) -> None:
    Image.fromarray(photo(10, 10)[:, :, 0] // 2).save(tmp_path / "grey.png")
    picture = read_picture(tmp_path / "grey.png")
    tinting = load(repeating_bundle(tmp_path / "bundle", tint=(60, 0, 20)), iters=0, threads=1)
    upscaled, _ = upscale_picture(tinting, picture)
    write_picture(upscaled, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        luma = upscaled.rgb @ np.array([0.299, 0.587, 0.114])
        assert np.abs(np.asarray(written) - luma).max() <= 0.51


def test_opacity_is_upscaled_bicubically(upscaler: Upscaler, tmp_path: Path) -> None:
    alpha = photo(20, 24, seed=1)[:, :, 0]
    Image.fromarray(np.dstack((photo(20, 24), alpha))).save(tmp_path / "a.png")
    _, written = upscale(upscaler, tmp_path / "a.png")
    assert written.mode == "RGBA"
    size = (SCALE * 24, SCALE * 20)
    plane = Image.fromarray(alpha.astype(np.float32))
    reference = np.clip(np.asarray(plane.resize(size, Image.Resampling.BICUBIC)), 0, 255)
    # Pillow treats the border otherwise: there its weights are those inside, rescaled.
    inside = (slice(8, -8), slice(8, -8))
    difference = np.asarray(written)[..., 3][inside] - reference[inside]
    assert np.abs(difference).max() <= 1


def test_hidden_colour_does_not_bleed(upscaler: Upscaler, tmp_path: Path) -> None:
    rgb = photo(21, 18)
    alpha = np.full((21, 18), 255, np.uint8)
    alpha[4:15, 3:12] = 0
    results = []
    for hidden in (0, 255):
        rgb[alpha == 0] = hidden
        Image.fromarray(np.dstack((rgb, alpha))).save(tmp_path / "a.png")
        results.append(np.asarray(upscale(upscaler, tmp_path / "a.png")[1]))
    np.testing.assert_array_equal(results[0], results[1])
    # Hard edges stay exact: repetition of what was visible.
    visible = repeated(alpha) > 0
    np.testing.assert_array_equal(results[0][visible][:, :3], repeated(rgb)[visible])


def test_hidden_pixels_get_the_visible_colours_nearest_to_them() -> None:
    # One visible pixel in each corner; blocks of 8x8 reach no other corner.
    corners = np.array([[[200, 0, 0], [0, 150, 0]], [[0, 0, 100], [50, 60, 70]]], np.uint8)
    rgb = np.full((15, 14, 3), 77, np.uint8)
    alpha = np.zeros((15, 14), np.uint8)
    rgb[::14, ::13], alpha[::14, ::13] = corners, 1
    expected = corners.repeat(8, axis=0).repeat(8, axis=1)[:15, :14]
    np.testing.assert_array_equal(fill_hidden(rgb, alpha), expected)
    for uniform in (np.zeros_like(alpha), np.full_like(alpha, 9)):
        np.testing.assert_array_equal(fill_hidden(rgb, uniform), rgb)


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_becomes_its_colours(
    upscaler: Upscaler, tmp_path: Path, transparent: bool
) -> None:
    colours = np.array([[250, 10, 20], [0, 200, 5], [30, 40, 90]], np.uint8)
    indices = np.random.default_rng(0).integers(0, 3, (8, 9), np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "p.png", transparency=0 if transparent else None)
    done, written = upscale(upscaler, tmp_path / "p.png")
    assert (done.bits, written.mode) == (8, "RGBA" if transparent else "RGB")
    shown = np.asarray(written)
    visible = repeated(indices) > (0 if transparent else -1)
    np.testing.assert_array_equal(shown[visible][:, :3], repeated(colours[indices])[visible])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(("channels", "tolerance"), [(1, 0.5), (3, 1.0), (4, 1.0)])
def test_16_bit_samples_become_8_bit_ones(
    upscaler: Upscaler,
    tmp_path: Path,
    byteorder: Literal["<", ">"],
    channels: int,
    tolerance: float,
) -> None:
    samples = np.random.default_rng(channels).integers(0, 65536, (9, 8, channels))
    if channels == 4:
        samples[..., 3] = 65535
    source = tmp_path / "deep.tif"
    kind = "minisblack" if channels == 1 else "rgb"
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(
        source,
        samples.squeeze().astype(np.uint16),
        photometric=kind,
        byteorder=byteorder,
        **cast("Any", extra),
    )
    done, written = upscale(upscaler, source, ".png")
    assert (done.bits, written.mode) == (16, {1: "L", 3: "RGB", 4: "RGBA"}[channels])
    shown = np.asarray(written).reshape(36, 32, channels)
    assert np.abs(shown - repeated(samples / 257)).max() <= tolerance


def test_16_bit_grey_keeps_its_transparency(upscaler: Upscaler, tmp_path: Path) -> None:
    grey, alpha = photo(9, 8)[:, :, 0], photo(9, 8)[:, :, 1]
    samples = np.dstack((grey, alpha)).astype(np.int64) * 257
    (tmp_path / "la.png").write_bytes(png16(samples, colour_type=4))
    done, written = upscale(upscaler, tmp_path / "la.png")
    assert (done.bits, written.mode) == (16, "LA")
    hidden = 257 * int(grey[0, 0])
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "t.png", transparency=hidden)
    done, written = upscale(upscaler, tmp_path / "t.png")
    assert (done.bits, written.mode) == (16, "LA")
    centres = np.asarray(written)[1::SCALE, 1::SCALE, 1]
    np.testing.assert_array_equal(centres > 127, grey != grey[0, 0])


def test_cmyk_becomes_rgb_without_its_profile(upscaler: Upscaler, tmp_path: Path) -> None:
    image = Image.fromarray(photo(16, 16)).convert("CMYK")
    image.save(tmp_path / "ink.tif", icc_profile=b"a profile of inks")
    _, written = upscale(upscaler, tmp_path / "ink.tif")
    assert written.mode == "RGB" and "icc_profile" not in written.info
    np.testing.assert_array_equal(np.asarray(written), repeated(np.asarray(image.convert("RGB"))))


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_several_pictures_in_one_file_are_refused(
    upscaler: Upscaler, tmp_path: Path, suffix: str
) -> None:
    first, second = (Image.fromarray(photo(16, 16, seed)) for seed in (0, 1))
    first.save(tmp_path / f"many{suffix}", save_all=True, append_images=[second])
    reason = refused(upscaler, tmp_path / f"many{suffix}")
    assert f"many{suffix}' holds 2 images" in reason


def test_a_photograph_with_a_preview_behind_it_is_one_picture(
    upscaler: Upscaler, tmp_path: Path
) -> None:
    main, preview = (Image.fromarray(photo(32, 32, seed)) for seed in (0, 1))
    path = tmp_path / "phone.jpg"
    main.save(path, "MPO", save_all=True, append_images=[preview], quality=95, subsampling=0)
    with Image.open(path) as opened:
        assert (opened.format, getattr(opened, "n_frames", 1)) == ("MPO", 2)
    _, written = upscale(upscaler, path, ".png")
    assert np.abs(np.asarray(written, int) - repeated(np.asarray(main))).mean() < 3


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_samples_without_a_known_white_are_refused(
    upscaler: Upscaler, tmp_path: Path, dtype: type
) -> None:
    tifffile.imwrite(tmp_path / "science.tif", np.ones((16, 16), dtype))
    assert "science.tif' cannot be read" in refused(upscaler, tmp_path / "science.tif")


def test_a_picture_that_is_too_small_is_refused_by_name(upscaler: Upscaler, tmp_path: Path) -> None:
    write_picture(Picture(photo(7, 20)), tmp_path / "thin.png")
    reason = refused(upscaler, tmp_path / "thin.png")
    assert "thin.png'" in reason and "20x7" in reason


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_transparency_goes_only_where_it_can_be_kept(
    upscaler: Upscaler, tmp_path: Path, suffix: str
) -> None:
    picture = Picture(photo(16, 16), np.full((16, 16), 255, np.uint8))
    write_picture(picture, tmp_path / "opaque.png")
    assert upscale(upscaler, tmp_path / "opaque.png", suffix)[1].mode == "RGB"
    seen_through = replace(picture, alpha=np.full((16, 16), 254, np.uint8))
    write_picture(seen_through, tmp_path / "glass.png")
    (tmp_path / "out" / f"result{suffix}").unlink()
    reason = refused(upscaler, tmp_path / "glass.png", suffix)
    assert "glass.png'" in reason and "cannot hold transparency" in reason


def test_lack_of_memory_names_the_picture(
    upscaler: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(upscaler.backend, "upload", fail)
    write_picture(Picture(photo(16, 16)), tmp_path / "vast.png")
    assert "vast.png' is too large" in refused(upscaler, tmp_path / "vast.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_steps_end_with_the_output(bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    rgba = Image.fromarray(np.dstack((photo(12, 16) // 2, photo(12, 16)[:, :, 0])))
    rgba.convert("LA").save(source)
    with load(bundle, iters=2, threads=1) as upscaler:
        done = upscale_file(upscaler, ImageTask(source, target, tmp_path / "steps" / "in"))
    assert done.sigma == pytest.approx(BASIS.sigma_of_code(FIRST + 2 * CORRECTION), abs=1e-3)
    names = sorted(path.name for path in (tmp_path / "steps" / "in").iterdir())
    assert names == ["kernels.png", "step0.png", "step1.png", "step2.png"]
    images = []
    for path in [*(tmp_path / "steps" / "in" / f"step{step}.png" for step in range(3)), target]:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("LA", (64, 48))
            images.append(np.asarray(image))
    np.testing.assert_array_equal(images[2], images[3])
    assert (images[0][..., 0] != images[2][..., 0]).all()


def test_a_known_blur_is_not_estimated(upscaler: Upscaler, tmp_path: Path) -> None:
    write_picture(Picture(photo(12, 16)), tmp_path / "in.png")
    job = ImageTask(tmp_path / "in.png", tmp_path / "out.png", tmp_path / "steps")
    done = upscale_file(upscaler, job, sigma=2.5)
    assert done.sigma == pytest.approx(2.5, abs=1e-3)
    assert sorted(path.name for path in job.target.parent.glob("steps/*")) == [
        "kernels.png",
        "step0.png",
    ]


@pytest.mark.parametrize(
    ("changes", "mend"),
    [({"random_weights": True}, "random weights, for benchmarks"), ({"io": "float"}, "--io uint8")],
)
def test_bundles_that_are_not_for_pictures_are_refused(
    bundle: Bundle, changes: dict[str, Any], mend: str
) -> None:
    check_bundle(bundle)
    with pytest.raises(InputError, match=f"'bad' .*{mend}"):
        check_bundle(Bundle(Path("bad"), replace(bundle.manifest, **changes)))
