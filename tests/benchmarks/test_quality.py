from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ikc_deploy import Bundle
from ikc_deploy.benchmarks.candidates import UpscalerVariant
from ikc_deploy.benchmarks.quality import measure_quality
from ikc_deploy.evaluation.blurs import BlurSet
from ikc_deploy.evaluation.protocol import Protocol, evaluate
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import load_bundle
from tests.samples import photo


def test_it_is_the_last_step_of_what_ikc_eval_measures(
    small_bundle: Bundle, tmp_path: Path
) -> None:
    folder = tmp_path / "hr"
    folder.mkdir()
    Image.fromarray(photo(64, 72)).save(folder / "a.png")
    ours = UpscalerVariant("onnxruntime", "fp32", {})
    name, images, found = measure_quality(small_bundle, ours, folder, iters=1, threads=1)
    assert (name, images) == ("hr", 1)
    options = UpscalerOptions(iters=1, backend="onnxruntime", threads=1)
    with load_bundle(small_bundle, options) as upscaler:
        report = evaluate(upscaler, [folder], Protocol(BlurSet.gaussian8(4)))
    steps = [record.psnr_y for record in report.records if record.step == 1]
    assert found == pytest.approx(sum(steps) / len(steps))
