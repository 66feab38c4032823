"""Write the card of shipped weights from their metadata and the measurements of ikc-eval.

    ikc-eval --weights x4-lite --hr Set5 --per-sigma --markdown set5.md
    python training/card.py x4-lite set5.md [more.md ...] [--note note.md]

The figures are copied unchanged; a note is for information that is not in the recipe.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import click

import ikc_deploy.weights
from ikc_deploy.files import write_atomically
from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.checkpoints import load_checkpoint
from ikc_deploy.networks.loop_networks import LoopNetworks

_IMAGES: Final = {
    "hr_free": "435 freely licensed photographs ([authors and licences]"
    "(../../training/hr_free_LICENSES.md))",
    "bsds400": "BSDS500 train and test (400, the images of BSD100 not among them)",
    "t91": "T91 (91)",
    "imagenet883_half": "ImageNet samples halved (883)",
}
_NETWORKS: Final = {
    "sftmd": "F",
    "predictor": "P",
    "corrector": "C",
    "joint": "all three",
    "dan": "Restorer and Estimator",
}


@click.command()
@click.argument("name")
@click.argument("figures", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--note", type=click.Path(path_type=Path, exists=True), help="Markdown to append.")
def main(name: str, figures: tuple[Path, ...], note: Path | None) -> None:
    """Write the card of the shipped weights NAME with the tables of FIGURES."""
    folder = Path(ikc_deploy.weights.__file__).parent
    networks = load_checkpoint(folder / f"{name}.safetensors")
    log = [json.loads(line) for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]
    parts = [_head(name, networks, log), "## Figures", _WHAT_FIGURES_ARE]
    parts += [_one_level_down(path.read_text().strip()) for path in figures]
    parts += [note.read_text().strip()] if note else []
    write_atomically(folder / f"{name}.md", ("\n\n".join(parts) + "\n").encode())


_WHAT_FIGURES_ARE: Final = (
    "Blind, at fixed steps, by `ikc-eval --per-sigma`; what the columns mean is in "
    "[docs/evaluation.md](../../docs/evaluation.md). Set5 was looked at during training; nothing "
    "was selected by it but settings of the recipes."
)


def _head(name: str, networks: LoopNetworks, log: list[dict[str, Any]]) -> str:
    settings, training = networks.architecture, networks.training
    parameters = sum(p.numel() for m in networks.modules().values() for p in m.parameters())
    rows = {
        "files": f"`{name}.safetensors`, `{name}.log.jsonl` (log of the run)",
        "recipe": f"[training/{training['recipe']}.toml](../../training/{training['recipe']}.toml),"
        f" seed {training['seed']}",
        "trained on": ", ".join(_IMAGES.get(folder, folder) for folder in training["data"])
        + "; no image of Set5, Set14 or Kodak",
        "trained for": _trained_for(training, log),
        "knows": _knows(settings, training),
        "does not know": _does_not_know(settings, training),
        "licence": "the weights are part of this Apache-2.0 project; the training images allow "
        "research use, so check whether that suits you",
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        f"# {name}\n\n"
        f"Blind x{settings.scale} super-resolution for {_blur(settings)} blur, small enough for "
        f"CPUs: F with {settings.channels} channels and {settings.blocks} blocks, P and C of the "
        f"{settings.design} design, codes of {settings.code_size} components; "
        f"{parameters / 1e6:.2f} million parameters in all, stored as float16.\n\n"
        f"| | |\n|---|---|\n{table}"
    )


def _trained_for(training: dict[str, Any], log: list[dict[str, Any]]) -> str:
    # Each line of the log covers the steps since the line before it. A stage that was trained
    # twice counts from 0 again.
    steps: dict[str, int] = {}
    seconds, before = 0.0, ("", 0)
    for entry in log:
        stage, step = entry["stage"], entry["step"]
        if "seconds_per_step" not in entry:
            continue
        since = step - (before[1] if before[0] == stage and before[1] < step else 0)
        steps[stage] = steps.get(stage, 0) + since
        seconds += entry["seconds_per_step"] * since
        before = (stage, step)
    listed = ", ".join(f"{count:,} steps of {_NETWORKS[stage]}" for stage, count in steps.items())
    start = f", from the weights of {training['start']}" if training.get("start") else ""
    return f"{listed}{start}; {seconds / 60:.0f} minutes by the log"


def _blur(settings: Architecture) -> str:
    return "isotropic Gaussian" if settings.kernels == "isotropic" else "elliptic Gaussian"


def _knows(settings: Architecture, training: dict[str, Any]) -> str:
    low, high = settings.sigma_range
    axes = "" if settings.kernels == "isotropic" else " along each axis, any direction"
    known = [f"{_blur(settings)}s, sigma {low:g} to {high:g} HR pixels{axes}, 21x21"]
    degradation = training.get("degradation", {})
    known.append("LR downscaled bicubically, 8 bits")
    if degradation.get("noise"):
        known.append(f"Gaussian noise up to {degradation['noise']:g} levels")
    if degradation.get("jpeg"):
        known.append("JPEG of quality {} to {}".format(*degradation["jpeg"]))
    return "; ".join(known)


def _does_not_know(settings: Architecture, training: dict[str, Any]) -> str:
    degradation = training.get("degradation", {})
    unknown = [] if degradation.get("noise") else ["noise"]
    unknown += [] if degradation.get("jpeg") else ["compression"]
    unknown += ["motion blur"] if settings.kernels == "anisotropic" else []
    unknown += ["motion or anisotropic blur"] if settings.kernels == "isotropic" else []
    return ", ".join([*unknown, "other scales"])


def _one_level_down(tables: str) -> str:
    return re.sub(r"^#", "##", tables, flags=re.MULTILINE)


if __name__ == "__main__":
    main()
