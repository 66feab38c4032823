"""The sound inputs that the campaign starts from, made of the sample photo and tiny networks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ikc_deploy.bundle.bundle_writer import changed_bundle
from ikc_deploy.bundle.engine_store import engine_files
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import write_manifest
from ikc_deploy.export.export_settings import ExportSettings
from ikc_deploy.export.exporter import export_bundle
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.kernels import SIGMA_RANGES
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.weights_loader import load_weights
from tools.torture.placeholder_engine import write_placeholder_engine

ENGINE: Final = "engine-of-the-campaign"
_ROOT: Final = Path(__file__).resolve().parents[2]
_CLIPS: Final = {"mp4": "libx264", "mkv": "libx264", "ts": "mpeg2video", "avi": "mpeg4"}
_FRAMES: Final = 12


@dataclass(frozen=True)
class Material:
    """A folder of sound inputs; there are two of most, so that old and new outputs differ."""

    folder: Path
    """The folder."""

    def checkpoint(self, variant: int) -> Path:
        """Return a checkpoint of tiny networks."""
        return self.folder / f"tiny-{variant}.safetensors"

    def bundle(self) -> Path:
        """Return a bundle of the first checkpoint, with a made-up engine."""
        return self.folder / "bundle"

    def recipe(self) -> Path:
        """Return a recipe of tiny networks."""
        return self.folder / "recipe.toml"

    def photos(self) -> Path:
        """Return a folder of HR images for training."""
        return self.folder / "photos"

    def pictures(self, variant: int) -> Path:
        """Return a folder of pictures to upscale."""
        return self.folder / f"pictures-{variant}"

    def clip(self, suffix: str, variant: int = 0) -> Path:
        """Return a clip with sound."""
        return self.folder / f"clip-{variant}.{suffix}"

    def clips(self) -> list[Path]:
        """Return the first clip in every container."""
        return [self.clip(suffix) for suffix in _CLIPS]


def make_material(folder: Path) -> Material:
    """Write all inputs into a new folder."""
    folder.mkdir(parents=True)
    material = Material(folder)
    photo = read_rgb(_ROOT / "samples" / "kodim23.png")
    for variant in (0, 1):
        settings = Architecture("tiny", 4, "compact", 4, 2, 8, SIGMA_RANGES[4])
        save_checkpoint(new_networks(settings, seed=variant), material.checkpoint(variant))
        _write_pictures(material.pictures(variant), photo[40 * variant :, 60 * variant :])
        _write_clip(material.clip("mp4", variant), photo[100 * variant :])
    for path in material.clips():
        _write_clip(path, photo)
    material.photos().mkdir()
    for index in range(3):
        crop = photo[96 * index : 96 * index + 96, 200:296]
        Image.fromarray(crop).save(material.photos() / f"{index}.png")
    shutil.copy(_ROOT / "training" / "smoke.toml", material.recipe())
    weights = load_weights(str(material.checkpoint(0)))
    export_bundle(weights, material.bundle(), ExportSettings("fp32", "uint8"))
    _add_engine(material.bundle())
    return material


def _write_pictures(folder: Path, photo: NDArray[np.uint8]) -> None:
    folder.mkdir()
    rgb = Image.fromarray(np.ascontiguousarray(photo[:24, :32]))
    rgb.save(folder / "a.png", pnginfo=None)
    rgb.save(folder / "b.jpg", quality=90, exif=Image.Exif())
    rgb.save(folder / "c.webp", lossless=True)
    rgb.save(folder / "d.tif", compression="tiff_lzw")
    rgb.save(folder / "e.bmp")
    rgb.convert("P").save(folder / "f.png")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(folder / "g.tif")
    rgb.convert("RGBA").save(folder / "h.png")


def _write_clip(path: Path, photo: NDArray[np.uint8]) -> None:
    codec = _CLIPS[path.suffix[1:]]
    with av.open(path, "w") as container:
        video: Any = container.add_stream(codec, 25)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound: Any = container.add_stream("mp2", 48000, layout="mono")
        for number in range(_FRAMES):
            crop = np.ascontiguousarray(photo[4 * number : 4 * number + 32, 100:148])
            container.mux(video.encode(av.VideoFrame.from_ndarray(crop, "rgb24")))
        container.mux(video.encode())
        wave = (8000 * np.sin(np.arange(48000 * _FRAMES // 25) / 20)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        container.mux([*sound.encode(frame), *sound.encode()])


def _add_engine(bundle: Path) -> None:
    with changed_bundle(bundle) as (before, changed):
        write_placeholder_engine(changed, before.files, ENGINE)
        files = {**before.files, **record_files(changed, engine_files(ENGINE, before.loop))}
        write_manifest(changed, before.manifest, files)
