from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.io import loadmat

from ikc_deploy.errors import CheckpointError, InputError
from ikc_deploy.imaging.metrics import psnr_y
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.networks.reference_usrnet import import_usrnet
from ikc_deploy.networks.usrnet import (
    Usrnet,
    UsrnetSettings,
    load_usrnet,
    save_usrnet,
    shipped_usrnet,
)
from ikc_deploy.networks.usrnet_data_step import DataStep, Fft

SMALL = UsrnetSettings(iterations=2, channels=(4, 4, 6, 6), blocks=1, hyper_channels=5)


def small_usrnet(seed: int = 0) -> Usrnet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Usrnet(SMALL).eval().requires_grad_(False)


def degradation_matrix(
    kernel: NDArray[np.float64], height: int, width: int, scale: int
) -> NDArray[np.float64]:
    """A, `[h*w, sh*sw]`, written down pixel by pixel: circular correlation, sampled."""
    rows, columns = scale * height, scale * width
    matrix = np.zeros((height, width, rows, columns))
    reach = len(kernel) // 2
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(*kernel.shape):
            row, column = (scale * i + a - reach) % rows, (scale * j + b - reach) % columns
            matrix[i, j, row, column] += kernel[a, b]
    return matrix.reshape(height * width, rows * columns)


@given(
    scale=st.integers(1, 4),
    height=st.integers(2, 5),
    width=st.integers(2, 5),
    reach=st.integers(0, 6),
    alpha=st.floats(1e-5, 10),
    seed=st.integers(0, 99),
)
def test_the_data_step_solves_its_least_squares(
    scale: int, height: int, width: int, reach: int, alpha: float, seed: int
) -> None:
    # Kernels may be larger than the image: they wrap round.
    random = np.random.default_rng(seed)
    kernel = random.random((2 * reach + 1, 2 * reach + 1))
    kernel /= kernel.sum()
    matrix = degradation_matrix(kernel, height, width, scale)
    lr = random.random((3, height, width))
    before = random.random((3, scale * height, scale * width))
    normal = matrix.T @ matrix + alpha * np.eye(matrix.shape[1])
    wanted = np.linalg.solve(
        normal, matrix.T @ lr.reshape(3, -1).T + alpha * before.reshape(3, -1).T
    )
    step = DataStep(Fft(), torch.from_numpy(lr[None]), torch.from_numpy(kernel[None]), scale)
    found = step(torch.from_numpy(before[None]), torch.tensor([alpha], dtype=torch.float64))
    assert found[0].shape == before.shape
    assert np.allclose(found[0].numpy(), wanted.T.reshape(before.shape), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (5, 7)])
def test_images_of_a_batch_do_not_mix_and_any_size_goes(size: tuple[int, int]) -> None:
    network = small_usrnet()
    random = torch.Generator().manual_seed(0)
    lr = torch.rand(2, 3, *size, generator=random)
    kernel = torch.rand(2, 9, 9, generator=random)
    kernel /= kernel.sum((1, 2), keepdim=True)
    noise = torch.tensor([0.0, 0.1])
    both = network(lr, kernel, 3, noise)
    assert both.shape == (2, 3, 3 * size[0], 3 * size[1])
    for index in range(2):
        alone = network(lr[index : index + 1], kernel[index : index + 1], 3, float(noise[index]))
        assert torch.allclose(both[index], alone[0], atol=1e-5)


def test_wrong_shapes_are_refused() -> None:
    network, lr = small_usrnet(), torch.zeros(1, 3, 8, 8)
    with pytest.raises(InputError, match="odd k"):
        network(lr, torch.zeros(1, 4, 4), 2)
    with pytest.raises(InputError, match="one for each of 1 images"):
        network(lr, torch.zeros(2, 5, 5), 2)
    with pytest.raises(InputError, match=r"\[N,3,h,w\]"):
        network(lr[:, :1], torch.zeros(1, 5, 5), 2)


def test_a_checkpoint_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    network, path = small_usrnet(), tmp_path / "small.safetensors"
    network.training_record = {"steps": 3}
    save_usrnet(network, path)
    again = load_usrnet(path)
    assert again.settings == SMALL and again.training_record == {"steps": 3}
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    tensors = load_file(path)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not an ikc-deploy usrnet"):
        load_usrnet(tmp_path / "other.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_usrnet(path)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in a file as the published one is: its names, its 1x1 convolutions."""
    state = {}
    for key, value in small_usrnet(3).state_dict().items():
        name, _, rest = key.removeprefix("prior.").partition(".")
        if key.startswith("hyper."):
            is_weight = key.endswith("weight")
            state[key.replace("hyper", "h")] = value[..., None, None] if is_weight else value
        elif name in ("down", "up"):
            level, _, rest = rest.partition(".")
            number = int(level) + 1 if name == "down" else 3 - int(level)
            state[f"p.m_{name}{number}.{rest}"] = value
        else:
            state[f"p.m_{name}.{rest}"] = value
    path = tmp_path_factory.mktemp("published") / "usrnet.pth"
    torch.save(state, path)
    return path


def test_published_weights_of_any_size_are_imported(published: Path, tmp_path: Path) -> None:
    imported = import_usrnet(published)
    assert imported.settings == SMALL
    for key, value in small_usrnet(3).state_dict().items():
        assert torch.equal(imported.state_dict()[key], value)
    state = torch.load(published, weights_only=True)
    del state["p.m_up2.1.res.0.weight"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"missing: prior\.up\.1\.1\.res\.0\.weight"):
        import_usrnet(tmp_path / "less.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="is not a USRNet checkpoint"):
        import_usrnet(tmp_path / "other.pth")


def example_figure(network: Usrnet, shared: Path) -> float:
    """PSNR-Y of the published example under its true kernel."""
    folder = shared / "official_fkp" / "test_image"
    lr = read_rgb(folder / "DIPFKP_lr_x4/102061.png")
    hr = read_rgb(folder / "HR/102061.png")[: 4 * lr.shape[0], : 4 * lr.shape[1]]
    kernel = loadmat(folder / "DIPFKP_gt_k_x4/102061.mat")["Kernel"]
    with torch.no_grad():
        planes = torch.from_numpy(lr.copy()).permute(2, 0, 1)[None] / 255
        sr = network(planes, torch.from_numpy(kernel)[None], 4)
    image = (255 * sr[0].permute(1, 2, 0).clamp(0, 1)).round().byte().numpy()
    return psnr_y(image, hr, border=4)


def test_the_published_network_makes_its_published_figure(shared: Path) -> None:
    network = import_usrnet(shared / "official_fkp" / "usrnet_tiny.pth")
    assert example_figure(network, shared) == pytest.approx(26.11, abs=0.02)


def test_the_shipped_network_makes_the_figure_of_its_card(shared: Path, repository: Path) -> None:
    recorded = json.loads((repository / "benchmarks/results/usrnet-quality.json").read_text())
    figure = example_figure(load_usrnet(), shared)
    assert figure == pytest.approx(recorded["test_image"]["ours"], abs=0.02)
    assert shipped_usrnet().stat().st_size < 1.5e6
