"""The bundle: a folder with everything that a machine needs to upscale, verified before it is read.

    NAME/manifest.json  predictor.onnx  sftmd.onnx  corrector.onnx  basis.npz  engines/...
    and, if asked for, usrnet.onnx, for a known kernel of any shape

`write_manifest` seals a folder: it lists every file with its size and sha256, and adds a digest of
the manifest's own content. `Bundle.open` refuses a folder that is not what was sealed, before any
byte of a graph reaches a parser.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, Literal

from ikc_deploy.errors import BundleError, KernelError
from ikc_deploy.files import is_interrupted, restore, sha256_file, write_atomically
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.locks import locked

SCHEMA: Final = 1
"""Version of the manifest's schema; a reader refuses newer ones."""

GRAPHS: Final = ("predictor", "sftmd", "corrector")
USRNET: Final = "usrnet"
"""The graph that a bundle may have besides."""

MANIFEST_FILE: Final = "manifest.json"
BASIS_FILE: Final = "basis.npz"

FrameIO = Literal["uint8", "float"]
"""What frames are: RGB `[N,H,W,3]` uint8, or `[N,3,H,W]` float32 in [0,1]."""

Precision = Literal["fp32", "fp16", "int8"]
"""Precision of the convolutions: "int8" may leave some in float32."""

_DIGEST_KEY: Final = "manifest_sha256"
_EXPORT_AGAIN: Final = "export it again with ikc-export, or copy the folder again"


@dataclass(frozen=True)
class FileRecord:
    """Size and checksum of one file of a bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class UsrnetRecord:
    """What a bundle says about its fourth graph, which takes LR frames of one size alone."""

    height: int
    """Of the LR frames, in pixels."""
    width: int
    kernel_size: int
    """Side of the kernel that it takes."""
    reach: int
    """LR pixels from the edge of a frame that a pixel's image depends on, as measured."""
    precision: Precision
    """Of the convolutions; all else is float32."""
    weights_sha256: str
    parity: dict[str, float]
    """Against torch in float32: `image_db` and `frame_levels`, as in the steps of `Manifest`."""
    convolutions: dict[str, int]
    """Conv nodes by dtype."""
    training: dict[str, Any]
    """How the weights came to be; empty for random ones."""

    def __post_init__(self) -> None:
        for name, low in (("height", 1), ("width", 1), ("kernel_size", 1), ("reach", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise TypeError(f"usrnet.{name} is {value!r}")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself."""

    name: str
    """A label: the name of the weights."""
    scale: int
    """SR side over LR side."""
    code_size: int
    precision: Precision
    """Precision of the convolutions."""
    io: FrameIO
    basis_id: str
    """The id of the kernel basis that the codes mean."""
    weights_sha256: str
    """sha256 over the checkpoint that was exported; equal weights, equal value."""
    random_weights: bool
    """True for seeded random weights: fit for benches, useless for pictures."""
    opset: int
    architecture: dict[str, Any]
    training: dict[str, Any]
    """How the weights came to be; empty for random ones."""
    tools: dict[str, str]
    """Versions of what wrote the bundle."""
    parity: dict[str, Any] = field(default_factory=dict)
    """Graphs against torch in float32, per step of the loop."""
    convolutions: dict[str, dict[str, int]] = field(default_factory=dict)
    """Conv nodes of each graph by dtype."""
    verified: dict[str, Any] = field(default_factory=dict)
    """By fingerprint of an engine: what comparing it with ONNX Runtime gave."""
    usrnet: UsrnetRecord | None = None
    """The fourth graph; None if there is none."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Manifest:
        """From JSON values. Raises `TypeError` for missing, unknown or impossible ones."""
        usrnet = values.get("usrnet")
        return cls(**(values | {"usrnet": usrnet and UsrnetRecord(**usrnet)}))


class Bundle:
    """An opened and verified bundle."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        files: Mapping[str, FileRecord] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.files = files
        """The listed files by their path in the bundle; what is not listed is not part of it."""

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Bundle:
        """Open a bundle folder and verify it.

        Raises `BundleError` saying what is wrong and what mends it: no bundle there, a damaged
        manifest, a newer schema, a file that is missing, cut short or altered, or a path that leads
        out of the folder.
        """
        folder = Path(path)
        if is_interrupted(folder):
            with locked(folder):
                restore(folder)
        if not (folder / MANIFEST_FILE).is_file():
            raise BundleError(
                f"'{folder}' is not a bundle: it has no {MANIFEST_FILE}. Make one with ikc-export"
            )
        values = _read_manifest(folder)
        files = _file_records(folder, values)
        for name, record in files.items():
            _verify_file(folder, name, record)
        try:
            manifest = Manifest.from_dict(values["bundle"])
        except (KeyError, TypeError) as error:
            raise BundleError(
                f"the manifest of '{folder}' is incomplete ({error}); {_EXPORT_AGAIN}"
            ) from error
        if (manifest.usrnet is None) == (f"{USRNET}.onnx" in files):
            raise BundleError(
                f"the manifest of '{folder}' does not say of its {USRNET} graph what it lists; "
                f"{_EXPORT_AGAIN}"
            )
        bundle = cls(folder, manifest, files)
        if bundle.basis.id != manifest.basis_id:
            raise BundleError(
                f"'{folder}' holds another kernel basis than its networks were trained with; "
                f"{_EXPORT_AGAIN}"
            )
        return bundle

    @cached_property
    def basis(self) -> KernelBasis:
        """The kernel basis that the codes mean."""
        try:
            return KernelBasis.load(self.path / BASIS_FILE)
        except KernelError as error:
            raise BundleError(f"{error}; {_EXPORT_AGAIN}") from error

    @property
    def usrnet(self) -> UsrnetRecord:
        """The record of the fourth graph. Raises `BundleError` if there is none."""
        if self.manifest.usrnet is None:
            raise BundleError(
                f"'{self.path}' has no graph for known kernels; add it with: ikc-export "
                f"--bundle '{self.path}' --usrnet WEIGHTS"
            )
        return self.manifest.usrnet

    def graph(self, name: str) -> Path:
        """The ONNX file of `predictor`, `sftmd`, `corrector`, or `usrnet` if there is one."""
        return self.path / f"{name}.onnx"


def listed_files(folder: Path) -> list[str]:
    """Return the files that a bundle folder consists of, the manifest among them.

    Only the manifest is read: a damaged bundle is one, too.

    Raises:
        BundleError: There is no manifest, or it is damaged or of another version.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise BundleError(f"'{folder}' is not a bundle: it has no {MANIFEST_FILE}")
    return [MANIFEST_FILE, *_file_records(folder, _read_manifest(folder))]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Seal `folder`: list all its files with checksums and write `manifest.json`.

    Hidden files and folders are left out: they are temporary ones of a writer that was killed.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    files = sorted(
        path.as_posix()
        for path in paths
        if path.name != MANIFEST_FILE and not any(part.startswith(".") for part in path.parts)
    )
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "bundle": asdict(manifest),
        "files": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
            for name in files
        },
    }
    values[_DIGEST_KEY] = _digest(values)
    write_atomically(folder / MANIFEST_FILE, json.dumps(values, indent=2).encode())


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    try:
        values = json.loads(path.read_text())
        schema = values["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"'{path}' is damaged ({error}); {_EXPORT_AGAIN}") from error
    if not isinstance(schema, int) or schema > SCHEMA:
        raise BundleError(
            f"'{folder}' has schema {schema}, newer than the {SCHEMA} that this version reads; "
            "upgrade with: pip install --upgrade ikc-deploy"
        )
    if schema < SCHEMA:
        raise BundleError(f"'{folder}' has schema {schema}, no longer read; {_EXPORT_AGAIN}")
    if values.get(_DIGEST_KEY) != _digest(values):
        raise BundleError(
            f"'{path}' was altered after it was written: its digest differs; {_EXPORT_AGAIN}"
        )
    return dict(values)


def _digest(values: dict[str, Any]) -> str:
    sealed = {key: value for key, value in values.items() if key != _DIGEST_KEY}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def _file_records(folder: Path, values: dict[str, Any]) -> dict[str, FileRecord]:
    listed = values.get("files")
    names = {record.name for record in fields(FileRecord)}
    if not isinstance(listed, dict) or any(set(entry) != names for entry in listed.values()):
        raise BundleError(f"the manifest of '{folder}' lists no files; {_EXPORT_AGAIN}")
    needed = {BASIS_FILE, *(f"{name}.onnx" for name in GRAPHS)}
    if not needed <= set(listed):
        missing = ", ".join(sorted(needed - set(listed)))
        raise BundleError(f"the manifest of '{folder}' does not list {missing}; {_EXPORT_AGAIN}")
    return {name: FileRecord(**entry) for name, entry in listed.items()}


def _verify_file(folder: Path, name: str, record: FileRecord) -> None:
    relative = PurePosixPath(name)
    outside = relative.is_absolute() or ".." in relative.parts or "\\" in name
    path = folder / name
    if outside or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(
            f"the manifest of '{folder}' names '{name}', which lies outside the bundle; "
            "do not use it unless you know who made it"
        )
    if not path.is_file():
        raise BundleError(f"'{folder}' lacks '{name}', which its manifest lists; {_EXPORT_AGAIN}")
    size = path.stat().st_size
    if size != record.bytes:
        raise BundleError(
            f"'{path}' has {size} bytes and should have {record.bytes}: it was cut short or "
            f"replaced; {_EXPORT_AGAIN}"
        )
    if sha256_file(path) != record.sha256:
        raise BundleError(f"'{path}' was altered: its checksum differs; {_EXPORT_AGAIN}")
