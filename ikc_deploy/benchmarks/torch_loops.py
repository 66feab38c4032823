"""The candidates of plain torch: the networks of the paper in a loop.

"reference-loop" is the loop as IKC's authors describe and run it: every step copies the image and
the code to the host before the next one starts, and the correction that follows the last image is
computed and discarded. The others run the loop of the weights and keep everything on the device.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ikc_deploy.benchmarks.case import BenchmarkCase, Subject, planes_of
from ikc_deploy.benchmarks.runners import LastImage, StageClock, Timing
from ikc_deploy.errors import InputError
from ikc_deploy.loops import CODE, LR, SR, Loop
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.networks.weights_loader import load_weights


@dataclass(frozen=True)
class TorchSettings:
    """The settings of a torch loop."""

    channels_last: bool = False
    """Whether tensors have the memory format channels_last."""
    compile: bool = False
    """Whether the networks are compiled with torch.compile."""
    bfloat16: bool = False
    """Whether convolutions and products are computed in bfloat16, by torch.autocast."""
    round_trips: bool = False
    """Whether image and code are copied to the host after every step, and the last correction is
    computed too."""


class TorchLoopRunner(LastImage):
    """A runner of the plain networks, on the GPU if torch finds one, else on the CPU.

    Args:
        subject: What is measured: weights, as a bundle holds only graphs.
        case: Size and number of frames, corrections and threads.
        settings: How torch runs the networks.

    Raises:
        InputError: The subject is a bundle.
    """

    library = "torch"

    def __init__(self, subject: Subject, case: BenchmarkCase, settings: TorchSettings) -> None:
        if subject.weights is None:
            raise InputError(
                "torch needs weights, but a bundle holds only graphs; give --weights instead"
            )
        torch.set_num_threads(case.threads or torch.get_num_threads())
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._networks = load_weights(subject.weights).networks
        self._case = case
        self._settings = settings
        self.precision = "bf16" if settings.bfloat16 else "fp32"
        self._frames = case.frames()
        self._modules: dict[str, Any] = {
            name: self._prepared(module) for name, module in self._networks.modules().items()
        }

    def run(self) -> Timing:
        """Run one call on the case's frames and return its times."""
        clock = StageClock(self._synchronize)
        started = time.perf_counter()
        autocast = torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._settings.bfloat16
        )
        with torch.inference_mode(), autocast:
            lr = self._on_device(torch.from_numpy(planes_of(self._frames)))
            sr = self._loop(lr, clock)
            self._image = (
                (255 * sr.float())
                .round()
                .clamp(0, 255)
                .to(torch.uint8)
                .permute(0, 2, 3, 1)
                .cpu()
                .numpy()
            )
        return Timing(1e3 * (time.perf_counter() - started), clock.stages)

    def macs(self) -> int | None:
        """Return the multiply-accumulates of one call, counted on tensors without memory."""
        counted = {name: _macs(self._networks, name, self._case) for name in self._modules}
        loop = self._networks.loop
        passes = loop.passes(self._case.iters)
        if self._settings.round_trips:
            passes[loop.update.name] += 1
        return sum(count * counted[name] for name, count in passes.items())

    def close(self) -> None:
        """Free the networks."""
        self._modules.clear()

    def _prepared(self, module: nn.Module) -> Any:
        module = module.to(self._device)
        if self._settings.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(module) if self._settings.compile else module

    def _on_device(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self._device)
        if self._settings.channels_last and tensor.ndim == 4:
            return tensor.to(memory_format=torch.channels_last)
        return tensor

    def _loop(self, lr: Tensor, clock: StageClock) -> Tensor:
        loop, trips = self._networks.loop, self._settings.round_trips

        def run(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
            tensors = inputs.values()
            output = clock.time(name, self._modules[name], *tensors)
            output = self._round_trip(output) if trips and name != _start(loop) else output
            return {loop.outputs(name, "float")[0]: output}

        start = None
        if loop.start is None:
            first = np.tile(self._networks.basis.delta_code(), (len(lr), 1))
            start = self._on_device(torch.from_numpy(first))
        for code, images in loop.walk(run, lr, start, self._case.iters):  # noqa: B007
            pass
        if trips:
            # The authors' loop computes a further correction and discards it.
            values = {LR: lr, SR: images[SR], CODE: code}
            run(loop.update.name, {name: values[name] for name in loop.update.inputs})
        image: Tensor = images[SR]
        return image

    def _round_trip(self, tensor: Tensor) -> Tensor:
        host = tensor.float().cpu().numpy()
        return self._on_device(torch.from_numpy(host.copy()))

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def _start(loop: Loop) -> str | None:
    """Return the name of the start graph; None if the loop has none."""
    return None if loop.start is None else loop.start.name


def _macs(networks: LoopNetworks, name: str, case: BenchmarkCase) -> int:
    """Return the multiply-accumulates of one pass: those of convolutions and matrix products."""
    scale, size = networks.architecture.scale, networks.architecture.code_size
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        lr = torch.empty(case.batch, 3, case.height, case.width)
        sr = torch.empty(case.batch, 3, scale * case.height, scale * case.width)
        code = torch.empty(case.batch, size)
        tensors = {LR: lr, SR: sr, CODE: code}
        inputs = [tensors[each] for each in networks.loop.graph(name).inputs]
        with FlopCounterMode(display=False) as counter:
            networks.modules()[name](*inputs)
    return int(counter.get_total_flops()) // 2
