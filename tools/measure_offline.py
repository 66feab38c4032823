"""Measure whether an offline method finds a known kernel, for docs/offline.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ikc_deploy.benchmarks.machine import describe_machine
from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import note
from ikc_deploy.cli._value_types import OUTPUT_FILE
from ikc_deploy.errors import InputError
from ikc_deploy.files import write_atomically
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.offline.methods import METHODS
from ikc_deploy.offline.optimize import Losses, optimize
from tools.measuring.known_kernel_case import KnownKernelCase, measure

_PATH = click.Path(path_type=Path)
_SHOWN_EVERY = 50


@click.command(context_settings=HELP)
@click.argument("hr", type=_PATH)
@click.option("--method", type=click.Choice(list(METHODS)), required=True)
@click.option("--scale", type=click.IntRange(2, 4), default=2, show_default=True)
@click.option(
    "--side", type=int, help="Side of the central crop in HR pixels.  [default: the whole image]"
)
@click.option("--kernel-seed", type=int, default=0, show_default=True, help="Seed of the blur.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the method.")
@click.option("--iterations", type=int, help="[default: the method's]")
@click.option("--set", "given", multiple=True, metavar="NAME=NUMBER", help="Set another setting.")
@click.option("--prior", type=_PATH, help="Weights of the kernel flow.")
@click.option("--state", type=OUTPUT_FILE, help="Save the fit in this file, or resume it.")
@click.option("--json", "path", type=OUTPUT_FILE, required=True, help="Output file.")
@reports_errors
def main(
    hr: Path,
    method: str,
    scale: int,
    side: int | None,
    kernel_seed: int,
    seed: int,
    iterations: int | None,
    given: tuple[str, ...],
    prior: Path | None,
    state: Path | None,
    path: Path,
) -> None:
    """Degrade HR in the FKP convention, fit, and write the result as JSON."""
    case = KnownKernelCase.cut(read_rgb(hr), side, scale, kernel_seed)
    chosen = METHODS[method]
    asked = {"seed": seed, "iterations": iterations, "alignment": "fkp", "prior": prior}
    asked = {name: value for name, value in asked.items() if value is not None}
    settings = chosen.settings(**asked, **_numbers(given))
    result = optimize(chosen.fit(case.lr, scale, settings), _show, state=state)
    report = {
        "method": method,
        "case": {"hr": hr.name, "side": side, "scale": scale, "kernel_seed": kernel_seed},
        "settings": _plain(asdict(settings)),
        "iterations": len(result.history),
        "last": result.history[-1],
        **measure(case, result),
        "machine": describe_machine(),
    }
    write_atomically(path, f"{json.dumps(report, indent=2)}\n".encode())
    click.echo(json.dumps({name: report[name] for name in ("psnr_y", "kernel_psnr")}))


def _show(done: int, total: int, losses: Losses) -> None:
    if done % _SHOWN_EVERY == 0:
        text = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        note(f"{done}/{total}: {text}")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as JSON values, without folders of this machine."""
    return {name: v.name if isinstance(v, Path) else v for name, v in settings.items()}


def _numbers(given: tuple[str, ...]) -> dict[str, float]:
    pairs = (text.partition("=") for text in given)
    try:
        return {name: int(value) if value.isdigit() else float(value) for name, _, value in pairs}
    except ValueError:
        raise InputError(f"invalid --set {', '.join(given)}: expected NAME=NUMBER") from None


if __name__ == "__main__":
    main()
