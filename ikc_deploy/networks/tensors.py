"""Reading of safetensors files with their metadata, and loading of tensors into networks.

Every kind of checkpoint of this project uses it. Loading never unpickles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ikc_deploy.errors import CheckpointError

_LISTED: Final = 12


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Args:
        path: File to read. Nothing in it is executed.
        kind: Required value of `format` in the metadata.

    Returns:
        The tensors by name, on the CPU, and the metadata.

    Raises:
        CheckpointError: The file is missing, damaged or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at '{path}'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"'{path}' is not a readable safetensors file ({error}). "
            "Convert .pth files of the reference with ikc-import"
        ) from error
    if metadata.get("format") != kind:
        raise CheckpointError(
            f"'{path}' is not an {kind.rpartition(' ')[0]}: its format is "
            f"{metadata.get('format')!r}, but '{kind}' is needed. Convert checkpoints of other "
            "training code with ikc-import"
        )
    return tensors, metadata


def fill(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], problem: str) -> None:
    """Fill modules from tensors named `MODULE.key`, or `key` for a single module named "".

    Args:
        modules: Modules by name, changed in place.
        tensors: Weights by name.
        problem: Beginning of the error message.

    Raises:
        CheckpointError: Tensors are missing, unexpected, wrongly shaped, not floating point or not
            finite in float32; all of them are listed, and nothing was loaded.
    """
    prefixes = {name: f"{name}." if name else "" for name in modules}
    expected = {
        prefixes[name] + key: value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    shapes = [
        f"{key} is {list(tensors[key].shape)}, not {list(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    weights = {
        key: tensors[key]
        for key, value in expected.items()
        if key in tensors and value.is_floating_point()
    }
    problems = {
        "missing": sorted(set(expected) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(expected)),
        "wrong shape": shapes,
    }
    problems |= unusable(weights)
    if any(problems.values()):
        parts = [f"{kind}: {_listing(items)}" for kind, items in problems.items() if items]
        raise CheckpointError(f"{problem}: " + "; ".join(parts))
    for name, module in modules.items():
        prefix = prefixes[name]
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        module.load_state_dict(own)


def unusable(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of tensors that cannot be weights, by reason; empty lists if all can.

    Weights are floating point (whole numbers are quantized or damaged ones) and finite in float32.
    """
    dtypes = {key: str(value.dtype).removeprefix("torch.") for key, value in tensors.items()}
    real = {key: value for key, value in tensors.items() if value.is_floating_point()}
    return {
        "not floating point": [f"{key} is {dtypes[key]}" for key in tensors if key not in real],
        "NaN or infinite": [
            key for key, value in real.items() if not bool(value.float().isfinite().all())
        ],
    }


def refuse_unusable(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise `CheckpointError` if tensors of the file `source` are `unusable`; name them."""
    for reason, names in unusable(tensors).items():
        if names:
            raise CheckpointError(f"'{source}' cannot be used: {reason}: {_listing(names)}")


def _listing(items: list[str]) -> str:
    shown = ", ".join(items[:_LISTED])
    return shown if len(items) <= _LISTED else f"{shown} and {len(items) - _LISTED} more"
