"""The config.pbtxt of every model in the repository, as text that operators read and change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from string import Template
from typing import Final

from ikc_deploy.bundle.manifest import DEFAULT_ITERS, GRAPHS, Manifest
from ikc_deploy.errors import InputError
from ikc_deploy.runtime.frames import MIN_SIDE
from ikc_deploy.serving.loop import Limits

NAME: Final = "ikc"
"""The model that clients ask; the others' names begin with it."""

STREAM_NAME: Final = f"{NAME}_stream"
"""The model for sequences of frames."""

_WARM_SIDE: Final = 64


def default_limits(iters: int = DEFAULT_ITERS) -> Limits:
    """Return the limits of a server that corrects `iters` times unless a request says otherwise."""
    return Limits(
        smallest_side=MIN_SIDE,
        largest_area=1920 * 1080,
        default_iters=iters,
        tracked_iters=min(1, iters),
        largest_iters=20,
        streams=256,
    )


@dataclass(frozen=True)
class ServingSettings:
    """What the configurations say at first; all of it can be changed in them later."""

    limits: Limits | None = None
    """None for `default_limits` with the corrections that the bundle recommends."""
    batch: int = 4
    """Frames in a request at most, and that a network computes at once."""
    loops: int = 2
    """Instances of each of the two models that run the loop."""
    queue: int = 64
    """Requests that wait before more are refused."""
    queue_seconds: float = 30
    """How long a request waits before it is refused."""
    idle_seconds: float = 60
    """How long a stream may be silent before it is forgotten."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name != "limits" and not value > 0:
                raise InputError(f"{each.name} must be above 0, got {value}")


@dataclass(frozen=True)
class Plans:
    """The TensorRT plans of one network in the repository."""

    files: Mapping[str, str]
    """Name of the plan for every compute capability ("8.9")."""
    profiles: int
    """Optimisation profiles in each."""
    largest_batch: int
    warm: tuple[int, int]
    """Height and width that they are tuned for."""


def network_config(
    network: str, manifest: Manifest, settings: ServingSettings, plans: Plans | None
) -> str:
    """The configuration of "predictor", "sftmd" or "corrector"; ONNX unless there are `plans`."""
    inputs, outputs = _PORTS[network]
    warm = plans.warm if plans else (_WARM_SIDE, _WARM_SIDE)
    largest = min(settings.batch, plans.largest_batch) if plans else settings.batch
    return _NETWORK.substitute(
        name=f"{NAME}_{network}",
        platform=_onnx() if plans is None else _tensorrt(plans),
        profile="" if plans is None else f" profile: {_list(map(str, range(plans.profiles)))}",
        batch=largest,
        inputs=_list_of_ports(inputs, manifest),
        outputs=_list_of_ports(outputs, manifest),
        warm="".join(_warm_input(name, manifest, warm) for name in inputs),
    )


def loop_config(name: str, manifest: Manifest, settings: ServingSettings, batch: int) -> str:
    """The configuration of the model that runs the loop, for requests or (`STREAM_NAME`) streams.

    `batch` is the largest batch of the networks.
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
        batch=batch,
        code_size=manifest.code_size,
        scheduling=scheduling,
        loops=settings.loops,
        facts=_parameters({"networks": NAME, "scale": manifest.scale}),
        limits=_parameters(asdict(limits)),
    )


_PORTS: Final = dict(
    zip(
        GRAPHS,
        (
            (("lr",), ("code",)),
            (("lr", "code"), ("sr", "frame")),
            (("sr", "code"), ("next_code",)),
        ),
        strict=True,
    )
)

_NETWORK: Final = Template("""\
# One network of IKC; clients ask the models "ikc" and "ikc_stream" instead.
name: "$name"
$platform
# Frames that are computed at once. Raise it, here and in "ikc", if the GPU has room.
max_batch_size: $batch
$inputs$outputs
# Whatever waits is put together, up to max_batch_size; nothing waits for company.
dynamic_batching { }
# One on every GPU, or one on the CPU where there is none.
instance_group { count: 1 kind: KIND_AUTO$profile }
model_warmup {
  name: "first request"
  batch_size: 1
$warm}
""")

_LOOP: Final = Template("""\
# The correction loop, on the server: predictor, then sftmd and corrector in turn.
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
# Loops that run at once. Each is a process; together they keep the networks busy.
instance_group { count: $loops kind: KIND_CPU }
# Frames that arrive on a GPU stay there.
parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }
# What clients and the loop must know.
$facts# Limits: what lies beyond them is refused. Areas are height times width of an LR frame.
$limits""")

_REQUESTS: Final = Template("""\
# Past this queue, and after this wait, clients get an error at once: that is how they learn of
# overload.
dynamic_batching {
  default_queue_policy {
    max_queue_size: $queue
    timeout_action: REJECT
    default_timeout_microseconds: $wait
  }
}""")

_SEQUENCES: Final = Template("""\
# All requests of a sequence reach the same instance, which remembers the last code of each.
sequence_batching {
  max_sequence_idle_microseconds: $idle
  oldest { max_candidate_sequences: $streams }
}""")


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
    """Type and dimensions of a graph's tensor, without the batch."""
    if name in ("lr", "frame"):
        return "TYPE_UINT8", (-1, -1, 3)
    if name == "sr":
        return ("TYPE_FP16" if manifest.precision == "fp16" else "TYPE_FP32"), (3, -1, -1)
    return "TYPE_FP32", (manifest.code_size,)


def _list_of_ports(names: Sequence[str], manifest: Manifest) -> str:
    kind = "input" if names in {inputs for inputs, _ in _PORTS.values()} else "output"
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
