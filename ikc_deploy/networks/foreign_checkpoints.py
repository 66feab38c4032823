"""Checkpoints of other training code: the tensors of one network, wherever they lie in a file.

Forks of a publication save the same tensors in many ways: under names of wrappers (`state_dict`,
`params_ema`), with prefixes (`module.`, `netG.`), beside other networks, the state of an optimizer
and numbers. Wrappers and prefixes are the same here: all tensors get their full path as name, and
the network lies below the path at which most of its marks are found.

Files are read with `weights_only=True` or by safetensors, so nothing in them is executed. Objects
of the settings libraries that training code saves beside its weights are left out, also where these
libraries are not installed.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import safe_globals

from ikc_deploy.errors import CheckpointError, needs_extra

PathType = str | PathLike[str]

_MAX_BYTES: Final = 2**32
"""Maximum size of a file, and of what it unpacks to: several times the largest networks."""
_MOVING_AVERAGE: Final = "ema"
"""Part of the path of averaged weights, which training code uses for its results."""
_MATRIX_AXES: Final = 2
_MAX_PIXELS: Final = 127**2
"""Maximum number of rows of a PCA matrix."""
_OPTIMIZER: Final = re.compile(r"(^|\.)optim(izers?)?(_states?)?(\.|$)")
"""A part of a path that belongs to the state of a training and not to a network."""

_SETTINGS: Final = re.compile(
    r"(argparse|datetime|pathlib|numpy\.random|omegaconf|lightning|pytorch_lightning|lightning_fabric"
    r"|easydict|addict|yacs|munch|ml_collections|mmengine|mmcv)\.[\w.]+"
    r"|(builtins\.)?(dict|list|tuple|int|float|str|bool|slice)"
    r"|typing\.Any|collections\.(defaultdict|deque)"
)
"""Names of classes and functions for settings, which `_LeftOut` replaces."""


class _LeftOut:
    """Replaces a class or function of `_SETTINGS`; its objects become empty dicts."""

    def __new__(cls, *_: object) -> OrderedDict[str, object]:  # type: ignore[misc]
        # The unpickler sets items and attributes of this type only.
        return OrderedDict()


def _numpy_globals() -> list[Any]:
    """Return what pickles of arrays and numbers of numpy 1 and 2 name."""
    array, number = (value.__reduce__()[0] for value in (np.empty(0), np.float64(0)))
    dtypes = [type(np.dtype(code)) for code in "?bhilqBHILQefdSU"]
    return [np.ndarray, np.dtype, *dict.fromkeys(dtypes)] + [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((array, "_reconstruct"), (number, "scalar"))
    ]


@dataclass(frozen=True)
class NetworkMarks:
    """Names of tensors by which a network is recognised in a file."""

    own: tuple[str, ...]
    """Published names that every size of the network has."""
    foreign: tuple[str, ...] = ()
    """Names of other networks that share some of `own`."""


def read_network(path: PathType, marks: NetworkMarks) -> dict[str, Tensor]:
    """Return the tensors of one network under their published names.

    Args:
        path: A .pth file of torch.save, or a safetensors file. Nothing in it is executed.
        marks: Marks of the network.

    Returns:
        Dense tensors with storage, on the CPU, without gradients. If no mark is found, all tensors
        of the file under their full paths, so that the caller can list what is missing.

    Raises:
        CheckpointError: The file is missing, damaged, holds no named tensors, or holds the network
            several times; or a tensor has no values of its own (sparse, repeated, without storage).
    """
    content = _content(path)
    tensors = dict(_named(content, (), set())) if isinstance(content, dict) else {}
    if isinstance(content, dict) and _is_training_state(content, tensors):
        raise CheckpointError(
            f"'{fspath(path)}' is the state of a training (optimizers and schedulers) without the "
            "network; give the file of the network, which training code saves beside it"
        )
    if not tensors and not (isinstance(content, dict) and not content):
        raise CheckpointError(
            f"'{fspath(path)}' does not hold a state dict of named tensors, but {_kind(content)}"
        )
    prefix = _prefix(set(tensors), marks, path)
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    _refuse_without_values(own, path)
    return own


def read_matrix(path: PathType) -> Tensor:
    """Return the matrix in a file: .pth, .safetensors, .npy, .npz or .mat with one matrix.

    Args:
        path: The file. Nothing in it is executed.

    Returns:
        `[rows, columns]` of any type of numbers, not more than 127 * 127 on an axis.

    Raises:
        CheckpointError: The file is missing, damaged or holds no matrix, or several.
        MissingExtraError: It is a .mat file, and the `evaluation` extra is not installed.
    """
    source = fspath(path)
    suffix = Path(source).suffix.lower()
    if suffix in (".csv", ".txt"):
        raise CheckpointError(
            f"'{source}' is a text file, which is not read; convert it with numpy.save('pca.npy', "
            "numpy.loadtxt(FILE, delimiter=','))"
        )
    if suffix == ".mat":
        content: Any = _matlab_content(path)
    else:
        content = _numpy_content(path) if suffix in (".npy", ".npz") else _content(path)
    named = {"": content} if isinstance(content, Tensor | np.ndarray) else content
    if not isinstance(named, dict):
        raise CheckpointError(
            f"'{source}' does not hold a PCA matrix [pixels, code_size], but {_kind(content)}"
        )
    found = {k: v for k, v in _named(named, (), set()) if v.ndim == _MATRIX_AXES}
    if len(found) != 1:
        raise CheckpointError(
            f"'{source}' holds {len(found)} matrices, where one PCA matrix [pixels, code_size] is "
            "expected; save it alone, with torch.save or numpy.save"
        )
    (matrix,) = found.values()
    _refuse_without_values({"the PCA matrix": matrix}, path)
    if 0 in matrix.shape or max(matrix.shape) > _MAX_PIXELS:
        raise CheckpointError(
            f"'{source}' does not hold a PCA matrix [pixels, code_size], but one of shape "
            f"{list(matrix.shape)}"
        )
    return matrix


def _named(
    content: dict[Any, Any], above: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors and arrays of numbers in nested dicts with their paths.

    A dict within itself is left out.
    """
    seen.add(id(content))
    for key, value in content.items():
        path = (*above, str(key)) if str(key) else above
        if isinstance(value, Tensor) and isinstance(key, str):
            yield ".".join(path), value.detach()
        elif isinstance(value, np.ndarray) and isinstance(key, str) and _has_numbers(value):
            yield ".".join(path), _tensor(value)
        elif isinstance(value, dict) and id(value) not in seen:
            yield from _named(value, path, seen)


def _is_training_state(content: dict[Any, Any], tensors: dict[str, Tensor]) -> bool:
    """Return whether a file holds optimizers and no network."""
    if "param_groups" in content:
        return True
    if tensors:
        return all(map(_OPTIMIZER.search, tensors))
    return any(_OPTIMIZER.search(str(key)) for key in content)


def _prefix(names: set[str], marks: NetworkMarks, path: PathType) -> str:
    """Return the beginning of the names of a network's tensors; "" if it is not in the file."""
    votes = Counter(
        name.removesuffix(mark)
        for mark in marks.own
        for name in names
        if name == mark or name.endswith(f".{mark}")
    )
    for prefix in [p for p in votes if any(p + mark in names for mark in marks.foreign)]:
        del votes[prefix]
    if not votes:
        return ""
    most = max(votes.values())
    best = sorted(prefix for prefix, count in votes.items() if count == most)
    averaged = [prefix for prefix in best if _MOVING_AVERAGE in prefix.lower()]
    if len(best) > 1 and len(averaged) != 1:
        shown = ", ".join(repr(prefix.rstrip(".")) for prefix in best[:4])
        raise CheckpointError(
            f"'{fspath(path)}' holds the network {len(best)} times, at {shown}; save the one that "
            "you want in a separate file"
        )
    return averaged[0] if averaged else best[0]


def _refuse_without_values(tensors: dict[str, Tensor], path: PathType) -> None:
    """Raise `CheckpointError` if a tensor is not an array with all its values in memory."""
    for name, value in tensors.items():
        if value.layout != torch.strided:
            problem = "is sparse; save it as value.to_dense()"
        elif value.is_meta:
            problem = "has no values (it is on the meta device); save the trained network"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            problem = "repeats values of a smaller one; save it as value.clone()"
        else:
            continue
        raise CheckpointError(f"'{fspath(path)}' cannot be used: {name} {problem}")


def _content(path: PathType) -> Any:
    """Return what a .pth or safetensors file holds; its content decides, not its suffix."""
    source = fspath(path)
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
            size = file.seek(0, 2)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file at '{source}'") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"'{source}' cannot be read: {reason}") from error
    if size > _MAX_BYTES:
        raise CheckpointError(f"'{source}' has {size} bytes, more than {_MAX_BYTES}")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        return _safetensors(source)
    if head.startswith(b"PK"):
        _check_archive(source)
    _refuse_text(head, source)
    return _torch_content(source)


def _safetensors(source: str) -> dict[str, Tensor]:
    try:
        with safe_open(source, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"'{source}' is not a readable safetensors file ({error}); download it again"
        ) from error


def _torch_content(source: str) -> Any:
    left_out: dict[str, Any] = {}
    while True:
        try:
            with warnings.catch_warnings(), safe_globals([*_numpy_globals(), *left_out.values()]):
                # Of an unusual pickle protocol, which is an error here.
                warnings.simplefilter("ignore", UserWarning)
                return torch.load(source, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL ([\w.]+)", str(error))
            name = "" if found is None else found[1]
            # Also names that torch refuses even if they are allowed.
            if name in left_out or not _SETTINGS.fullmatch(name):
                raise CheckpointError(_not_only_tensors(source, str(error))) from error
            left_out[name] = (_LeftOut, name if "." in name else f"builtins.{name}")
        except MemoryError as error:
            raise CheckpointError(
                f"'{source}' is damaged, or too large for the memory of this machine"
            ) from error
        except Exception as error:
            # torch.load raises many types for files that it did not write, most without a message.
            raise CheckpointError(
                f"'{source}' is not a readable .pth file: torch.save did not write it, or it is "
                "incomplete; download it again"
            ) from error


def _not_only_tensors(source: str, reason: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", reason)
    if found is not None:
        problem = f"holds {found[1]}, and only tensors are read (weights_only=True)"
    elif "pickle protocol" in reason or "operand" in reason:
        problem = "was written with another pickle protocol than torch.save's, or is damaged"
    else:
        problem = "is damaged or holds more than tensors, and only tensors are read"
    return (
        f"'{source}' {problem}. If you trust the file, load it where it was made and save its "
        "state_dict() alone: torch.save(network.state_dict(), FILE)"
    )


def _check_archive(source: str) -> None:
    """Refuse ZIP files that torch.load reads badly, or that unpack to far more than they are."""
    try:
        with zipfile.ZipFile(source) as archive:
            files = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            f"'{source}' is not a readable .pth file: it is cut short or damaged ({error}); "
            "download it again"
        ) from error
    names = [file.filename for file in files]
    inner = [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".npy"))]
    if inner or not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(
            f"'{source}' is a ZIP file with {', '.join(inner or names[:2]) or 'nothing'}; unpack "
            "it, and give the .pth file"
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"'{source}' is a TorchScript program, which is not run; save its weights with "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    total = sum(file.file_size for file in files)
    if total > _MAX_BYTES:
        raise CheckpointError(f"'{source}' unpacks to {total} bytes, more than {_MAX_BYTES}")


def _refuse_text(head: bytes, source: str) -> None:
    """Refuse pages and pointers that a browser or git saved in place of the file."""
    line = head[:60].split(b"\n")[0].strip()
    if line and all(32 <= byte < 127 for byte in line) and len(line) > 8:
        raise CheckpointError(
            f"'{source}' is text and not a checkpoint: it begins with '{line.decode()}'; download "
            "the file itself"
        )


def _numpy_content(path: PathType) -> dict[str, Tensor]:
    try:
        # Mapped or opened lazily: a header may claim more than the file holds.
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else _archived(loaded)
        return {name: _tensor(array) for name, array in arrays.items()}
    except FileNotFoundError:
        raise CheckpointError(f"there is no file at '{fspath(path)}'") from None
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # numpy raises half a dozen types for damaged files
        raise CheckpointError(
            f"'{fspath(path)}' cannot be read as numpy arrays of numbers: {error}"
        ) from error


def _has_numbers(array: NDArray[Any]) -> bool:
    """Return whether an array can be a tensor; a damaged file may claim any size."""
    return array.dtype.kind in "fiub" and array.nbytes <= _MAX_BYTES


def _tensor(array: NDArray[Any]) -> Tensor:
    """Return a copy of an array of any byte order."""
    return torch.from_numpy(np.array(array.astype(array.dtype.newbyteorder("="))))


def _matlab_content(path: PathType) -> dict[str, Tensor]:
    """Return the matrices of a .mat file without numbers and vectors, which are matrices there."""
    with needs_extra("evaluation", "ikc-import --pca FILE.mat"):
        import scipy.io
    source = fspath(path)
    try:
        arrays = scipy.io.loadmat(source)
    except FileNotFoundError:
        raise CheckpointError(f"there is no file at '{source}'") from None
    except MemoryError:
        raise
    except NotImplementedError as error:
        raise CheckpointError(
            f"'{source}' is a MATLAB file of version 7.3, which is not read; save its matrix M in "
            "MATLAB with save('pca.mat', 'M', '-v7')"
        ) from error
    except Exception as error:  # scipy raises half a dozen types for damaged files
        raise CheckpointError(f"'{source}' is not a readable MATLAB file: {error}") from error
    return {
        name: _tensor(array)
        for name, array in arrays.items()
        if isinstance(array, np.ndarray)
        and array.dtype.kind in "fiu"
        and array.ndim == _MATRIX_AXES
        and min(array.shape) > 1
    }


def _archived(loaded: Any) -> dict[str, Any]:
    with loaded as arrays:
        files = arrays.zip.infolist()
        if sum(file.file_size for file in files) > 8 * _MAX_PIXELS**2:
            raise ValueError("its arrays are too large for a PCA matrix")
        return {name: arrays[name] for name in arrays.files}


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(repr(str(key)[:40]) for key in list(content)[:4])
        return f"a dict without tensors ({keys})"
    if isinstance(content, Tensor):
        return f"one tensor of shape {list(content.shape)}"
    return f"an object of type {type(content).__name__}"
