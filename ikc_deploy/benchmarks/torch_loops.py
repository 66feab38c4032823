"""The candidates of plain torch: the networks of the paper in a loop.

"reference-loop" is the loop as IKC's authors describe and run it: every step copies the image and
the code to the host before the next one starts, and the correction that follows the last image is
computed and discarded. The others run Algorithm 1 and keep everything on the device.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ikc_deploy.benchmarks.case import BenchmarkCase, Subject, planes_of
from ikc_deploy.benchmarks.runners import StageClock, Timing
from ikc_deploy.errors import InputError
from ikc_deploy.networks.loop_networks import IkcNetworks
from ikc_deploy.networks.weights_loader import load_weights


@dataclass(frozen=True)
class TorchSettings:
    """The settings of a torch loop."""

    channels_last: bool = False
    """Whether tensors have the memory format channels_last."""
    compile: bool = False
    """Whether the networks are compiled with torch.compile."""
    round_trips: bool = False
    """Whether image and code are copied to the host after every step, and the last correction is
    computed too."""


class TorchLoopRunner:
    """A runner of the plain networks in float32, on the GPU if torch finds one, else on the CPU.

    Args:
        subject: What is measured: weights, as a bundle holds only graphs.
        case: Size and number of frames, corrections and threads.
        settings: How torch runs the networks.

    Raises:
        InputError: The subject is a bundle.
    """

    precision = "fp32"
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
        self._frames = case.frames()
        self._image: NDArray[np.uint8] | None = None
        self._modules: dict[str, Any] = {
            name: self._prepared(module) for name, module in self._networks.modules().items()
        }

    def run(self) -> Timing:
        """Run one call on the case's frames and return its times."""
        clock = StageClock(self._synchronize)
        started = time.perf_counter()
        with torch.inference_mode():
            lr = self._on_device(torch.from_numpy(planes_of(self._frames)))
            code = clock.time("predictor", self._modules["predictor"], lr)
            sr = self._loop(lr, code, clock)
            self._image = (255 * sr).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return Timing(1e3 * (time.perf_counter() - started), clock.stages)

    def image(self) -> NDArray[Any]:
        """Return the result of the last call, `[N,sH,sW,3]` uint8.

        Raises:
            ValueError: There was no call yet.
        """
        if self._image is None:
            raise ValueError("no image before the first call; call run() first")
        return self._image

    def macs(self) -> int | None:
        """Return the multiply-accumulates of one call, counted on tensors without memory."""
        counted = {name: _macs(self._networks, name, self._case) for name in self._modules}
        steps = self._case.iters + 1
        corrections = steps if self._settings.round_trips else steps - 1
        total = counted["predictor"] + steps * counted["sftmd"]
        return total + corrections * counted["corrector"]

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

    def _loop(self, lr: Tensor, code: Tensor, clock: StageClock) -> Tensor:
        sftmd, corrector = self._modules["sftmd"], self._modules["corrector"]
        last = self._case.iters
        for step in range(last + 1):
            sr = clock.time("sftmd", sftmd, lr, code)
            if self._settings.round_trips:
                sr = self._round_trip(sr)
            if step < last or self._settings.round_trips:
                code = clock.time("corrector", corrector, sr, code)
            if self._settings.round_trips:
                code = self._round_trip(code)
        return sr

    def _round_trip(self, tensor: Tensor) -> Tensor:
        host = tensor.float().cpu().numpy()
        return self._on_device(torch.from_numpy(host.copy()))

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def _macs(networks: IkcNetworks, name: str, case: BenchmarkCase) -> int:
    """Return the multiply-accumulates of one pass: those of convolutions and matrix products."""
    scale, size = networks.architecture.scale, networks.architecture.code_size
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        lr = torch.empty(case.batch, 3, case.height, case.width)
        sr = torch.empty(case.batch, 3, scale * case.height, scale * case.width)
        code = torch.empty(case.batch, size)
        inputs = {"predictor": (lr,), "sftmd": (lr, code), "corrector": (sr, code)}[name]
        with FlopCounterMode(display=False) as counter:
            networks.modules()[name](*inputs)
    return int(counter.get_total_flops()) // 2
