from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.flow import load_flow, save_flow
from ikc_deploy.networks.reference_flow import import_flow


@pytest.mark.parametrize("scale", [2, 4])
def test_the_references_weights_give_the_references_kernels(
    shared: Path, tmp_path: Path, scale: int
) -> None:
    imported = import_flow(shared / "official_fkp" / f"FKP_x{scale}.pt")
    save_flow(imported, tmp_path / "flow.safetensors")
    flow = load_flow(scale, tmp_path / "flow.safetensors")
    with np.load(shared / "official_fkp" / "fkp_inverse.npz") as given:
        z, expected = (given[f"{name}_x{scale}"] for name in ("z", "kernel"))
    found = flow.raw(torch.from_numpy(z)).numpy()
    assert np.abs(found - expected).max() < 1e-6
    sums = expected.sum(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(flow.decode(torch.from_numpy(z)), expected / sums, atol=1e-6)


def test_the_scale_is_read_off_the_file(shared: Path) -> None:
    assert import_flow(shared / "official_fkp" / "FKP_x3.pt").scale == 3


def test_other_files_are_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not an FKP checkpoint"):
        import_flow(shared / "official_fkp" / "usrnet_tiny.pth")
    content = torch.load(
        shared / "official_fkp" / "FKP_x2.pt", weights_only=True, map_location="cpu"
    )
    state, file = content["model_state"], tmp_path / "FKP.pt"
    for change, words in (
        ({"normalization": torch.tensor([0.5])}, "normalises kernels by"),
        ({"kernel_size": torch.tensor([21.0])}, "kernels of 21 pixels"),
        ({"net.0.s_net.0.weight": torch.zeros(3, 121)}, "wrong shape"),
        ({"net.10.beta": torch.zeros(121)}, "unexpected"),
        ({"normalization": torch.tensor([float("nan")])}, "normalises kernels by"),
        ({"kernel_size": torch.zeros(2)}, "not single numbers"),
        ({"alpha": torch.zeros(0)}, "not single numbers"),
        ({"net.0.s_net.0.weight": torch.zeros(15, 121, dtype=torch.int8)}, "int8"),
        ({"net.1.beta": torch.full((121,), float("inf"))}, "NaN or infinite: blocks.0.norm.beta"),
    ):
        torch.save({"model_state": state | change}, file)
        with pytest.raises(CheckpointError, match=words):
            import_flow(file)
