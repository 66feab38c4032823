from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ikc_deploy.cli.ikc_train import main
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.training.distributed import SINGLE_PROCESS, ProcessGroup, local_device
from tests.cli.running import invoke
from tests.samples import photo


def test_parts_cover_a_batch_once() -> None:
    samples = list(range(12))
    parts = [samples[ProcessGroup(rank, 3).shard(12)] for rank in range(3)]
    assert [sample for part in parts for sample in part] == samples
    assert len({len(part) for part in parts}) == 1
    assert SINGLE_PROCESS.shard(5) == slice(0, 5)


def test_a_plain_cuda_device_is_this_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device("cuda") == torch.device("cuda", 3)
    assert local_device("cuda:1") == torch.device("cuda", 1)
    assert local_device("cpu") == torch.device("cpu")


def test_two_processes_train_the_weights_that_one_does(repository: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_rgb(photo(64, 60, number), tmp_path / "images" / f"{number}.png")
    recipe = repository / "training" / "smoke.toml"
    arguments = [str(recipe), "--data", str(tmp_path / "images"), "--out"]
    alone = invoke(main, *arguments, tmp_path / "one")
    assert alone.exit_code == 0, alone.stderr
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, "-m", "ikc_deploy.cli.ikc_train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [*command, str(tmp_path / "two")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    paths = [tmp_path / name / "checkpoint.safetensors" for name in ("one", "two")]
    assert [alone.stdout.strip(), done.stdout.strip()] == [str(path) for path in paths]
    one, two = map(load_file, paths)
    assert one.keys() == two.keys()
    # Sums in another order. Adam makes a step of the learning rate, 1e-3, of any gradient, so where
    # a gradient is nothing but rounding, weights differ by some such steps.
    differences = torch.cat([(two[key] - one[key]).abs().flatten() for key in one])
    assert float((differences > 2e-4).float().mean()) < 0.01
    assert float(differences.max()) < 6e-3
