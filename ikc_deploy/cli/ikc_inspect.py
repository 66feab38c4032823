"""ikc-inspect: show the contents of a bundle, and which of its engines run here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

import click

from ikc_deploy.bundle.engine_choice import choose_engine
from ikc_deploy.bundle.engine_store import Engine, Shape, read_engines
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._bundle_report import (
    print_engine,
    print_graphs,
    print_verified,
)
from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import json_option, option_group
from ikc_deploy.cli._ui import print_json, say
from ikc_deploy.cli._value_types import PATH
from ikc_deploy.cli._weights_list import list_weights
from ikc_deploy.engines.targets import parse_shape
from ikc_deploy.engines.toolchain import this_host
from ikc_deploy.errors import InputError
from ikc_deploy.option_fields import Option
from ikc_deploy.text import printable

_MAX_UNLISTED: Final = 20
_ALL: Final = ""
"""Value of --weights without a name."""


@dataclass(frozen=True)
class InspectOptions:
    """What is shown."""

    weights: Annotated[
        str | None,
        Option(
            "Show the bundle of shipped weights or of a checkpoint file, exported into the cache "
            "on first use; without NAME, list the shipped weights with purpose, figures and size.",
            metavar="[NAME]",
            alone=_ALL,
        ),
    ] = None
    shape: Annotated[
        str | None,
        Option(
            "Size of the LR frames to choose an engine for: HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH.",
            default="any",
        ),
    ] = None


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@click.argument("folder", metavar="[BUNDLE]", type=PATH, required=False)
@option_group(InspectOptions, "options")
@json_option
def main(folder: Path | None, options: InspectOptions, as_json: bool) -> None:
    """Verify BUNDLE and show its graphs, parity and engines with their layer precision.

    For each engine it shows whether it is used on this machine, and if not, the reason.
    """
    weights = options.weights
    if weights == _ALL:
        if folder is not None or options.shape is not None:
            raise InputError("--weights lists the shipped weights; leave out BUNDLE and --shape")
        _print_weights(as_json)
        return
    if folder is None and weights is None:
        raise InputError("name a BUNDLE, or give --weights to list the shipped weights")
    if folder is not None and weights is not None:
        raise InputError("give BUNDLE or --weights NAME, not both")
    wanted = None if options.shape is None else parse_shape(options.shape)
    bundle = BundleOptions(weights, folder).open()
    states = _engines_here(bundle, wanted)
    if as_json:
        print_json(_facts(bundle, states))
    else:
        _print(bundle, states)


def _print_weights(as_json: bool) -> None:
    entries = list_weights()
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        default = ", the default" if entry.default else ""
        say(f"{entry.name} ({entry.bytes / 2**20:.1f} MiB{default})")
        for line in (entry.purpose, entry.knows and f"knows {entry.knows}", entry.figures):
            if line:
                say(f"    {line}")


def _engines_here(bundle: Bundle, shape: Shape | None) -> list[tuple[Engine, str]]:
    """Return every engine with the reason why it is not used here, empty for the one that is."""
    states: list[tuple[Engine, str]] = []
    used = ""
    for variant in TENSORRT_VARIANTS:
        engines = [e for e in read_engines(bundle) if e.record.variant == variant]
        # A variant without engines is not even imported.
        choice = choose_engine(bundle, this_host(variant), shape) if engines else None
        if choice is None:
            continue
        if choice.engine is not None:
            states.append(
                (choice.engine, f"it fits as well, but {used} has priority" if used else "")
            )
            used = used or choice.engine.record.variant
        states += [(e, reason) for e, reason in choice.others if e.record.variant == variant]
    return states


def _facts(bundle: Bundle, states: list[tuple[Engine, str]]) -> Mapping[str, object]:
    manifest = asdict(bundle.manifest)
    graphs = {graph: asdict(bundle.files[f"{graph}.onnx"]) for graph in bundle.loop.graphs}
    engines = [
        asdict(engine.record)
        | {
            "plan_bytes": {graph: engine.plan_bytes(graph) for graph in bundle.loop.graphs},
            "used_here": not reason,
            "reason": reason,
        }
        for engine, reason in states
    ]
    return {
        "bundle": str(bundle.path),
        "manifest": manifest,
        "graphs": graphs,
        "engines": engines,
        "unlisted": bundle.unlisted(),
    }


def _print(bundle: Bundle, states: list[tuple[Engine, str]]) -> None:
    manifest = bundle.manifest
    print_graphs(bundle)
    say(f"weights: {manifest.weights_sha256}" + (" (random)" * manifest.random_weights))
    say(f"written by: {', '.join(f'{k} {v}' for k, v in manifest.tools.items())}")
    for engine, reason in states:
        print_engine(engine, f"not used here: {reason}" if reason else "used here")
    print_verified(bundle)
    if not states:
        say("engines: none; add one with ikc-export --bundle BUNDLE --engine")
    elif all(reason for _, reason in states):
        say("no engine is used here: ONNX Runtime runs the graphs")
    total = sum(record.bytes for record in bundle.files.values())
    _print_unlisted(bundle.unlisted())
    say(f"{bundle.path}: {len(bundle.files)} files, {total / 2**20:.1f} MiB, all verified")


def _print_unlisted(names: Sequence[str]) -> None:
    for name in names[:_MAX_UNLISTED]:
        say(f"not part of the bundle: '{printable(name)}'; it is never used; delete it")
    if len(names) > _MAX_UNLISTED:
        say(f"and {len(names) - _MAX_UNLISTED} more that are not part of the bundle")


if __name__ == "__main__":
    main()
