from __future__ import annotations

import json
from typing import Any

import pytest

from ikc_deploy.errors import CheckpointError
from ikc_deploy.networks.architecture import ARCHITECTURES, Architecture, architecture

VALUES: dict[str, Any] = ARCHITECTURES["x4-lite"].to_dict()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_named_architectures_survive_json(name: str) -> None:
    settings = architecture(name)
    assert settings.name == name
    assert settings.scale == int(name[1])
    assert Architecture.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_an_unknown_name_gets_the_valid_ones() -> None:
    with pytest.raises(CheckpointError, match=r"'x5'.*x2, x2-lite.*x4-lite"):
        architecture("x5")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scale": 5}, "scale must be one of"),
        ({"design": "fancy"}, "'reference', 'compact'"),
        ({"channels": 0}, "channels must lie in 1 to 512, got 0"),
        ({"channels": 33}, "channels must be even"),
        ({"blocks": 1.5}, "blocks must be a whole number, got 1.5"),
        ({"estimator_channels": -1}, "estimator_channels"),
        ({"code_size": "10"}, "code_size"),
        ({"sigma_range": (2.0, 0.2)}, "sigma_range needs"),
        ({"sigma_range": (0.0, 2.0)}, "sigma_range needs"),
        ({"depth": 3}, "depth"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(CheckpointError, match=word):
        Architecture.from_dict(VALUES | change)


def test_a_missing_setting_is_refused() -> None:
    with pytest.raises(CheckpointError, match="blocks"):
        Architecture.from_dict({key: value for key, value in VALUES.items() if key != "blocks"})
