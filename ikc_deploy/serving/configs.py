"""The config.pbtxt of every model in the repository, as text for operators to read and edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from string import Template
from typing import Final

from ikc_deploy.bundle.manifest import Manifest
from ikc_deploy.errors import InputError
from ikc_deploy.loops import IKC, Loop, find_loop
from ikc_deploy.runtime.estimation import TRACKED_ITERS
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.serving.loop import Limits

NAME: Final = "ikc"
"""Name of the model that clients call; the names of the others begin with it."""

STREAM_NAME: Final = f"{NAME}_stream"
"""Name of the model for sequences of frames."""

_WARM_SIDE: Final = 64


def default_limits(iters: int = IKC.iters) -> Limits:
    """Return the limits of a server whose requests default to `iters` corrections."""
    return Limits(
        smallest_side=MIN_SIDE,
        largest_area=1920 * 1080,
        default_iters=iters,
        tracked_iters=min(TRACKED_ITERS, iters),
        largest_iters=20,
        streams=256,
    )


@dataclass(frozen=True)
class ServingSettings:
    """The initial values of the model configurations, which can be edited later.

    Raises:
        InputError: A number is not above 0.
    """

    limits: Limits | None = None
    """Limits of requests; None for `default_limits` with the bundle's recommended corrections."""
    batch: int = 4
    """Maximum number of frames in a request, and that a network computes at once."""
    loops: int = 2
    """Number of instances of each of the two models that run the loop."""
    queue: int = 64
    """Maximum number of waiting requests; more are rejected."""
    queue_seconds: float = 30
    """Seconds that a request waits before it is rejected."""
    idle_seconds: float = 60
    """Seconds without a request after which a stream is forgotten."""

    def __post_init__(self) -> None:
        """Require positive numbers."""
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "limits" and not value > 0:
                raise InputError(f"{each.name} must be above 0, got {value}")


@dataclass(frozen=True)
class Plans:
    """The TensorRT plans of one network in the repository."""

    files: Mapping[str, str]
    """File name of the plan for each compute capability ("8.9")."""
    profiles: int
    """Number of optimisation profiles in each plan."""
    largest_batch: int
    """Maximum number of frames that all plans compute at once."""
    warm: tuple[int, int]
    """Height and width in LR pixels for which the plans are tuned."""


def network_config(
    network: str, manifest: Manifest, settings: ServingSettings, plans: Plans | None
) -> str:
    """Return the config.pbtxt of one network.

    Args:
        network: Name of a graph of the bundle's loop.
        manifest: Manifest of the bundle.
        settings: Initial values of the configuration.
        plans: TensorRT plans of the network; None for ONNX.
    """
    loop = find_loop(manifest.loop)
    inputs, outputs = loop.graph(network).inputs, loop.outputs(network, manifest.io)
    warm = plans.warm if plans else (_WARM_SIDE, _WARM_SIDE)
    largest = min(settings.batch, plans.largest_batch) if plans else settings.batch
    return _NETWORK.substitute(
        name=f"{NAME}_{network}",
        platform=_onnx() if plans is None else _tensorrt(plans),
        profile="" if plans is None else f" profile: {_list(map(str, range(plans.profiles)))}",
        batch=largest,
        inputs=_list_of_ports("input", inputs, manifest),
        outputs=_list_of_ports("output", outputs, manifest),
        warm="".join(_warm_input(name, manifest, warm) for name in inputs),
    )


def loop_config(name: str, manifest: Manifest, settings: ServingSettings, batch: int) -> str:
    """Return the config.pbtxt of a model that runs the correction loop.

    Args:
        name: `NAME` for independent requests, `STREAM_NAME` for sequences.
        manifest: Manifest of the bundle.
        settings: Initial values of the configuration.
        batch: Maximum batch size of the networks.
    """
    stream = name == STREAM_NAME
    limits = settings.limits or default_limits(manifest.recommended_iters)
    scheduling = (_SEQUENCES if stream else _REQUESTS).substitute(
        streams=limits.streams,
        idle=round(1e6 * settings.idle_seconds),
        queue=settings.queue,
        wait=round(1e6 * settings.queue_seconds),
    )
    return _LOOP.substitute(
        name=name,
        order=_order(find_loop(manifest.loop)),
        batch=batch,
        code_size=manifest.code_size,
        scheduling=scheduling,
        loops=settings.loops,
        facts=_parameters({"networks": NAME, "loop": manifest.loop, "scale": manifest.scale}),
        limits=_parameters(asdict(limits)),
    )


_NETWORK: Final = Template("""\
# One network of the loop; clients call the models "ikc" and "ikc_stream" instead.
name: "$name"
$platform
# Frames computed at once. Raise it, here and in "ikc", if the GPU has enough memory.
max_batch_size: $batch
$inputs$outputs
# Waiting requests are batched, up to max_batch_size; no request waits to fill a batch.
dynamic_batching { }
# One on every GPU, or one on the CPU where there is none.
instance_group { count: 1 kind: KIND_AUTO$profile }
model_warmup {
  name: "first request"
  batch_size: 1
$warm}
""")

_LOOP: Final = Template("""\
# The correction loop, on the server: $order.
name: "$name"
backend: "python"
# Frames in a request.
max_batch_size: $batch
input { name: "lr" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }
input { name: "iters" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
input { name: "sigma" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
output { name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }
output { name: "codes" data_type: TYPE_FP32 dims: [ -1, $code_size ] }
output { name: "sigma" data_type: TYPE_FP32 dims: [ 1 ] }
$scheduling
# Concurrent loops, each in a process; several keep the networks busy.
instance_group { count: $loops kind: KIND_CPU }
# Frames that arrive on a GPU stay there.
parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }
# Facts for clients and the loop.
$facts# Limits: requests beyond them are rejected. Areas are height times width of an LR frame.
$limits""")

_REQUESTS: Final = Template("""\
# If the queue is full, or a request has waited this long, clients get an error: the sign of
# overload.
dynamic_batching {
  default_queue_policy {
    max_queue_size: $queue
    timeout_action: REJECT
    default_timeout_microseconds: $wait
  }
}""")

_SEQUENCES: Final = Template("""\
# All requests of a sequence go to the same instance, which keeps the last code of each sequence.
sequence_batching {
  max_sequence_idle_microseconds: $idle
  oldest { max_candidate_sequences: $streams }
}""")


def _order(loop: Loop) -> str:
    first = "" if loop.start is None else f"{loop.start.name}, then "
    return f"{first}{loop.image.name} and {loop.update.name} in turn"


def _parameters(values: Mapping[str, object]) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in values.items()
    )


def _onnx() -> str:
    return 'platform: "onnxruntime_onnx"\ndefault_model_filename: "model.onnx"'


def _tensorrt(plans: Plans) -> str:
    lines = ['platform: "tensorrt_plan"']
    lines.append(f'default_model_filename: "{next(iter(plans.files.values()))}"')
    for capability, file in plans.files.items():
        lines.append(f'cc_model_filenames {{ key: "{capability}" value: "{file}" }}')
    return "\n".join(lines)


def _port(name: str, manifest: Manifest) -> tuple[str, tuple[int, ...]]:
    """Return type and dimensions of a tensor of a graph, without the batch dimension."""
    if name in ("lr", "frame"):
        return "TYPE_UINT8", (-1, -1, 3)
    if name == "sr":
        return ("TYPE_FP16" if manifest.precision == "fp16" else "TYPE_FP32"), (3, -1, -1)
    return "TYPE_FP32", (manifest.code_size,)


def _list_of_ports(kind: str, names: Sequence[str], manifest: Manifest) -> str:
    lines = []
    for name in names:
        data_type, dims = _port(name, manifest)
        lines.append(f'{kind} {{ name: "{name}" data_type: {data_type} dims: {_list(dims)} }}\n')
    return "".join(lines)


def _warm_input(name: str, manifest: Manifest, size: tuple[int, int]) -> str:
    data_type, dims = _port(name, manifest)
    side = manifest.scale if name == "sr" else 1
    sizes = iter((side * size[0], side * size[1]))
    filled = [next(sizes) if dim < 0 else dim for dim in dims]
    value = f"data_type: {data_type} dims: {_list(filled)} zero_data: true"
    return f'  inputs {{ key: "{name}" value {{ {value} }} }}\n'


def _list(values: Sequence[object] | map[str]) -> str:
    quoted = (f'"{value}"' if isinstance(value, str) else str(value) for value in values)
    return f"[ {', '.join(quoted)} ]"
