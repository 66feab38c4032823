from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.autograd.functional import jacobian

from ikc_deploy.errors import CheckpointError, KernelError
from ikc_deploy.kernels import fkp_size, random_fkp_kernels, shifted_gaussian
from ikc_deploy.networks.flow import PEAKS, KernelFlow, load_flow, save_flow, shipped_flow

SCALES = sorted(PEAKS)


def kernels(scale: int, count: int, seed: int = 0) -> Tensor:
    """Of the family, clipped at 0 and with sum 1."""
    drawn = random_fkp_kernels(np.random.default_rng(seed), count, scale).clip(0)
    return torch.from_numpy(drawn / drawn.sum(axis=(1, 2), keepdims=True))


def any_flow(scale: int, seed: int = 0) -> KernelFlow:
    """Untrained, but with norms that have seen kernels."""
    torch.manual_seed(seed)
    flow = KernelFlow(scale).double()
    for part in flow.parameters():
        torch.nn.init.normal_(part, std=0.1)
    flow.clear_unused()
    known = kernels(scale, 500)
    flow.settle(flow.logits(known, torch.rand(known.shape)))
    return flow.eval()


@pytest.mark.parametrize("scale", SCALES)
def test_sizes_and_parameters_are_those_of_fkp(scale: int) -> None:
    flow = KernelFlow(scale)
    assert flow.size == fkp_size(scale)
    counted = sum(parameter.numel() for parameter in flow.parameters())
    assert counted == {2: 41_270, 3: 98_900, 4: 194_470}[scale]
    low = 0.175 * scale
    peak = shifted_gaussian(low, low, 0, scale).max()
    assert PEAKS[scale] == pytest.approx(peak + 0.01, abs=5e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weights", ["any", "shipped"])
def test_forward_then_back_is_the_kernel(scale: int, weights: str) -> None:
    flow = any_flow(scale).float() if weights == "any" else load_flow(scale)
    known = kernels(scale, 50).float()
    with torch.no_grad():
        z, _ = flow(known)
        assert z.shape == (50, flow.size**2)
        torch.testing.assert_close(flow.decode(z), known, atol=1e-5, rtol=0)
        torch.testing.assert_close(flow.raw(z), known, atol=1e-5, rtol=0)


def test_weights_that_no_kernel_of_the_family_has_are_clipped() -> None:
    flow = any_flow(2)
    delta = torch.zeros(1, 11, 11, dtype=torch.float64)
    delta[:, 4, 4], delta[:, 0, 0] = 1, -0.1
    z, determinant = flow(delta)
    assert torch.all(torch.isfinite(z)) and torch.all(torch.isfinite(determinant))
    torch.testing.assert_close(flow.raw(z), delta.clamp(0, PEAKS[2]), atol=1e-5, rtol=0)


def test_the_log_determinants_are_those_of_autograd() -> None:
    flow = any_flow(2)
    known = 0.9 * kernels(2, 3) + 0.1 / flow.size**2
    _, determinants = flow(known)
    for kernel, found in zip(known, determinants, strict=True):
        slopes: Any = jacobian(lambda k: flow(k[None])[0][0], kernel)  # type: ignore[no-untyped-call]
        _, expected = torch.linalg.slogdet(slopes.reshape(flow.size**2, -1))
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)
    logits = flow.logits(known, torch.rand(known.shape, dtype=torch.float64))
    _, determinants = flow.encode(logits)
    slopes = jacobian(lambda x: flow.encode(x[None])[0][0], logits[1])  # type: ignore[no-untyped-call]
    torch.testing.assert_close(determinants[1], torch.linalg.slogdet(slopes)[1])


def test_the_likelihood_is_the_normal_one_of_z_in_the_measure_of_logits() -> None:
    flow = any_flow(2)
    logits = flow.logits(kernels(2, 4), torch.rand(4, 11, 11, dtype=torch.float64))
    z, determinant = flow.encode(logits)
    normal = torch.from_numpy(stats.norm.logpdf(z.detach().numpy()).sum(axis=1))
    found = flow.negative_log_likelihood(logits)
    torch.testing.assert_close(found, -(normal + determinant))


def test_decoding_gives_sums_of_1_and_gradients() -> None:
    flow = any_flow(3).float()
    z = torch.randn(4, 225, requires_grad=True)
    found = flow.decode(z)
    assert found.shape == (4, 15, 15)
    assert torch.all(found >= 0)
    torch.testing.assert_close(found.sum(dim=(1, 2)), torch.ones(4))
    (found**2).sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None and torch.all(z.grad.abs().sum(dim=1) > 0)


@pytest.mark.parametrize("scale", SCALES)
def test_samples_of_the_shipped_priors_are_such_kernels(scale: int) -> None:
    flow = load_flow(scale)
    drawn = flow.sample(200, torch.Generator().manual_seed(0)).double().numpy()
    again = flow.sample(200, torch.Generator().manual_seed(0)).double().numpy()
    np.testing.assert_array_equal(drawn, again)
    size = flow.size
    y, x = np.mgrid[:size, :size]
    place = np.array([(drawn * axis).sum(axis=(1, 2)) for axis in (x, y)])
    # The reference's centres are here; its own samples scatter as these do.
    assert np.abs(np.median(place, axis=1) - (size - scale) / 2).max() < 0.15
    truth = kernels(scale, 2000).numpy()
    nearest = [np.linalg.norm(truth - sample, axis=(1, 2)).min() for sample in drawn]
    assert np.median(nearest / np.linalg.norm(drawn, axis=(1, 2))) < 0.2


def test_shipped_priors_are_small_and_documented() -> None:
    card = shipped_flow(2).with_name("fkp.md").read_text()
    for scale in SCALES:
        assert shipped_flow(scale).stat().st_size < 1e6
        assert shipped_flow(scale).name in card


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    flow, file = any_flow(2).float(), tmp_path / "flow.safetensors"
    save_flow(flow, file, {"seed": 4})
    loaded = load_flow(2, file)
    z = torch.randn(3, 121)
    torch.testing.assert_close(loaded.decode(z), flow.decode(z), rtol=0, atol=0)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_files_that_hold_no_such_flow_are_refused(tmp_path: Path, small_checkpoint: Path) -> None:
    file = tmp_path / "flow.safetensors"
    save_flow(any_flow(2).float(), file)
    with pytest.raises(CheckpointError, match="x2, but x4 is needed"):
        load_flow(4, file)
    with pytest.raises(CheckpointError, match="not an ikc-deploy kernel flow"):
        load_flow(4, small_checkpoint)
    with pytest.raises(CheckpointError, match="there is no"):
        load_flow(2, tmp_path / "absent.safetensors")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_flow(2, file)
    with pytest.raises(KernelError, match="2, 3 and 4"):
        KernelFlow(8)
