"""Bundles from graph templates, against torch by the gate of exports, and against exports."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import CheckpointError, ExportError
from ikc_deploy.export.graph_templates import (
    Checkpoint,
    bundle_from_template,
    find_template,
    read_checkpoint,
)
from ikc_deploy.export.graphs import graph_modules
from ikc_deploy.export.parity import check_parity, measure_parity
from ikc_deploy.loops import IKC
from ikc_deploy.networks.checkpoints import new_networks, save_checkpoint
from ikc_deploy.networks.weights_loader import load_weights
from ikc_deploy.weights import find_weights, shipped_templates, shipped_weights
from tests.bundles import change_vectors, export_small, save_small
from tests.samples import small_architecture
from tools.graph_template import template_from_bundle


def completed(template: Path, weights: str, out: Path) -> Bundle:
    source = find_weights(weights)
    assert source.path is not None
    checkpoint = read_checkpoint(source.path)
    assert checkpoint is not None
    return bundle_from_template(template, checkpoint, source, out)


def assert_equal_to_an_export(bundle: Bundle, weights: str) -> None:
    """Every weight in the graphs is the one that an export would put there."""
    networks = load_weights(weights).networks
    check_parity(measure_parity(networks, bundle), "fp32")
    for name, module in graph_modules(networks, "fp32", "uint8").items():
        model = onnx.load_from_string(bundle.graph_bytes(name))
        onnx.checker.check_model(model, full_check=True)
        found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        for key, value in module.named_parameters():
            wanted = value.detach().numpy()
            margin = 1e-6 * np.abs(wanted).max()
            np.testing.assert_allclose(found[key], wanted, rtol=1e-6, atol=margin, err_msg=key)


def test_a_template_serves_other_weights_of_its_architecture(tmp_path: Path) -> None:
    exported = export_small(tmp_path, "film")
    first = load_weights(str(tmp_path / "small.safetensors")).networks
    template_from_bundle(first, exported, tmp_path / "small.zip")
    networks = new_networks(replace(small_architecture("film", 4), experts=1), seed=1)
    change_vectors(networks, seed=1)
    networks.training = {"recommended_iters": 2}
    other = tmp_path / "other.safetensors"
    save_checkpoint(networks, other, torch.float16)
    bundle = completed(tmp_path / "small.zip", str(other), tmp_path / "bundle")
    assert_equal_to_an_export(bundle, str(other))
    manifest = bundle.manifest
    assert (manifest.name, manifest.recommended_iters, manifest.parity) == ("other", 2, None)
    assert manifest.convolutions == exported.manifest.convolutions


@pytest.mark.parametrize("name", sorted(shipped_weights()))
def test_shipped_weights_have_a_template_that_is_up_to_date(name: str, tmp_path: Path) -> None:
    path = shipped_weights()[name]
    checkpoint = read_checkpoint(path)
    assert checkpoint is not None
    template = find_template(checkpoint)
    assert template is not None, f"run: python -m tools.graph_template {name}"
    assert_equal_to_an_export(completed(template, name, tmp_path / "bundle"), name)


def test_the_weights_are_stored_once() -> None:
    weights = sum(path.stat().st_size for path in shipped_weights().values())
    templates = sum(path.stat().st_size for path in shipped_templates().values())
    assert 0 < templates < weights / 5


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    checkpoint = read_checkpoint(shipped_weights()["x4-lite"])
    assert checkpoint is not None
    return checkpoint


def test_other_architectures_and_other_buffers_have_no_template(
    shipped: Checkpoint, tmp_path: Path
) -> None:
    assert find_template(shipped) is not None
    buffer = next(name for name in shipped.tensors if name.endswith("normalize.mean"))
    tensors = {**shipped.tensors, buffer: shipped.tensors[buffer] + np.float32(0.01)}
    assert find_template(Checkpoint(shipped.record, tensors)) is None
    small = read_checkpoint(save_small(tmp_path))
    assert small is not None
    assert find_template(small) is None


def test_a_template_of_another_architecture_is_refused(tmp_path: Path, shipped: Checkpoint) -> None:
    template = find_template(shipped)
    assert template is not None
    with pytest.raises(ExportError, match="do not fit"):
        completed(template, str(save_small(tmp_path)), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_damaged_checkpoint_is_refused_before_any_graph_is_written(tmp_path: Path) -> None:
    content = shipped_weights()["x4-lite"].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_checkpoint(path)
    checkpoint = new_networks(small_architecture("compact", 4), seed=0)
    with torch.no_grad():
        next(checkpoint.sftmd.parameters()).fill_(float("nan"))
    save_checkpoint(checkpoint, path)
    with pytest.raises(CheckpointError, match="NaN or infinite: sftmd"):
        read_checkpoint(path)


def test_shipped_weights_open_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript'): sys.modules[name] = None\n"
        "import numpy, ikc_deploy\n"
        "with ikc_deploy.load(backend='onnxruntime', iters=1, threads=1) as upscaler:\n"
        "    print(upscaler(numpy.zeros((16, 20, 3), numpy.uint8)).image.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"XDG_CACHE_HOME": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "(64, 80, 3)"
    (bundle,) = (path.parent for path in tmp_path.rglob("manifest.json"))
    assert {f"{name}.onnx" for name in IKC.graphs} <= {path.name for path in bundle.iterdir()}
