"""The model for Triton's Python backend: it runs the loop over the networks of a bundle.

It is written into the model repository as `model.py`, with copies of the modules that it imports,
so that the server needs only numpy. Frames stay in the server's tensors, on any device; only codes,
40 bytes per frame, are read.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

# The copies beside this file must take precedence over an installed package.
sys.path.insert(0, str(Path(__file__).parent))

from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.loops import CODE, LR, find_loop
from ikc_deploy.serving.loop import Limits, Streams, Tensor, restore


class TritonPythonModel:
    """One instance of the model, in a separate process; Triton prescribes the names."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the configuration; raise `IkcError` if it is invalid."""
        config = json.loads(args["model_config"])
        self._limits = Limits.from_parameters(config["parameters"])
        self._networks = config["parameters"]["networks"]["string_value"]
        self._loop = find_loop(config["parameters"]["loop"]["string_value"])
        self._basis = KernelBasis.load(Path(__file__).with_name("basis.npz"))
        self._streams = Streams(self._limits.streams)
        self._sequences = "sequence_batching" in config
        # Triton completes its module only after this one was imported.
        self._cpu = triton.PreferredMemory(triton.TRITONSERVER_MEMORY_CPU, 0)

    async def execute(self, requests: list[Any]) -> list[Any]:
        """Return a response for each request; requests run concurrently, so networks batch them."""
        return list(await asyncio.gather(*map(self._answer, requests)))

    async def _answer(self, request: Any) -> Any:
        try:
            return triton.InferenceResponse(await self._upscale(request))
        except IkcError as error:
            refusal = triton.TritonError(str(error), triton.TritonError.INVALID_ARG)
        except Exception as error:  # the instance must survive, and the client gets the error
            refusal = triton.TritonError(f"{type(error).__name__}: {error}")
        return triton.InferenceResponse(error=refusal)

    async def _upscale(self, request: Any) -> list[Any]:
        inputs = {tensor.name(): tensor for tensor in request.inputs()}
        lr = inputs["lr"]
        shape = lr.shape()
        self._limits.check_frames(shape)
        stream = request.correlation_id() if self._sequences else None
        if stream is not None and request.flags() & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self._streams.forget(stream)
        last = None if stream is None else self._streams.recall(stream)
        if last is not None and len(last) != shape[0]:
            raise InputError(f"this stream has {len(last)} frames per request, got {shape[0]}")
        iters = self._limits.iters(_values(inputs, "iters"), tracked=last is not None)
        sigma = _values(inputs, "sigma")
        if sigma is not None:
            last, iters = self._basis.code_of_sigma(sigma[:, 0]), 0
            if self._basis.levels and self._loop.start is not None:
                # Sigma does not specify noise and compression: the predictor estimates them.
                read = await self._run(self._loop.start.name, {LR: lr}, CODE)
                last = self._basis.take_levels(last, read.as_numpy())
        if last is None and self._loop.start is None:
            last = np.tile(self._basis.delta_code(), (shape[0], 1))
        start = None if last is None else triton.Tensor(CODE, last)
        image, steps = await restore(self._loop, self._run, lr, start, iters)
        codes = np.stack([step.as_numpy() for step in steps], axis=1)
        if not np.isfinite(codes).all():
            raise InputError("the networks returned a kernel code with NaN or infinity")
        if stream is not None:
            self._keep(stream, codes[:, -1], request.flags())
        found = self._basis.sigma_of_code(codes[:, -1])[:, None].astype(np.float32)
        return [
            triton.Tensor.from_dlpack("image", image),
            triton.Tensor("codes", codes),
            triton.Tensor("sigma", found),
        ]

    async def _run(self, network: str, inputs: Mapping[str, Tensor], output: str) -> Tensor:
        request = triton.InferenceRequest(
            model_name=f"{self._networks}_{network}",
            requested_output_names=[output],
            inputs=[_named(name, tensor) for name, tensor in inputs.items()],
            # Codes are read on the CPU; frames stay on the device of the network.
            **({} if network == self._loop.image.name else {"preferred_memory": self._cpu}),
        )
        response = await request.async_exec()
        if response.has_error():
            raise triton.TritonModelException(f"{network}: {response.error().message()}")
        return response.output_tensors()[0]

    def _keep(self, stream: int, code: NDArray[np.float32], flags: int) -> None:
        if flags & triton.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            self._streams.forget(stream)
        else:
            self._streams.remember(stream, code)


def _values(inputs: Mapping[str, Any], name: str) -> NDArray[Any] | None:
    return None if name not in inputs else inputs[name].as_numpy()


def _named(name: str, tensor: Any) -> Any:
    return tensor if tensor.name() == name else triton.Tensor.from_dlpack(name, tensor)
