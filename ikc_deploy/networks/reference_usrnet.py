"""Import of the published USRNet weights into a network of this project."""

from __future__ import annotations

import re
from os import PathLike, fspath
from typing import Final

from torch import Tensor

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.foreign_checkpoints import NetworkMarks, read_network
from ikc_deploy.networks.reference import outputs
from ikc_deploy.networks.tensors import fill
from ikc_deploy.networks.usrnet import Usrnet, UsrnetSettings

_LEVELS: Final = ("head", "down1", "down2", "down3", "body", "up3", "up2", "up1", "tail")

_MARKS: Final = NetworkMarks(("p.m_head.weight", "h.mlp.0.weight", "p.m_tail.weight"))


def import_usrnet(path: str | PathLike[str]) -> Usrnet:
    """Return the network in a published .pth file; tensor shapes determine its sizes.

    Args:
        path: usrnet.pth, usrnet_tiny.pth or a file like them. Nothing in it is executed.

    Returns:
        The network as float32, in evaluation mode, without gradients, on the CPU.

    Raises:
        CheckpointError: The file is unreadable, or tensors are missing, unexpected, wrongly shaped,
            integer or not finite.
    """
    state = read_network(path, _MARKS)
    needed = {f"p.m_{level}" for level in _LEVELS} | {"h.mlp"}
    found = {".".join(key.split(".")[:2]) for key in state}
    if not needed <= found:
        raise CheckpointError(
            f"'{fspath(path)}' is not a USRNet checkpoint: missing "
            f"{', '.join(sorted(needed - found))}"
        )
    network = Usrnet(_settings(state))
    tensors = {_our_name(key): _ours(key, value) for key, value in state.items()}
    fill({"": network}, tensors, f"'{fspath(path)}' does not fit the published USRNet")
    network.training_record = {"source": "imported reference checkpoint"}
    return network.eval().requires_grad_(False)


def _settings(state: dict[str, Tensor]) -> UsrnetSettings:
    body = {key.split(".")[2] for key in state if key.startswith("p.m_body.")}
    blocks = len(body)
    downs = (outputs(state, f"p.m_down{level}.{blocks}.weight") for level in (1, 2, 3))
    return UsrnetSettings(
        iterations=outputs(state, "h.mlp.4.weight") // 2,
        channels=(outputs(state, "p.m_head.weight"), *downs),
        blocks=blocks,
        hyper_channels=outputs(state, "h.mlp.0.weight"),
    )


def _our_name(key: str) -> str:
    """Rename a published weight; its resolutions count from 1, backwards on the way up."""
    key = re.sub(r"^p\.m_down(\d)\.", lambda found: f"prior.down.{int(found[1]) - 1}.", key)
    key = re.sub(r"^p\.m_up(\d)\.", lambda found: f"prior.up.{3 - int(found[1])}.", key)
    return re.sub(r"^h\.", "hyper.", re.sub(r"^p\.m_", "prior.", key))


def _ours(key: str, value: Tensor) -> Tensor:
    """Return a published weight in this project's shape: 1x1 convolutions as linear layers."""
    is_pointwise = key.startswith("h.") and value.ndim == 4 and value.shape[2:] == (1, 1)
    return value[:, :, 0, 0] if is_pointwise else value
