"""Both sides of the parity gate: networks in torch, and written graphs in ONNX Runtime.

They run on the same inputs, the probes: LR frames with correct codes, and with codes near both ends
of the range, far from the loop's fixed point, where the code has to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import ExportError
from ikc_deploy.export.rounding import Rounding
from ikc_deploy.export.widening import widened
from ikc_deploy.imaging.degrade import degrade_gaussian
from ikc_deploy.imaging.synthetic import structured_image
from ikc_deploy.loops import CODE, FRAME, LR, NEXT_CODE, SR, Loop
from ikc_deploy.networks.loop_networks import LoopNetworks
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.backends.onnx_sessions import EXACT_INT8
from ikc_deploy.runtime.frames import LAYOUTS, frame_shape
from ikc_deploy.runtime.session import Session

PARITY_ITERS: Final = 3
"""Number of corrections in the compared loop."""

FAR: Final = (0.1, 0.9)
"""Sigmas of codes far from the fixed point, as shares of the sigma range."""

_SIDE: Final = 24
"""Side of LR frames, in pixels."""
_FRAMES: Final = 6
"""Number of frames for a start graph, which has few outputs per frame."""
_CORRECTED: Final = 2
"""Number of frames for the other graphs; each frame is used with several codes."""
_SIGMAS: Final = (0.3, 0.8, 0.5, 0.2, 0.65, 0.4)
"""Sigmas of the blurs, as shares of the sigma range."""

Outputs = dict[str, list[NDArray[Any]]]
"""Outputs (codes or `sr`) by graph, for each of its inputs."""


@dataclass(frozen=True)
class Probes:
    """Inputs of the comparisons."""

    lr: NDArray[np.uint8]
    """LR frames `[_FRAMES,H,W,3]`."""
    codes: list[Tensor]
    """Kernel codes `[_CORRECTED,code_size]` each, float64."""
    srs: list[Tensor]
    """SR images for these codes, as input of the update graph, float64."""

    @property
    def planes(self) -> Tensor:
        """LR frames as input of the networks: `[_FRAMES,3,H,W]` float64 in [0,1]."""
        return torch.from_numpy(self.lr.transpose(0, 3, 1, 2).astype(np.float64) / 255)


def make_probes(networks: LoopNetworks) -> tuple[Probes, Outputs]:
    """Return the inputs of all comparisons, and the outputs of the networks in float64."""
    settings = networks.architecture
    low, high = settings.sigma_range
    lr = np.stack(
        [
            degrade_gaussian(
                structured_image(_SIDE * settings.scale, seed),
                low + _SIGMAS[seed] * (high - low),
                settings.scale,
            )
            for seed in range(_FRAMES)
        ]
    )
    double = {name: deepcopy(module).double() for name, module in networks.modules().items()}
    start = Probes(lr, [], [])
    with torch.no_grad():
        # The codes of the start graph; without one, the codes of the blurs.
        sigmas = [low + share * (high - low) for share in _SIGMAS]
        codes = [torch.from_numpy(networks.basis.code_of_sigma(sigmas)).double()]
        if networks.loop.start is not None:
            codes = [double[networks.loop.start.name](start.planes)]
        sigmas = [low + share * (high - low) for share in FAR]
        far = [torch.from_numpy(networks.basis.code_of_sigma(sigma)).double() for sigma in sigmas]
        codes = [codes[0][:_CORRECTED], *(each.expand(_CORRECTED, -1) for each in far)]
        srs = [
            _update_input(
                networks.loop, double[networks.loop.image.name](start.planes[:_CORRECTED], each)
            )
            for each in codes
        ]
    probes = Probes(lr, codes, srs)
    return probes, run_networks(networks.loop, double, probes, dtype=torch.float64)


def _update_input(loop: Loop, image: Tensor) -> Tensor:
    """Return images as the update graph of a loop reads them."""
    return image.clamp(0.0, 1.0) if loop.clamped else image


def run_networks(
    loop: Loop,
    modules: Mapping[str, nn.Module],
    probes: Probes,
    rounding: Rounding | None = None,
    dtype: torch.dtype = torch.float32,
) -> Outputs:
    """Run torch modules in `dtype`; with `rounding`, activations are rounded."""

    def apply(name: str, values: Mapping[str, Tensor]) -> Tensor:
        inputs = [values[each].to(dtype) for each in loop.graph(name).inputs]
        with rounding.of_activations(modules[name]) if rounding else nullcontext():
            output: Tensor = modules[name](*inputs)
        if name != loop.image.name:
            return output
        image = _update_input(loop, output)
        return rounding.of_image(image) if rounding else image

    outputs: Outputs = {}
    lr = probes.planes[:_CORRECTED]
    with torch.no_grad():
        if loop.start is not None:
            outputs[loop.start.name] = [apply(loop.start.name, {LR: probes.planes}).numpy()]
        for name in (loop.image.name, loop.update.name):
            outputs[name] = [
                apply(name, {LR: lr, SR: sr, CODE: code}).numpy()
                for sr, code in zip(probes.srs, probes.codes, strict=True)
            ]
    return outputs


def run_graphs(bundle: Bundle, probes: Probes, widen: bool = False) -> tuple[Outputs, float]:
    """Run the written graphs in ONNX Runtime.

    Args:
        bundle: Bundle of the graphs.
        probes: The inputs.
        widen: Whether to run the graphs in float32 arithmetic, see `widening`.

    Returns:
        The outputs, and the largest deviation of frames from `sr` in 8-bit levels.
    """
    loop = bundle.loop
    sr_dtype = LAYOUTS[bundle.manifest.io].sr_dtype("fp32" if widen else bundle.manifest.precision)
    lr: NDArray[Any] = probes.lr
    if bundle.manifest.io == "float":
        lr = np.ascontiguousarray(lr.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    contents = {name: bundle.graph_bytes(name) for name in loop.graphs}
    sessions = {
        name: _session(widened(content) if widen else content) for name, content in contents.items()
    }
    outputs: Outputs = {}
    if loop.start is not None:
        outputs[loop.start.name] = sessions[loop.start.name].run([CODE], {LR: lr})
    feeds = [
        {
            LR: lr[:_CORRECTED],
            SR: sr.numpy().astype(sr_dtype),
            CODE: np.ascontiguousarray(code.numpy(), np.float32),
        }
        for sr, code in zip(probes.srs, probes.codes, strict=True)
    ]
    levels = 0.0
    outputs[loop.image.name], outputs[loop.update.name] = [], []
    for feed in feeds:
        names = loop.outputs(loop.image.name, bundle.manifest.io)
        inputs = {name: feed[name] for name in loop.image.inputs}
        sr, *shown = sessions[loop.image.name].run(list(names), inputs)
        outputs[loop.image.name].append(sr)
        if FRAME in names:
            levels = max(levels, frame_levels(sr, shown[0]))
        inputs = {name: feed[name] for name in loop.update.inputs}
        outputs[loop.update.name] += sessions[loop.update.name].run([NEXT_CODE], inputs)
    return outputs, levels


def _session(model: bytes) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.add_session_config_entry(*EXACT_INT8)
    try:
        return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ExportError(f"ONNX Runtime cannot load a written graph: {error}") from error


def frame_levels(sr: NDArray[Any], frame: NDArray[Any]) -> float:
    """Return the largest difference of frames, of either type, from `sr` in 8-bit levels."""
    levels = 255 * sr.astype(np.float64).clip(0.0, 1.0)
    if frame.dtype == np.uint8:
        return float(np.abs(frame - levels.transpose(0, 2, 3, 1)).max())
    return float(np.abs(255 * frame.astype(np.float64) - levels).max())


def loop_of_networks(
    networks: LoopNetworks,
    modules: Mapping[str, nn.Module],
    probes: Probes,
    rounding: Rounding | None = None,
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return `sr` and code of every step of the loop in torch.

    Args:
        networks: The networks that were exported.
        modules: What runs instead of them, by graph.
        probes: The inputs.
        rounding: Rounding of activations; None for none.
    """
    loop, planes = networks.loop, probes.planes[:_CORRECTED].float()
    first = None
    if loop.start is None:
        first = torch.from_numpy(networks.basis.delta_code()).expand(_CORRECTED, -1)

    def apply(name: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with rounding.of_activations(modules[name]) if rounding else nullcontext():
            output: Tensor = modules[name](*inputs.values())
        if name == loop.image.name:
            image = _update_input(loop, output)
            return {SR: rounding.of_image(image) if rounding else image}
        return {NEXT_CODE if name == loop.update.name else CODE: output}

    with torch.no_grad():
        steps = loop.walk(apply, planes, first, PARITY_ITERS)
        return [(images[SR].numpy(), code.numpy()) for code, images in steps]


def loop_of_graphs(
    bundle: Bundle, probes: Probes
) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Return `sr`, frame and code of every step of the written files in ONNX Runtime."""
    batch: NDArray[Any] = probes.lr[:_CORRECTED]
    if bundle.manifest.io == "float":
        batch = np.ascontiguousarray(probes.planes[:_CORRECTED].float().numpy())
    backend = open_backend("onnxruntime", bundle)
    shape = frame_shape(batch, bundle.manifest.io)
    session = Session(backend, bundle, shape, PARITY_ITERS)
    images: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def keep(_: int) -> None:
        images.append((backend.download(session.sr), backend.download(session.frame)))

    session.upload(batch)
    session.blind().run(keep)
    codes = [backend.download(code) for code in session.codes]
    backend.close()
    return [(*image, code) for image, code in zip(images, codes, strict=True)]
