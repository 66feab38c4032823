from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from ikc_deploy.networks.flow import load_flow
from ikc_deploy.offline.kernel_code import KernelCode, weights_digest
from tests.offline.flows import save_untrained


def new_code(folder: Path, seed: int = 0) -> KernelCode:
    flow = load_flow(2, save_untrained(folder, 2))
    return KernelCode(flow, torch.Generator().manual_seed(seed), rate=0.5, device="cpu")


def test_it_goes_towards_a_kernel_and_stays_on_the_sphere(tmp_path: Path) -> None:
    code = new_code(tmp_path)
    goal = torch.from_numpy(new_code(tmp_path, seed=1).array()).float()
    distances = []
    for _ in range(30):
        distance = ((code.kernel() - goal) ** 2).sum()
        code.zero_grad()
        distance.backward()  # type: ignore[no-untyped-call]
        code.step()
        distances.append(float(distance.detach()))
        assert float(code.state()["code"].norm()) == pytest.approx(10, rel=1e-5)
        assert code.array().sum() == pytest.approx(1, abs=1e-5)
    assert distances[-1] < 0.3 * distances[0]


def test_its_state_is_all_that_later_steps_depend_on(tmp_path: Path) -> None:
    first, second = new_code(tmp_path), new_code(tmp_path, seed=1)
    weight = torch.linspace(-1, 1, 121).view(11, 11)

    def step(code: KernelCode) -> None:
        code.zero_grad()
        (code.kernel() * weight).sum().backward()  # type: ignore[no-untyped-call]
        code.step()

    step(first)
    second.restore(deepcopy(first.state()))
    step(first)
    step(second)
    np.testing.assert_array_equal(first.array(), second.array())


def test_weights_are_told_apart(tmp_path: Path) -> None:
    flow = load_flow(2, save_untrained(tmp_path, 2))
    before = weights_digest(flow)
    assert weights_digest(load_flow(2, save_untrained(tmp_path, 2))) == before
    next(flow.parameters()).data[0] += 1e-3
    assert weights_digest(flow) != before
