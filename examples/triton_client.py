"""Upscale images with Triton Inference Server, and print their estimated blur.

    pip install 'tritonclient[grpc]' pillow
    python examples/triton_client.py --server localhost:8001 --out upscaled photo.png ...
    python examples/triton_client.py --server localhost:8001 --out upscaled --stream frames/*.png

With --shared-memory, pixels are not sent through gRPC: client and server, on one machine, share two
regions of memory. With --stream, the images are frames of one stream, and each starts from the blur
of the one before it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tritonclient import grpc
from tritonclient.utils import shared_memory

TIMEOUT = 120
"""Seconds to wait for a response; a busy server may not respond."""


def main() -> None:
    """Upscale the images that are given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--server", default="localhost:8001", help="HOST:PORT of gRPC")
    parser.add_argument("--out", type=Path, required=True, help="folder of the outputs")
    parser.add_argument("--iters", type=int, help="corrections of the estimated blur")
    parser.add_argument("--sigma", type=float, help="the blur, if it is known")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--shared-memory", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with grpc.InferenceServerClient(options.server) as client:
        for number, path in enumerate(options.pictures):
            # The input of the server: frames `[N,H,W,3]`, RGB, uint8, here one.
            frame = np.asarray(Image.open(path).convert("RGB"))[None]
            sequence = {}
            if options.stream:
                last = number == len(options.pictures) - 1
                sequence = {"sequence_id": 1, "sequence_start": number == 0, "sequence_end": last}
            ask = ask_by_shared_memory if options.shared_memory else ask_by_message
            asked = asked_for(options.iters, options.sigma)
            image, sigma = ask(client, frame, asked, sequence)
            target = options.out / f"{path.stem}.png"
            Image.fromarray(image[0]).save(target)
            print(f"{target}: sigma {sigma[0, 0]:.2f}")


def asked_for(iters: int | None, sigma: float | None) -> list[grpc.InferInput]:
    """Return the optional inputs of a request with one frame."""
    inputs = []
    for name, value, dtype in (("iters", iters, np.int32), ("sigma", sigma, np.float32)):
        if value is not None:
            inputs.append(grpc.InferInput(name, [1, 1], "INT32" if name == "iters" else "FP32"))
            inputs[-1].set_data_from_numpy(np.full((1, 1), value, dtype))
    return inputs


def ask_by_message(
    client: grpc.InferenceServerClient,
    frames: NDArray[np.uint8],
    asked: list[grpc.InferInput],
    sequence: dict[str, Any],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Upscale frames `[N,H,W,3]` by gRPC messages; return `[N,sH,sW,3]` and sigma `[N,1]`."""
    lr = grpc.InferInput("lr", frames.shape, "UINT8")
    lr.set_data_from_numpy(frames)
    answer = client.infer(model(sequence), [lr, *asked], client_timeout=TIMEOUT, **sequence)
    return answer.as_numpy("image"), answer.as_numpy("sigma")


def ask_by_shared_memory(
    client: grpc.InferenceServerClient,
    frames: NDArray[np.uint8],
    asked: list[grpc.InferInput],
    sequence: dict[str, Any],
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Upscale frames as `ask_by_message`, in memory that client and server share."""
    scale = scale_of(client)
    count, height, width, _ = frames.shape
    upscaled = (count, scale * height, scale * width, 3)
    size = int(np.prod(upscaled))
    # The names must differ from those of other clients.
    names = f"ikc_lr_{os.getpid()}", f"ikc_image_{os.getpid()}"
    with region(client, names[0], frames.nbytes) as given, region(client, names[1], size) as out:
        shared_memory.set_shared_memory_region(given, [frames])
        lr = grpc.InferInput("lr", frames.shape, "UINT8")
        lr.set_shared_memory(names[0], frames.nbytes)
        image = grpc.InferRequestedOutput("image")
        image.set_shared_memory(names[1], size)
        wanted = [image, grpc.InferRequestedOutput("sigma")]
        answer = client.infer(
            model(sequence), [lr, *asked], outputs=wanted, client_timeout=TIMEOUT, **sequence
        )
        pixels = shared_memory.get_contents_as_numpy(out, np.uint8, upscaled)
        return pixels.copy(), answer.as_numpy("sigma")


@contextmanager
def region(client: grpc.InferenceServerClient, name: str, size: int) -> Iterator[Any]:
    """Register memory that the server may read and write, for the time of the block."""
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", size)
    try:
        client.register_system_shared_memory(name, f"/{name}", size)
        yield handle
    finally:
        unregister(client, name)
        shared_memory.destroy_shared_memory_region(handle)


def unregister(client: grpc.InferenceServerClient, name: str) -> None:
    """Unregister a region, as soon as the server has released the request that it answered."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return client.unregister_system_shared_memory(name)
        except grpc.InferenceServerException as error:
            if "in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def model(sequence: dict[str, Any]) -> str:
    """Return the name of the model, which differs for streams."""
    return "ikc_stream" if sequence else "ikc"


def scale_of(client: grpc.InferenceServerClient) -> int:
    """Return the scale factor (SR side over LR side) from the parameters of the model."""
    parameters = client.get_model_config("ikc").config.parameters
    return int(parameters["scale"].string_value)


if __name__ == "__main__":
    main()
