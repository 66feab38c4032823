"""Real LR/HR pairs, such as RealSR's or those of DIV2K's track 2: matched by name, then measured.

Names match if they are equal after the suffix for kind and scale is removed:

    LR  photo.png  photo_LR4.png  photo_LR.png  0801x4.png  0801x4m.png  0801x4w2.png
    HR  photo.png  photo_HR.png   photo_HR.png  0801.png    0801.png     0801.png

Both kinds may be in one folder, as in RealSR, if the suffixes LR and HR distinguish them. An HR
image may have several LR images. Its size must be the scale times that of the LR image; up to
scale - 1 extra rows and columns at the bottom and the right are ignored. Real pairs are often
misaligned near their edges, so `border` pixels are ignored there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.errors import InputError
from ikc_deploy.evaluation.blurs import BlurSet
from ikc_deploy.evaluation.datasets import refuse_equal_names
from ikc_deploy.evaluation.protocol import (
    EvaluationCase,
    EvaluationReport,
    Progress,
    Protocol,
    check_bundle,
    measure_case,
)
from ikc_deploy.evaluation.records import Record
from ikc_deploy.files import real_path
from ikc_deploy.imaging.input_files import join_names, list_images
from ikc_deploy.imaging.metrics import SSIM_WINDOW
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.runtime.upscaler import Upscaler

_LR: Final = re.compile(r"[_-]LR[234]?$", re.IGNORECASE)
_HR: Final = re.compile(r"[_-]HR$", re.IGNORECASE)
# DIV2K: x4 of track 1, and m(ild), d(ifficult) and w(ild) 1 to 4 of track 2.
_SCALE: Final = re.compile(r"[_-]?x([234])(?:m|d|w[1-4]?)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """An LR image file and its HR image file."""

    lr: Path
    """File of the LR image."""
    hr: Path
    """File of the HR image."""


@dataclass(frozen=True)
class PairSet:
    """The pairs of an LR folder and an HR folder."""

    name: str
    """Name of the LR folder."""
    pairs: tuple[Pair, ...]
    """Pairs in natural order of the LR images."""

    @classmethod
    def open(cls, lr: Path, hr: Path, scale: int) -> PairSet:
        """Match the images of two folders by name, and check the size of every image.

        Args:
            lr: Folder of LR images.
            hr: Folder of HR images; it may be the same.
            scale: HR side over LR side.

        Raises:
            InputError: A folder or image cannot be read, an image has no partner, two HR images
                have the same name, or sizes do not fit the scale. The message names the file.
        """
        highs: dict[str, Path] = {}
        for path in list_images(hr):
            if _LR.search(path.stem) and not _HR.search(path.stem):
                continue
            other = highs.setdefault(_HR.sub("", path.stem), path)
            if other != path:
                raise InputError(f"'{other}' and '{path}' match the same LR images; remove one")
        lows = [path for path in list_images(lr) if not _HR.search(path.stem)]
        keys = {path: _key(path.stem, scale) for path in lows}
        alone = [path for path in lows if keys[path] not in highs]
        unused = [path for key, path in highs.items() if key not in set(keys.values())]
        same_folder = real_path(lr) == real_path(hr)
        if same_folder:
            # An image without a mark could be either; only partners of marked ones count.
            unused = [path for path in unused if _HR.search(path.stem)]
            alone = [path for path in alone if path not in highs.values()]
            lows = [path for path in lows if path != highs.get(keys[path])]
        for found, what, where in ((alone, "HR", hr), (unused, "LR", lr)):
            if found:
                raise InputError(
                    f"no {what} image in '{where}' matches {join_names(found)}; names must be "
                    "equal up to a last part such as x4, _LR4 or _HR, and every image needs a "
                    "partner"
                )
        if not lows:
            raise InputError(
                f"no pair in '{lr}': LR images need names ending in LR4 or x4, for example"
            )
        found_pairs = tuple(Pair(path, highs[keys[path]]) for path in lows)
        for pair in found_pairs:
            read_pair(pair, scale)
        return cls(real_path(lr).name, found_pairs)


def open_pairs(lows: Sequence[Path], highs: Sequence[Path], scale: int) -> list[PairSet]:
    """Open the pairs of each LR folder with the HR folder at the same place.

    Raises:
        InputError: The numbers of folders differ, two LR folders have the same name, or as
            `PairSet.open`.
    """
    if len(lows) != len(highs):
        raise InputError(
            f"{len(lows)} folders of LR images and {len(highs)} of HR images; give one --hr for "
            "each --lr, in the same order"
        )
    refuse_equal_names(lows)
    return [PairSet.open(lr, hr, scale) for lr, hr in zip(lows, highs, strict=True)]


def read_pair(pair: Pair, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the LR image `[H,W,3]` and the HR image `[sH,sW,3]`, RGB uint8.

    Raises:
        InputError: A file cannot be read, or sizes do not fit each other.
    """
    lr, hr = read_rgb(pair.lr), read_rgb(pair.hr)
    if min(lr.shape[:2]) < MIN_SIDE:
        raise InputError(
            f"'{pair.lr}' has {lr.shape[1]}x{lr.shape[0]} pixels; at least {MIN_SIDE} on each side "
            "are needed"
        )
    height, width = (scale * side for side in lr.shape[:2])
    if not (0 <= hr.shape[0] - height < scale and 0 <= hr.shape[1] - width < scale):
        hint = ""
        if hr.shape == lr.shape:
            hint = "; they have one size: this LR image was enlarged already"
        raise InputError(
            f"'{pair.hr}' has {hr.shape[1]}x{hr.shape[0]} pixels, and {scale} times '{pair.lr}' is "
            f"{width}x{height}{hint}"
        )
    return lr, hr[:height, :width]


def evaluate_pairs(
    upscaler: Upscaler,
    sets: Sequence[PairSet],
    border: int | None = None,
    progress: Progress = lambda *_: None,
) -> EvaluationReport:
    """Measure an upscaler on real pairs, at every step up to its `iters`.

    The blur is not known: there is no figure with the true kernel.

    Args:
        upscaler: Upscaler to measure.
        sets: Pairs from `open_pairs`.
        border: Pixels of the HR image that are left out at each edge; None for the scale.
        progress: Called after every pair.

    Raises:
        InputError: The border is too large for an image, or the bundle does not support uint8.
        BackendError: The networks produce kernel codes that are not finite.
    """
    protocol = Protocol(BlurSet.unknown())
    check_bundle(upscaler, protocol.blurs)
    edge = upscaler.scale if border is None else border
    measured = [record for pairs in sets for record in _measure(upscaler, pairs, edge, progress)]
    return EvaluationReport(
        upscaler.bundle.manifest,
        protocol,
        tuple(measured),
        upscaler.estimate,
        self_ensemble=upscaler.self_ensemble,
    )


def _measure(
    upscaler: Upscaler, pairs: PairSet, border: int, progress: Progress
) -> Iterator[Record]:
    total = len(pairs.pairs)
    progress(pairs.name, 0, total)
    blur = BlurSet.unknown().blurs[0]
    for done, pair in enumerate(pairs.pairs, 1):
        lr, hr = read_pair(pair, upscaler.scale)
        if min(hr.shape[:2]) - 2 * border < SSIM_WINDOW:
            raise InputError(
                f"a border of {border} pixels leaves too little of '{pair.hr}', which has "
                f"{hr.shape[1]}x{hr.shape[0]} pixels"
            )
        case = EvaluationCase(pairs.name, pair.lr.name, hr, blur)
        yield from measure_case(upscaler, case, lr, border, {})
        progress(pairs.name, done, total)


def _key(stem: str, scale: int) -> str:
    """Return the name of the HR image of an LR image, without marks."""
    plain = _LR.sub("", stem)
    marked = _SCALE.search(plain)
    if marked is not None and int(marked[1]) == scale:
        plain = plain[: marked.start()]
    return plain
