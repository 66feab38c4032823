"""Upscale torch tensors `[N,3,H,W]` in [0,1], the layout of torchvision and most data loaders.

python examples/torch_tensor.py picture.png
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import ikc_deploy
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb


def upscale_tensor(upscaler: ikc_deploy.Upscaler, images: Tensor) -> tuple[Tensor, Tensor]:
    """Upscale a batch of images, which are rounded to 8 bits as in an image file.

    Args:
        upscaler: The upscaler to use.
        images: RGB `[N,3,H,W]` in [0,1], floating point, on any device.

    Returns:
        RGB `[N,3,sH,sW]` in [0,1], of the same dtype and device, and the estimated sigma `[N]`.
    """
    levels = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8)
    frames = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    result = upscaler(frames, estimate="crops")
    planes = torch.from_numpy(result.image).to(images.device).permute(0, 3, 1, 2)
    return planes.to(images.dtype) / 255, torch.as_tensor(result.sigma)


if __name__ == "__main__":
    picture = torch.from_numpy(read_rgb(sys.argv[1])).permute(2, 0, 1)[None] / 255
    with ikc_deploy.load() as loaded:
        upscaled, sigma = upscale_tensor(loaded, picture)
    print(f"sigma {float(sigma[0]):.2f}")
    write_rgb((upscaled[0].permute(1, 2, 0) * 255).round().byte().numpy(), "upscaled.png")
