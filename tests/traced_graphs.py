"""One trace of each network in a run of all tests: torch's exporter takes seconds for a small one.

A trace depends on the module, the shapes of its inputs and the options of the exporter only. All
of these are part of the name under which it is kept, so other code, weights or shapes give another
trace.
"""

from __future__ import annotations

import functools
import hashlib
import marshal
import os
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from filelock import FileLock
from torch import nn

from ikc_deploy.files import write_atomically
from tests.bundles import EXPORTS


def keep_traces(patch: pytest.MonkeyPatch) -> None:
    """Let `torch.onnx.export` trace each module once; without `EXPORTS` every call traces."""
    export = torch.onnx.export

    def traced_once(model: Any, *args: Any, **options: Any) -> Any:
        folder = os.environ.get(EXPORTS)
        if folder is None or args or not isinstance(model, nn.Module):
            return export(model, *args, **options)
        kept = Path(folder) / f"{_identity(model, options)}.onnx"
        kept.parent.mkdir(exist_ok=True)
        # `ikc_deploy.locks` would write that it waits, where tests read what commands write.
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                _keep_registry(patch)
                program = export(model, **options)
                assert program is not None
                write_atomically(kept, program.model_proto.SerializeToString())
        return SimpleNamespace(model_proto=onnx.load_from_string(kept.read_bytes()))

    patch.setattr(torch.onnx, "export", traced_once)


def _keep_registry(patch: pytest.MonkeyPatch) -> None:
    """Make the exporter's table of operators once: each export would take half a second for it."""
    # Not before the first export, which imports it anyway.
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    made = ONNXRegistry.from_torchlib
    if not hasattr(made, "cache_info"):
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(made)))


def _identity(model: nn.Module, options: dict[str, Any]) -> str:
    """Return a checksum of all that a trace depends on.

    Objects whose text holds their address give a name of their own: they are never mistaken.
    """
    shapes = {
        name: {axis: getattr(dim, "__name__", dim) for axis, dim in axes.items()}
        for name, axes in options["dynamic_shapes"].items()
    }
    inputs = {name: (each.dtype, each.shape) for name, each in options["kwargs"].items()}
    facts = options | {"dynamic_shapes": shapes, "kwargs": inputs}
    digest = hashlib.sha256(repr(sorted(facts.items())).encode())
    for name, part in model.named_modules():
        settings = {key: value for key, value in vars(part).items() if not key.startswith("_")}
        hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
        digest.update(repr((name, type(part), part.extra_repr(), settings, hooks)).encode())
        for kind in type(part).__mro__:
            if kind.__module__.partition(".")[0] != "torch":
                _add_code(digest, kind)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(repr((name, tensor.dtype, tensor.shape)).encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _add_code(digest: Any, kind: type) -> None:
    for name, function in vars(kind).items():
        if isinstance(function, FunctionType):
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            digest.update(repr((name, cells)).encode() + marshal.dumps(function.__code__))
