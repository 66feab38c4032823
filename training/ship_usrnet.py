"""Copy a trained USRNet into the package, and compare it with the published tiny one.

python training/ship_usrnet.py runs/usrnet-tiny --reference ../shared/official_fkp \
    --hr ../shared/data/eval/Set5
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.files import write_atomically
from ikc_deploy.imaging.degrade import crop_to_multiple
from ikc_deploy.imaging.input_files import list_images
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import quantize, upscale_bicubic
from ikc_deploy.imaging.torch_ops import to_image, to_tensor
from ikc_deploy.kernels.conventions import FKP_SCALES, degrade_fkp, lag, random_fkp_kernels
from ikc_deploy.networks.reference_usrnet import import_usrnet
from ikc_deploy.networks.usrnet import Usrnet, load_usrnet, save_usrnet, shipped_usrnet
from ikc_deploy.training.run_log import LOG_FILE
from ikc_deploy.training.runs import CHECKPOINT_FILE

_RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Folder of the published weights, usrnet_tiny.pth, and their test image.",
)
@click.option(
    "--hr",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="Folder of HR images, for example Set5.",
)
def main(run: Path, reference: Path, hr: Path) -> None:
    """Ship the network of RUN as float16, compared with the published one."""
    target = shipped_usrnet()
    save_usrnet(load_usrnet(run / CHECKPOINT_FILE), target, torch.float16)
    write_atomically(target.with_suffix(".log.jsonl"), (run / LOG_FILE).read_bytes())
    networks = {"ours": load_usrnet(), "published": import_usrnet(reference / "usrnet_tiny.pth")}
    result = {
        "what": "PSNR-Y in dB under the true kernel, no noise; a random FKP kernel for each image "
        "and scale",
        "command": "python training/ship_usrnet.py RUN --reference ../shared/official_fkp "
        "--hr ../shared/data/eval/Set5",
        "machine": describe_machine(),
        "test_image": _test_image(reference / "test_image", networks),
        "images": hr.name,
        "scales": [_on_images(hr, scale, networks) for scale in FKP_SCALES],
    }
    content = json.dumps(result, indent=1) + "\n"
    write_atomically(_RESULTS / "usrnet-quality.json", content.encode())
    click.echo(content)


def _test_image(folder: Path, networks: dict[str, Usrnet]) -> dict[str, float]:
    from scipy.io import loadmat

    lr = read_rgb(folder / "DIPFKP_lr_x4/102061.png")
    hr = read_rgb(folder / "HR/102061.png")[: 4 * lr.shape[0], : 4 * lr.shape[1]]
    kernel = loadmat(folder / "DIPFKP_gt_k_x4/102061.mat")["Kernel"]
    return _measured(hr, lr, kernel, 4, networks)


def _on_images(folder: Path, scale: int, networks: dict[str, Usrnet]) -> dict[str, Any]:
    random = np.random.default_rng(scale)
    rows = []
    for path in list_images(folder):
        hr = crop_to_multiple(read_rgb(path), scale)
        (kernel,) = random_fkp_kernels(random, 1, scale)
        lr = quantize(degrade_fkp(hr, kernel, scale))
        rows.append(_measured(hr, lr, kernel, scale, networks))
    return {"scale": scale, **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]}}


def _measured(
    hr: NDArray[np.uint8],
    lr: NDArray[np.uint8],
    kernel: NDArray[np.float64],
    scale: int,
    networks: dict[str, Usrnet],
) -> dict[str, float]:
    # Bicubic upscaling assumes other positions of LR pixels than the FKP convention.
    bicubic = np.roll(upscale_bicubic(lr, scale), (-lag(scale), -lag(scale)), (0, 1))
    figures = {"bicubic_moved": psnr_y(bicubic, hr, scale)}
    planes = to_tensor(lr, "cpu")
    for name, network in networks.items():
        with torch.no_grad():
            sr = network(planes, torch.from_numpy(kernel)[None], scale)
        figures[name] = psnr_y(to_image(sr), hr, scale)
    return figures


if __name__ == "__main__":
    main()
