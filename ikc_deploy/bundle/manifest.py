"""The bundle: a folder with everything needed to upscale, which is verified before it is used.

    NAME/manifest.json  GRAPH.onnx for each graph of the loop  basis.npz  engines/...
    and, if requested, usrnet.onnx, for known kernels of any shape

The manifest names the loop (`ikc_deploy.loops`), which names the graphs: predictor, sftmd and
corrector for IKC.

`write_manifest` seals a folder: the manifest lists every file that the writer wrote or verified,
with its size and sha256, and a digest of the manifest itself. `Bundle.open` rejects a folder that
has changed since it was sealed, before any graph is parsed. When a file is used later, it is read
and checked again, and the checked bytes are parsed. Files that are not listed are not part of the
bundle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, Final, Literal

from ikc_deploy.arguments import path_argument
from ikc_deploy.bundle.file_records import (
    EXPORT_AGAIN,
    FileRecord,
    open_listed,
    outside_bundle,
    read_verified,
    verify_file,
)
from ikc_deploy.bundle.measurements import Parity, UsrnetParity, Verification
from ikc_deploy.errors import BundleError, KernelError
from ikc_deploy.files import is_interrupted, restore, write_atomically
from ikc_deploy.kernels import SIGMA_RANGES, KernelBasis
from ikc_deploy.locks import locked
from ikc_deploy.loops import IKC, Loop, find_loop
from ikc_deploy.parsing import read_json
from ikc_deploy.text import printable
from ikc_deploy.typed_values import read_settings

SCHEMA: Final = 3
"""Version of the manifest's schema; other versions are rejected."""

_MAX_ITERS: Final = 1000
_MAX_ACTIVATION_BYTES: Final = 2**32

USRNET: Final = "usrnet"
"""Name of the optional graph for known kernels."""

MANIFEST_FILE: Final = "manifest.json"
BASIS_FILE: Final = "basis.npz"

FrameIO = Literal["uint8", "float"]
"""Layout and dtype of frames: RGB `[N,H,W,3]` uint8, or `[N,3,H,W]` float32 in [0,1]."""

Precision = Literal["fp32", "fp16", "int8"]
"""Precision of the convolutions; with "int8" some may stay in float32."""

MAX_MANIFEST: Final = 8 * 2**20
"""Maximum size of a manifest in bytes; larger files are not read."""

_MAX_BASIS: Final = 32 * 2**20
_MAX_CODES: Final = 1024
_MAX_SIDE: Final = 2**16
_MAX_FILES: Final = 10_000
_LONGEST_NAME: Final = 255
_DIGEST_KEY: Final = "manifest_sha256"


@dataclass(frozen=True)
class UsrnetRecord:
    """Properties of a bundle's USRNet graph, which accepts LR frames of one size only.

    Raises:
        ValueError: A size is out of range, or the kernel size is even.
    """

    height: int
    """Height of the LR frames in pixels."""
    width: int
    """Width of the LR frames in pixels."""
    kernel_size: int
    """Side in pixels of the kernels that the graph accepts, odd."""
    halo: int
    """Measured distance from a frame's edge, in LR pixels, within which the image may be wrong."""
    precision: Precision
    """Precision of the convolutions; everything else is float32."""
    weights_sha256: str
    """sha256 of the exported weights."""
    parity: UsrnetParity | None
    """Difference from torch in float32; None if not measured yet."""
    convolutions: dict[str, int]
    """Number of Conv nodes by dtype."""
    training: dict[str, Any]
    """Record of the training of the weights; empty for random weights."""

    def __post_init__(self) -> None:
        """Require sizes in the range of the format, and an odd kernel size."""
        for name in ("height", "width", "kernel_size"):
            _check_range(name, getattr(self, name), 1, _MAX_SIDE)
        _check_range("halo", self.halo, 0, _MAX_SIDE)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")


@dataclass(frozen=True)
class Manifest:
    """The properties of a bundle, as recorded in its manifest file.

    Raises:
        ValueError: A number is out of range.
    """

    name: str
    """Name of the weights; only a label."""
    scale: int
    """Scale factor: SR side divided by LR side."""
    code_size: int
    """Number of components of a kernel code."""
    precision: Precision
    """Precision of the convolutions."""
    io: FrameIO
    """Layout and dtype of frames."""
    basis_id: str
    """Hash of the kernel basis (`KernelBasis.id`)."""
    weights_sha256: str
    """sha256 of the exported weights; equal for equal weights."""
    random_weights: bool
    """Whether the weights are random (seeded), for benchmarks only."""
    opset: int
    """Version of the ONNX operator set."""
    architecture: dict[str, Any]
    """Parameters of the networks."""
    training: dict[str, Any]
    """Record of the training of the weights; empty for random weights."""
    tools: dict[str, str]
    """Versions of the tools that wrote the bundle."""
    activation_bytes: dict[str, int]
    """Peak size of the tensors of each graph in float32: bytes for each LR pixel of a frame."""
    loop: str = IKC.name
    """Name of the loop in which the graphs run."""
    recommended_iters: int = IKC.iters
    """Number of corrections beyond which quality does not improve, measured on images; 0 if the
    predictor's code is as good. The default of an `Upscaler`."""
    parity: Parity | None = None
    """Differences of the graphs from torch in float32; None if not measured yet."""
    convolutions: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of Conv nodes of each graph by dtype."""
    verified: dict[str, Verification] = field(default_factory=dict)
    """Results of comparing engines with ONNX Runtime, by fingerprint of the engine."""
    usrnet: UsrnetRecord | None = None
    """Properties of the USRNet graph; None if there is none."""

    def __post_init__(self) -> None:
        """Require a supported scale, and numbers in the range of the format."""
        if self.scale not in SIGMA_RANGES:
            raise ValueError(f"scale must be one of {sorted(SIGMA_RANGES)}, got {self.scale}")
        graphs = find_loop(self.loop).graphs
        _check_range("code_size", self.code_size, 1, _MAX_CODES)
        _check_range("opset", self.opset, 1, 1000)
        _check_range("recommended_iters", self.recommended_iters, 0, _MAX_ITERS)
        listed = sorted(self.activation_bytes)
        if listed != sorted(graphs):
            raise ValueError(f"activation_bytes must list {', '.join(graphs)}, got {listed}")
        for name, size in self.activation_bytes.items():
            _check_range(f"activation_bytes of {name}", size, 1, _MAX_ACTIVATION_BYTES)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


@dataclass(frozen=True)
class _Sealed:
    """The whole content of a manifest file."""

    schema: int
    bundle: Manifest
    files: dict[str, FileRecord]
    manifest_sha256: str

    def __post_init__(self) -> None:
        if len(self.files) > _MAX_FILES:
            raise ValueError(f"{len(self.files)} files are more than {_MAX_FILES}")


class Bundle:
    """A verified bundle: graphs, kernel basis and engines of one set of weights.

    Created by `Bundle.open`. It keeps no files open, and may be shared between threads.

    Args:
        path: Folder of the bundle.
        manifest: The validated manifest.
        files: Records of the listed files by their path in the bundle.

    Example:
        >>> bundle = Bundle.open("x4.bundle")  # doctest: +SKIP
        >>> bundle.manifest.scale, bundle.manifest.precision  # doctest: +SKIP
        (4, 'fp16')
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        files: Mapping[str, FileRecord] = MappingProxyType({}),
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.files = files
        """Records of the listed files by their path in the bundle."""

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Bundle:
        """Open a bundle folder and verify all of its files.

        Args:
            path: The folder.

        Returns:
            The verified bundle.

        Raises:
            InputError: `path` is not a path.
            BundleError: The folder is not a bundle; the manifest is damaged, invalid or of another
                schema; a file is missing, truncated or altered; a path leads out of the folder; or
                the basis does not match the manifest. The message says how to fix it.
        """
        folder = path_argument(path, "the folder of a bundle")
        if is_interrupted(folder):
            with locked(folder):
                restore(folder)
        if not (folder / MANIFEST_FILE).is_file():
            raise BundleError(
                f"'{folder}' is not a bundle: it has no {MANIFEST_FILE}. Make one with ikc-export"
            )
        sealed = _read_manifest(folder)
        manifest, files = sealed.bundle, sealed.files
        _check_listing(folder, manifest, files)
        for name, record in files.items():
            verify_file(folder, name, record)
        if (manifest.usrnet is None) == (f"{USRNET}.onnx" in files):
            raise BundleError(
                f"the manifest of '{folder}' contradicts its list of files about {USRNET}.onnx; "
                f"{EXPORT_AGAIN}"
            )
        bundle = cls(folder, manifest, files)
        basis = bundle.basis
        if basis.id != manifest.basis_id or basis.code_size != manifest.code_size:
            raise BundleError(
                f"'{folder}' holds another kernel basis than its networks were trained with; "
                f"{EXPORT_AGAIN}"
            )
        return bundle

    @cached_property
    def basis(self) -> KernelBasis:
        """Kernel basis of the bundle's codes.

        Raises:
            BundleError: The file was altered since the bundle was opened.
        """
        if self.files[BASIS_FILE].bytes > _MAX_BASIS:
            raise BundleError(
                f"'{self.path / BASIS_FILE}' has {self.files[BASIS_FILE].bytes} bytes, more than "
                f"any kernel basis; {EXPORT_AGAIN}"
            )
        try:
            return KernelBasis.from_bytes(self.read(BASIS_FILE), str(self.path / BASIS_FILE))
        except KernelError as error:
            raise BundleError(f"{error}; {EXPORT_AGAIN}") from error

    @property
    def loop(self) -> Loop:
        """Loop in which the graphs run."""
        return find_loop(self.manifest.loop)

    @property
    def usrnet(self) -> UsrnetRecord:
        """Properties of the USRNet graph.

        Raises:
            BundleError: The bundle has no USRNet graph.
        """
        if self.manifest.usrnet is None:
            raise BundleError(
                f"'{self.path}' has no graph for known kernels; add it with: ikc-export "
                f"--bundle '{self.path}' --usrnet WEIGHTS"
            )
        return self.manifest.usrnet

    def graph(self, name: str) -> Path:
        """Return the path of an ONNX file, for messages and writers; to load it, use `graph_bytes`.

        Args:
            name: Name of a graph of the loop, or "usrnet" if the bundle has it.

        Returns:
            The path, which need not exist.
        """
        return self.path / f"{name}.onnx"

    def graph_bytes(self, name: str) -> bytes:
        """Return the verified content of the ONNX file of a graph.

        Args:
            name: Name of a graph of the loop, or "usrnet" if the bundle has it.

        Returns:
            The serialized ONNX model.

        Raises:
            BundleError: The bundle has no such graph, or the file was altered since the bundle was
                opened.
        """
        return self.read(f"{name}.onnx")

    def read(self, name: str) -> bytes:
        """Return the content of a listed file after verifying it again.

        Args:
            name: Path of the file in the bundle.

        Returns:
            The verified content.

        Raises:
            BundleError: The file is not listed, or was altered since the bundle was opened.
        """
        record = self.files.get(name)
        if record is None:
            raise BundleError(f"'{self.path}' does not list '{printable(name)}'")
        return read_verified(self.path, name, record)

    def unlisted(self) -> list[str]:
        """Return the paths in the folder that the manifest does not list; they are never read.

        Of a folder without listed files, only its own path is returned. Links are not followed.
        """
        parents = {
            parent.as_posix() for name in self.files for parent in PurePosixPath(name).parents
        }
        known = {*self.files, MANIFEST_FILE, *parents}
        found: list[str] = []

        def look(folder: Path) -> None:
            for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
                name = Path(entry.path).relative_to(self.path).as_posix()
                if name not in known:
                    found.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    look(Path(entry.path))

        look(self.path)
        return found


def listed_files(folder: Path) -> list[str]:
    """Return the files of a bundle folder, including the manifest.

    Only the manifest is read, so this also works for a bundle with damaged files.

    Args:
        folder: The bundle folder.

    Returns:
        Paths relative to the folder.

    Raises:
        BundleError: The manifest is missing, damaged or of another version.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise BundleError(f"'{folder}' is not a bundle: it has no {MANIFEST_FILE}")
    return [MANIFEST_FILE, *_read_manifest(folder).files]


def copy_verified(bundle: Bundle, names: Iterable[str], folder: Path) -> None:
    """Copy listed files of `bundle` to `folder` under the same names.

    Args:
        bundle: The opened bundle.
        names: Paths of the files in the bundle.
        folder: The target folder, which exists.

    Raises:
        BundleError: A file was altered since the bundle was opened.
    """
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(bundle.read(name))


def write_manifest(folder: Path, manifest: Manifest, files: Mapping[str, FileRecord]) -> None:
    """Seal `folder`: write a `manifest.json` that lists `files` and nothing else.

    Args:
        folder: The bundle folder.
        manifest: The properties of the bundle.
        files: Records of files that belong to a verified bundle (`Bundle.files`) or that the caller
            has just written (`record_files`). Other files in the folder are not part of the bundle.

    Raises:
        BundleError: The result could not be opened.
    """
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "bundle": asdict(manifest),
        "files": {name: asdict(files[name]) for name in sorted(files)},
    }
    values[_DIGEST_KEY] = _digest(values)
    try:
        data = json.dumps(values, indent=2, allow_nan=False).encode()
        read_settings(_Sealed, read_json(data))
        if len(data) > MAX_MANIFEST:
            raise ValueError(f"{len(data)} bytes are more than {MAX_MANIFEST}")
    except ValueError as error:
        raise BundleError(f"the manifest of '{folder}' cannot be written: {error}") from error
    _check_listing(folder, manifest, files)
    write_atomically(folder / MANIFEST_FILE, data)


def _read_manifest(folder: Path) -> _Sealed:
    path = folder / MANIFEST_FILE
    try:
        with open_listed(folder, MANIFEST_FILE) as file:
            data = file.read(MAX_MANIFEST + 1)
        if len(data) > MAX_MANIFEST:
            raise ValueError(f"it has more than {MAX_MANIFEST} bytes")
        values = read_json(data)
        schema = values["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"'{path}' is damaged ({error}); {EXPORT_AGAIN}") from error
    if isinstance(schema, bool) or not isinstance(schema, int) or schema > SCHEMA:
        raise BundleError(
            f"'{folder}' has schema {printable(schema, 40)}, newer than the {SCHEMA} that this "
            "version reads; upgrade with: pip install --upgrade ikc-deploy"
        )
    if schema < SCHEMA:
        raise BundleError(f"'{folder}' has schema {schema}, no longer read; {EXPORT_AGAIN}")
    if values.get(_DIGEST_KEY) != _digest(values):
        raise BundleError(
            f"'{path}' was altered after it was written: its digest differs; {EXPORT_AGAIN}"
        )
    try:
        return read_settings(_Sealed, values)
    except ValueError as error:
        raise BundleError(
            f"the manifest of '{folder}' is incomplete or invalid ({error}); {EXPORT_AGAIN}"
        ) from error


def _digest(values: dict[str, Any]) -> str:
    sealed = {key: value for key, value in values.items() if key != _DIGEST_KEY}
    return hashlib.sha256(json.dumps(sealed, sort_keys=True).encode()).hexdigest()


def _check_listing(folder: Path, manifest: Manifest, files: Mapping[str, FileRecord]) -> None:
    needed = {BASIS_FILE, *(f"{name}.onnx" for name in find_loop(manifest.loop).graphs)}
    if not needed <= set(files):
        missing = ", ".join(sorted(needed - set(files)))
        raise BundleError(f"the manifest of '{folder}' does not list {missing}; {EXPORT_AGAIN}")
    for name in files:
        relative = PurePosixPath(name)
        outside = relative.is_absolute() or ".." in relative.parts or "\\" in name
        if outside or PureWindowsPath(name).drive:
            raise outside_bundle(folder, name)
        long = any(len(part.encode()) > _LONGEST_NAME for part in relative.parts)
        if relative.as_posix() != name or name in (".", MANIFEST_FILE) or long:
            raise BundleError(
                f"the manifest of '{folder}' lists the invalid file name '{printable(name)}'; "
                f"{EXPORT_AGAIN}"
            )
