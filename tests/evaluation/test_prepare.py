from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import correlate

from ikc_deploy.errors import InputError, OutputError
from ikc_deploy.evaluation.prepare import PrepareSettings, prepare
from ikc_deploy.evaluation.prepare_sets import SetOptions, plan_sets, prepare_sets
from ikc_deploy.imaging.degrade import SIGMAS, degrade_gaussian
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.resize import upscale_bicubic
from ikc_deploy.imaging.writing import write_rgb
from tests.samples import photo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed, name in enumerate(("bird.png", "cat.bmp", "dog.png")):
        write_rgb(photo(43, 50, seed), tmp_path / "source" / name)
    return tmp_path / "source"


def written(folder: Path) -> dict[str, str]:
    """Every file below `folder` and its checksum."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def box_shrunk(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = image.shape[0] // 4, image.shape[1] // 4
    return image.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))


def test_every_image_is_written_in_the_layout_of_the_reference(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sigmas = prepare([source], out, PrepareSettings(sigma_range=(1.8, 3.2), seed=3))
    names = ("bird", "cat", "dog")
    expected = {
        f"{folder}/x4/{name}.png" for folder in ("HR", "LR", "LRblur", "Bic") for name in names
    }
    assert set(written(out)) == expected | {"kernels/x4.json"}
    assert json.loads((out / "kernels" / "x4.json").read_text()) == sigmas
    for seed, name in enumerate(names):
        hr, lr, blurred, bicubic = (
            read_rgb(out / folder / "x4" / f"{name}.png")
            for folder in ("HR", "LR", "LRblur", "Bic")
        )
        np.testing.assert_array_equal(hr, photo(43, 50, seed)[:40, :48])
        np.testing.assert_array_equal(blurred, degrade_gaussian(hr, sigmas[name], 4))
        np.testing.assert_array_equal(bicubic, upscale_bicubic(lr, 4))
        # Not blurred: nearer to a plain mean of 4x4 pixels than what was blurred.
        errors = [np.abs(image - box_shrunk(hr)).mean() for image in (lr, blurred)]
        assert lr.shape == (10, 12, 3) and errors[0] < errors[1] / 2


def test_a_sigma_depends_on_seed_and_name_alone(source: Path, tmp_path: Path) -> None:
    settings = PrepareSettings(seed=1)
    together = prepare([source], tmp_path / "together", settings)
    for path in sorted(source.iterdir(), reverse=True):
        prepare([path], tmp_path / "apart", settings)
    assert written(tmp_path / "apart") == written(tmp_path / "together")
    reseeded = prepare([source], tmp_path / "reseeded", PrepareSettings(seed=2))
    assert all(reseeded[name] != together[name] for name in together)


def test_drawn_sigmas_fill_the_range_of_the_scale() -> None:
    settings = PrepareSettings(scale=3)
    sigmas = [settings.sigma(f"image{index}") for index in range(2000)]
    assert 0.2 <= min(sigmas) < 0.22 and 2.98 < max(sigmas) <= 3.0
    assert np.mean(sigmas) == pytest.approx(1.6, abs=0.06)
    assert PrepareSettings(sigma_range=(2.5, 2.5)).sigma("any") == 2.5


def test_a_second_run_writes_the_same_bytes_and_leaves_nothing_else(
    source: Path, tmp_path: Path
) -> None:
    prepare([source], tmp_path / "out", PrepareSettings())
    before = written(tmp_path / "out")
    prepare([source], tmp_path / "out", PrepareSettings())
    assert written(tmp_path / "out") == before


def test_two_sources_of_one_name_are_refused_before_anything_is_written(
    source: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "other" / "cat.png"
    write_rgb(photo(40, 40), twin)
    with pytest.raises(InputError, match=f"'{source / 'cat.bmp'}' and '{twin}'"):
        prepare([source, twin], tmp_path / "out", PrepareSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [".", "prepared", "../source/deep/er"])
def test_a_destination_in_a_source_is_refused(source: Path, inside: str) -> None:
    before = written(source)
    with pytest.raises(InputError, match="lies in the source folder"):
        prepare([source], source / inside, PrepareSettings())
    assert written(source) == before


def test_sources_that_would_be_overwritten_are_refused(source: Path, tmp_path: Path) -> None:
    prepare([source], tmp_path / "out", PrepareSettings())
    before = written(tmp_path / "out")
    with pytest.raises(InputError, match="could be overwritten"):
        prepare([tmp_path / "out" / "LR" / "x4"], tmp_path / "out", PrepareSettings(scale=4))
    assert written(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scale": 5}, r"one of \[2, 3, 4\], got 5"),
        ({"sigma_range": (0.0, 1.0)}, "got 0 to 1"),
        ({"sigma_range": (2.0, 1.0)}, "got 2 to 1"),
        ({"sigma_range": (1.0, float("inf"))}, "got 1 to inf"),
        ({"sigma_range": (float("nan"), 1.0)}, "got nan to 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PrepareSettings(**settings)  # type: ignore[arg-type]


def test_damaged_sigmas_of_an_earlier_run_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    kernels = tmp_path / "out" / "kernels" / "x4.json"
    kernels.parent.mkdir(parents=True)
    kernels.write_text("[1, 2")
    with pytest.raises(InputError, match=f"'{kernels}' is damaged"):
        prepare([source], tmp_path / "out", PrepareSettings())
    assert kernels.read_text() == "[1, 2"


@pytest.mark.parametrize("folder", ["HR", "Bic"])
def test_images_that_no_earlier_run_wrote_are_not_written_over(
    source: Path, tmp_path: Path, folder: str
) -> None:
    mine = tmp_path / "out" / folder / "x4" / "cat.png"
    write_rgb(photo(8, 8), mine)
    before = written(tmp_path / "out")
    with pytest.raises(OutputError, match=f"'{mine}' exists"):
        prepare([source], tmp_path / "out", PrepareSettings())
    assert written(tmp_path / "out") == before
    # Beside it, there is room.
    prepare([source / "bird.png"], tmp_path / "out", PrepareSettings())
    assert before.items() <= written(tmp_path / "out").items()


def test_a_run_that_was_killed_is_repeated_and_no_image_has_another_ones_sigma(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare([source], out, PrepareSettings(seed=1))
    program = """
import os, signal, sys
from pathlib import Path
from ikc_deploy.evaluation.prepare import PrepareSettings, prepare
from ikc_deploy.evaluation.prepare_sets import SetOptions, plan_sets, prepare_sets
def killed(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
prepare([Path(sys.argv[1])], Path(sys.argv[2]), PrepareSettings(seed=2), killed)
"""
    for folder in (out, tmp_path / "new"):
        command = [sys.executable, "-c", program, str(source), str(folder)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert json.loads((out / "kernels" / "x4.json").read_text()) == {}
    for folder in (out, tmp_path / "new"):
        prepare([source], folder, PrepareSettings(seed=2))
    prepare([source], tmp_path / "whole", PrepareSettings(seed=2))
    assert written(out) == written(tmp_path / "new") == written(tmp_path / "whole")


def test_subfolders_keep_their_names(source: Path, tmp_path: Path) -> None:
    write_rgb(photo(43, 50, 9), source / "more" / "bird.png")
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no image or folder"):
        prepare([tmp_path / "gone"], out, PrepareSettings(recursive=True))
    sigmas = prepare([source], out, PrepareSettings(recursive=True))
    assert set(sigmas) == {"bird", "cat", "dog", "more/bird"}
    hr = read_rgb(out / "HR" / "x4" / "more" / "bird.png")
    np.testing.assert_array_equal(hr, photo(43, 50, 9)[:40, :48])
    assert sigmas["bird"] != sigmas["more/bird"]
    before = written(out)
    prepare([source], out, PrepareSettings(recursive=True))
    assert written(out) == before


def test_the_fkp_convention_is_a_correlation_and_a_sampling(source: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", PrepareSettings(2, convention="fkp", seed=4)
    sigmas = prepare([source], out, settings)
    kernels = {name: np.load(out / "kernels" / "x2" / f"{name}.npy") for name in sigmas}
    for name, kernel in kernels.items():
        assert kernel.shape == (11, 11) and kernel.sum() == pytest.approx(1)
        hr = read_rgb(out / "HR" / "x2" / f"{name}.png").astype(float)
        full = correlate(hr, kernel[:, :, None], mode="wrap")[::2, ::2]
        lr = read_rgb(out / "LRblur" / "x2" / f"{name}.png")
        assert np.abs(lr - np.clip(full, 0, 255)).max() <= 0.5 + 1e-6
        # FKP's variances for x2.
        assert 0.35 <= sigmas[name] ** 2 <= 5
    assert not np.allclose(kernels["bird"], kernels["cat"])
    with pytest.raises(InputError, match="leave out the range"):
        PrepareSettings(convention="fkp", sigma_range=(1, 2))


def test_sets_are_checked_before_the_first_is_written(source: Path, tmp_path: Path) -> None:
    write_rgb(photo(43, 50, 5), tmp_path / "other" / "bird.png")
    out, both = tmp_path / "out", [source, tmp_path / "other"]
    options = SetOptions(by_folder=True, gaussian8=True)
    done = list(prepare_sets(plan_sets(both, out, PrepareSettings(), options)))
    assert [each.destination.relative_to(out).as_posix() for each, _ in done] == [
        f"{name}/sigma{sigma:g}" for name in ("source", "other") for sigma in SIGMAS[4]
    ]
    lr = read_rgb(out / "other" / "sigma3.2" / "LRblur" / "x4" / "bird.png")
    np.testing.assert_array_equal(lr, degrade_gaussian(photo(43, 50, 5)[:40, :48], 3.2, 4))
    (tmp_path / "new" / "other" / "HR" / "x4").mkdir(parents=True)
    (tmp_path / "new" / "other" / "HR" / "x4" / "bird.png").touch()
    with pytest.raises(OutputError, match="would be lost"):
        plan_sets(both, tmp_path / "new", PrepareSettings(), SetOptions(by_folder=True))
    for sources, settings, words in (
        ([source / "bird.png"], PrepareSettings(), "--sets takes folders"),
        ([source, source], PrepareSettings(), "two folders are named 'source'"),
        ([source], PrepareSettings(convention="fkp"), "--gaussian8 gives the sigmas"),
    ):
        with pytest.raises(InputError, match=words):
            plan_sets(sources, tmp_path / "x", settings, options)
