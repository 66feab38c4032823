from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.kernels import KernelBasis
from ikc_deploy.networks.architecture import Design
from ikc_deploy.networks.checkpoints import (
    empty_networks,
    load_checkpoint,
    new_networks,
    save_checkpoint,
)
from ikc_deploy.networks.loop_networks import LoopNetworks
from tests.samples import DESIGNS, small_architecture

Edit = Callable[[dict[str, Tensor], dict[str, str]], object]


def weights(networks: LoopNetworks) -> dict[str, Tensor]:
    modules = networks.modules().items()
    return {f"{n}.{key}": value for n, m in modules for key, value in m.state_dict().items()}


def rewrite(path: Path, edit: Edit) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    edit(tensors, metadata)
    save_file(tensors, path, metadata)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_checkpoint(new_networks(small_architecture("compact"), seed=3), path)
    return path


@pytest.mark.parametrize("design", DESIGNS)
def test_float32_comes_back_bit_for_bit(tmp_path: Path, design: Design) -> None:
    networks = new_networks(small_architecture(design, 3), seed=3)
    networks.training = {"recipe": "trial", "last": {"sftmd": {"loss": 0.25}}}
    save_checkpoint(networks, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.architecture == networks.architecture
    assert loaded.basis.id == networks.basis.id
    assert loaded.training == networks.training
    before, after = weights(networks), weights(loaded)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(p.requires_grad for m in loaded.modules().values() for p in m.parameters())


def test_float16_comes_back_near_with_exact_buffers(tmp_path: Path) -> None:
    networks = new_networks(small_architecture("compact"), seed=3)
    save_checkpoint(networks, tmp_path / "full.safetensors")
    save_checkpoint(networks, tmp_path / "half.safetensors", torch.float16)
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    trained = {f"{n}.{k}" for n, m in networks.modules().items() for k, _ in m.named_parameters()}
    before, after = weights(networks), weights(loaded)
    for key, value in before.items():
        assert after[key].dtype == torch.float32
        # Half a unit in the last of float16's eleven digits; subnormal below 6e-5.
        tolerance = {"rtol": 2**-11, "atol": 2**-25} if key in trained else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(after[key], value, **tolerance)
    assert loaded.basis.id == networks.basis.id
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < sizes[1]


def test_one_message_lists_missing_unexpected_and_misshapen_tensors(saved: Path) -> None:
    def edit(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        del tensors["sftmd.conv2.bias"]
        tensors["predictor.extra.weight"] = torch.zeros(2)
        tensors["corrector.head.0.bias"] = torch.zeros(3, 5)

    rewrite(saved, edit)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    message = str(caught.value)
    assert str(saved) in message
    assert "missing: sftmd.conv2.bias" in message
    assert "unexpected: predictor.extra.weight" in message
    assert "corrector.head.0.bias is [3, 5], not [8]" in message


@pytest.mark.parametrize("name", ["sftmd.conv2.bias", "corrector.head.0.weight", "basis.mean"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(saved: Path, name: str, value: float) -> None:
    def edit(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors[name].view(-1)[-1] = value

    rewrite(saved, edit)
    with pytest.raises(CheckpointError, match=rf"NaN or infinite: {name}"):
        load_checkpoint(saved)


def test_weights_that_overflow_float32_are_refused(saved: Path) -> None:
    def edit(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors["sftmd.conv2.bias"] = torch.full_like(
            tensors["sftmd.conv2.bias"], 1e39, dtype=torch.float64
        )

    rewrite(saved, edit)
    with pytest.raises(CheckpointError, match=r"NaN or infinite: sftmd\.conv2\.bias"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", ["sftmd.conv2.bias", "basis.components"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.uint8, torch.bool])
def test_integer_weights_are_refused(saved: Path, name: str, dtype: torch.dtype) -> None:
    def edit(tensors: dict[str, Tensor], _: dict[str, str]) -> None:
        tensors[name] = tensors[name].to(dtype)

    rewrite(saved, edit)
    with pytest.raises(CheckpointError, match=rf"not floating point: {name} is"):
        load_checkpoint(saved)


METADATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["architecture", "basis", "training"]),
    inner=st.sampled_from(["", "sigma_range", "channels", "scale", "kernels", "id", "code_size"]),
    value=METADATA,
)
@example("training", "", [1])
@example("architecture", "sigma_range", ["a", "b"])
def test_any_metadata_is_read_or_refused(
    saved: Path, tmp_path: Path, key: str, inner: str, value: object
) -> None:
    path = tmp_path / "altered.safetensors"
    path.write_bytes(saved.read_bytes())

    def edit(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        recorded = json.loads(metadata[key])
        metadata[key] = json.dumps(recorded | {inner: value} if inner else value)

    rewrite(path, edit)
    with contextlib.suppress(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize("factor", [-1.0, 1.5])
def test_an_altered_basis_is_refused(saved: Path, factor: float) -> None:
    rewrite(saved, lambda tensors, _: tensors["basis.components"][:, 4].mul_(factor))
    with pytest.raises(CheckpointError, match="basis"):
        load_checkpoint(saved)


@pytest.mark.parametrize("key", ["architecture", "basis", "training"])
def test_incomplete_metadata_is_refused(saved: Path, key: str) -> None:
    rewrite(saved, lambda _, metadata: metadata.pop(key))
    with pytest.raises(CheckpointError, match=rf"metadata.*{key}"):
        load_checkpoint(saved)


def test_an_architecture_that_the_basis_does_not_fit_is_refused(saved: Path) -> None:
    def edit(_: dict[str, Tensor], metadata: dict[str, str]) -> None:
        values = json.loads(metadata["architecture"])
        metadata["architecture"] = json.dumps(values | {"code_size": 12})

    rewrite(saved, edit)
    with pytest.raises(CheckpointError, match=r"12 components.*10"):
        load_checkpoint(saved)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "gone.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth.*ikc-import"):
        load_checkpoint(tmp_path / "other.pth")
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not an ikc-deploy checkpoint"):
        load_checkpoint(tmp_path / "other.safetensors")


def test_a_truncated_checkpoint_is_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        load_checkpoint(saved)


def test_new_networks_depend_on_the_seed_alone() -> None:
    settings = small_architecture("compact")
    state = torch.random.get_rng_state()
    first = weights(new_networks(settings, seed=5))
    torch.rand(7)
    second, other = weights(new_networks(settings, seed=5)), weights(new_networks(settings, seed=6))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["sftmd.conv1.weight"], other["sftmd.conv1.weight"])
    torch.random.set_rng_state(state)
    expected = torch.rand(1)
    torch.random.set_rng_state(state)
    new_networks(settings, seed=5)
    assert torch.equal(torch.rand(1), expected)


def test_codes_enter_the_compact_network_on_one_scale() -> None:
    networks = new_networks(small_architecture("compact"), seed=3)
    codes = networks.basis.code_of_sigma(np.random.default_rng(0).uniform(0.2, 4.0, 4000))
    spread = codes.std(axis=0)
    normalised = networks.sftmd.normalize(torch.from_numpy(codes)).numpy()
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=0.1)
    # The last components hardly vary, and are not blown up a thousandfold and more.
    np.testing.assert_allclose(
        normalised.std(axis=0), np.minimum(1, spread / (1e-3 * spread[0])), atol=0.1
    )


def test_networks_and_basis_must_agree_on_the_code_size() -> None:
    basis = KernelBasis.fit((0.2, 4.0), code_size=6)
    with pytest.raises(CheckpointError, match="10 components, the basis 6"):
        empty_networks(small_architecture("compact"), basis)
