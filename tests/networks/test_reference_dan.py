from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import SIGMA_RANGES, KernelBasis
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import load_checkpoint, new_dan_networks, save_checkpoint
from ikc_deploy.networks.dan import Dan2Estimator
from ikc_deploy.networks.loop_networks import DanNetworks
from ikc_deploy.networks.reference_dan import import_dan
from tests.networks.dan_formulas import published
from tests.samples import small_architecture

VERSIONS: tuple[Design, ...] = ("dan1", "dan2")


def published_state(networks: DanNetworks) -> dict[str, Tensor]:
    """The state dict that the published code would save for these networks."""
    basis, side = networks.basis, networks.basis.kernel_size
    delta = torch.zeros(1, side, side)
    delta[0, side // 2, side // 2] = 1
    state = {
        f"{name}.{key}": value.detach().clone()
        for name, module in (("Restorer", networks.restorer), ("Estimator", networks.estimator))
        for key, value in module.state_dict().items()
    }
    encoder = torch.from_numpy(basis.components)[None].clone()
    return state | {
        "encoder": encoder,
        "init_kernel": delta,
        "init_ker_map": (delta.reshape(1, 1, -1) @ encoder)[:, 0],
    }


def small_dan(design: Design, scale: int) -> DanNetworks:
    return new_dan_networks(small_architecture(design, scale), seed=3)


def written(state: dict[str, Any], folder: Path) -> Path:
    path = folder / "dan.pth"
    torch.save(state, path)
    return path


def assert_loops_agree(networks: DanNetworks, lr: Tensor, srs: Any, codes: Any) -> None:
    code = torch.from_numpy(networks.basis.delta_code()).expand(len(lr), -1)
    for sr, expected in zip(srs, codes, strict=True):
        found = networks.restorer(lr, code)
        torch.testing.assert_close(found, sr.float(), atol=1e-5, rtol=0)
        code = networks.estimator(found, lr)
        torch.testing.assert_close(code, expected.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("version", [1, 2])
def test_every_step_of_the_published_code_is_reproduced(shared: Path, version: int) -> None:
    path = shared / "official_dan" / f"danv{version}_x4_24x20.pt"
    expected = torch.load(path, weights_only=True)
    networks = import_dan(path)
    assert_loops_agree(networks, expected["lr"], expected["srs"], expected["codes"])
    if isinstance(networks.estimator, Dan2Estimator):
        kernels = networks.estimator.kernels(expected["srs"][-1], expected["lr"])
        torch.testing.assert_close(kernels, expected["kernels"][-1], atol=1e-7, rtol=0)


@pytest.mark.parametrize("design", VERSIONS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_all_scales_follow_the_formulas_and_survive_a_checkpoint(
    design: Design, scale: int, tmp_path: Path
) -> None:
    state = published_state(small_dan(design, scale))
    imported = import_dan(written({f"module.{k}": v for k, v in state.items()}, tmp_path))
    settings = imported.architecture
    assert (settings.scale, settings.design, settings.blocks) == (scale, design, 2)
    assert settings.sigma_range == SIGMA_RANGES[scale]
    assert settings.groups == (2 if design == "dan2" else 1)
    lr = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    srs, codes = published(state, lr, scale, loops=3)
    assert srs[0].shape == (2, 3, 9 * scale, 11 * scale)
    assert_loops_agree(imported, lr, srs, codes)
    save_checkpoint(imported, tmp_path / "dan.safetensors")
    again = load_checkpoint(tmp_path / "dan.safetensors")
    assert isinstance(again, DanNetworks)
    assert_loops_agree(again, lr, srs, codes)


def test_the_published_names_and_shapes_of_the_heads_of_every_scale() -> None:
    for scale, factors in {2: [4], 3: [9], 4: [4, 4]}.items():
        for design in VERSIONS:
            state = published_state(small_dan(design, scale))
            heads = [state[f"Restorer.upscale.{2 * i}.weight"] for i in range(len(factors) + 1)]
            assert [len(head) for head in heads] == [*(4 * factor for factor in factors), 3]
        assert state["Estimator.head_HR.0.weight"].shape[-1] == 4 * scale + 1


def test_kernels_of_another_size_and_family_are_recognised(tmp_path: Path) -> None:
    sigmas = (0.6, 5.0)
    basis = KernelBasis.fit(sigmas, 10, 11, "anisotropic")
    settings = replace(
        small_architecture("dan2", 2), kernel_size=11, kernels="anisotropic", sigma_range=sigmas
    )
    state = published_state(new_dan_networks(settings, 1, basis))
    imported = import_dan(written(state, tmp_path))
    assert imported.architecture.kernels == "anisotropic"
    assert imported.architecture.kernel_size == imported.basis.kernel_size == 11
    assert imported.basis.sigma_range == sigmas


@pytest.mark.parametrize("design", VERSIONS)
def test_everything_wrong_is_in_one_message(design: Design, tmp_path: Path) -> None:
    state = published_state(small_dan(design, 3))
    head = "Restorer.head.bias" if design == "dan1" else "Restorer.head1.bias"
    del state["Restorer.fusion.weight"]
    state["surplus"] = torch.zeros(1)
    state[head] = torch.zeros(7)
    state["Restorer.upscale.2.bias"][0] = torch.nan
    state["Restorer.upscale.0.bias"] = state["Restorer.upscale.0.bias"].to(torch.int8)
    with pytest.raises(CheckpointError) as caught:
        import_dan(written(state, tmp_path))
    for part in (
        "missing: Restorer.fusion.weight;",
        "unexpected: surplus;",
        f"wrong shape: {head} is [7], not [4];",
        "not floating point: Restorer.upscale.0.bias is int8;",
        "NaN or infinite: Restorer.upscale.2.bias",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("design", VERSIONS)
def test_any_single_missing_tensor_is_the_only_one_named(design: Design, tmp_path: Path) -> None:
    state = published_state(small_dan(design, 2))
    for key in state:
        with pytest.raises(CheckpointError, match=rf"missing: {re.escape(key)}$"):
            import_dan(written({k: v for k, v in state.items() if k != key}, tmp_path))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"init_ker_map": torch.ones(1, 10)}, "does not start at the delta kernel"),
        ({"init_kernel": torch.zeros(1, 21, 21)}, "init_kernel differs by 1"),
        ({"encoder": torch.ones(1, 441, 10)}, "not a kernel basis"),
    ],
)
def test_another_start_or_basis_is_refused(
    change: dict[str, Tensor], reason: str, tmp_path: Path
) -> None:
    state = published_state(small_dan("dan1", 2)) | change
    with pytest.raises(CheckpointError, match=reason):
        import_dan(written(state, tmp_path))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (0, 3, 3, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("design", VERSIONS)
def test_tensors_of_any_shape_are_refused_in_a_sentence(
    design: Design, shape: tuple[int, ...], tmp_path: Path
) -> None:
    state = published_state(small_dan(design, 2))
    with pytest.raises(CheckpointError):
        import_dan(written(dict.fromkeys(state, torch.zeros(shape)), tmp_path))


def test_a_checkpoint_of_another_method_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint of DAN or DANv2"):
        import_dan(written({"conv1.weight": torch.zeros(3, 3, 3, 3)}, tmp_path))
