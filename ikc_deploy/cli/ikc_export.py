"""ikc-export: export weights to a bundle, with TensorRT engines, or a repository for Triton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import click

from ikc_deploy.bundle.bundle_writer import check_bundle_folder
from ikc_deploy.bundle.engine_store import Engine
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.bundle.tensorrt_variants import TensorRTVariantName
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._bundle_report import (
    print_engine,
    print_graphs,
    print_verified,
)
from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._export_single import export_single
from ikc_deploy.cli._option_group import given_options, given_values, json_option, option_group
from ikc_deploy.cli._ui import note, print_json, progress_bars, say, status
from ikc_deploy.cli._value_types import HEIGHT_WIDTH, OUTPUT_FILE
from ikc_deploy.engines.targets import Target, parse_shapes, read_target
from ikc_deploy.errors import CheckpointError, EngineError, ExportError, InputError, needs_extra
from ikc_deploy.export.export_settings import ExportSettings, SingleFileSettings, UsrnetExport
from ikc_deploy.option_fields import Option
from ikc_deploy.serving.repository import check_repository, write_repository

_SHIPPED = "shipped"


@dataclass(frozen=True)
class ExportOutputs:
    """Where the bundle is written, and outputs for other programs."""

    out: Annotated[
        Path | None, Option("Folder of the bundle.", default="export/NAME-PRECISION")
    ] = None
    repository: Annotated[
        Path | None,
        Option(
            "Folder for a model repository of Triton Inference Server.",
            flags=("--triton",),
        ),
    ] = None
    single: Annotated[
        Path | None,
        Option(
            "Write one ONNX file for other programs instead of a bundle: docs/single-file.md.",
            metavar="FILE.onnx",
        ),
    ] = None


@dataclass(frozen=True)
class FourthGraph:
    """The fourth graph of the bundle.

    Raises:
        InputError: The size of its frames is given without the graph.
    """

    usrnet: Annotated[
        str | None,
        Option(
            "Add a fourth graph, which upscales under a given blur kernel of any shape: a USRNet "
            f"checkpoint, or the word {_SHIPPED}.",
            metavar="FILE",
        ),
    ] = None
    frames: UsrnetExport = field(default_factory=UsrnetExport)

    def __post_init__(self) -> None:
        """Refuse a size without the graph."""
        if self.frames.size is not None and self.usrnet is None:
            raise InputError("--res is the size of the fourth graph's frames; give --usrnet too")

    def settings(self) -> UsrnetExport | None:
        """Return the settings of the graph; None for no graph."""
        if self.usrnet is None:
            return None
        return replace(self.frames, weights=None if self.usrnet == _SHIPPED else Path(self.usrnet))


@dataclass(frozen=True)
class EngineOptions:
    """The engine of the bundle, and its comparison with ONNX Runtime."""

    variant: Annotated[
        Literal[TensorRTVariantName, "auto"] | None,
        Option(
            "Add a TensorRT engine: built on the target GPU (tensorrt), ahead of time "
            "(tensorrt-rtx), or by the variant that works here (auto).",
            flags=("--engine",),
        ),
    ] = None
    target_file: Annotated[
        Path | None,
        Option(
            "Target of the --engine: a name such as rtx-desktop, or a TOML file.",
            default="the GPU of this machine",
            flags=("--target",),
        ),
    ] = None
    shapes: Annotated[
        tuple[str, ...],
        Option(
            "LR frames that the --engine accepts, MIN:OPT:MAX, for example "
            "64x64:256x256:540x960 (HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH), instead of the target's."
        ),
    ] = ()
    verify: Annotated[
        Literal["polygraphy"] | None,
        Option(
            "Compare the new engine with ONNX Runtime, per graph and per step, on a machine that "
            "runs it; with --bundle and no --engine, every engine that runs here."
        ),
    ] = None

    def target(self) -> Target:
        """Return the target of the engine.

        Raises `InputError` if the target is invalid, or given without an engine.
        """
        if self.variant is None and (self.target_file or self.shapes):
            raise InputError("--target and --shapes belong to --engine; give --engine too")
        target = read_target(self.target_file) if self.target_file else Target()
        if not self.shapes:
            return target
        return replace(target, profiles=tuple(map(parse_shapes, self.shapes)))


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@option_group(BundleOptions, "source")
@option_group(ExportSettings, "settings")
@option_group(ExportOutputs, "outputs", types={"single": OUTPUT_FILE})
@option_group(FourthGraph, "fourth", types={"size": HEIGHT_WIDTH})
@option_group(EngineOptions, "engine")
@option_group(SingleFileSettings, "single_settings")
@json_option
def main(
    source: BundleOptions,
    settings: ExportSettings,
    outputs: ExportOutputs,
    fourth: FourthGraph,
    engine: EngineOptions,
    single_settings: SingleFileSettings,
    as_json: bool,
) -> None:
    """Export predictor, SFTMD and corrector as ONNX graphs in a verified bundle.

    With --bundle, nothing is exported: --usrnet, --engine, --verify and --triton use the existing
    bundle, and only --usrnet needs torch.

    With --usrnet, a fourth graph is added, for ikc-upscale --kernel.

    With --engine, a TensorRT engine is added. If that fails, the bundle remains usable.

    With --triton, the bundle (with its plans of the variant tensorrt, if any) is also written as
    five models for Triton Inference Server: see docs/serving.md.

    With --single, the whole loop (or, with --sigma, the SR network under that blur) becomes one
    ONNX file with one input and one output, and no bundle is written.
    """
    if outputs.single is not None:
        _check_single()
        precision = given_values(ExportSettings).get("precision")
        export_single(outputs.single, source, single_settings, precision, as_json)
        return
    if given_options(SingleFileSettings):
        raise InputError("--iters and --sigma belong to --single; give --single too")
    target = engine.target()
    if outputs.repository is not None:
        check_repository(outputs.repository)
    bundle = _open(source, outputs) if source.folder else _export(source, outputs.out, settings)
    bundle = _with_fourth_graph(bundle, fourth.settings())
    added = _add_engine(bundle, engine.variant, target) if engine.variant else None
    bundle = added.bundle if added else bundle
    if engine.verify is not None:
        _verify(bundle, added)
        bundle = Bundle.open(bundle.path)
    models = write_repository(bundle, outputs.repository) if outputs.repository else {}
    if as_json:
        print_json(_facts(bundle, added, models))
    else:
        _print(bundle, added, models)


def _check_single() -> None:
    """Raise `InputError` for options that are for bundles."""
    refused = [
        *given_options(ExportSettings, without=("precision",)),
        *given_options(ExportOutputs, without=("single",)),
        *given_options(FourthGraph),
        *given_options(EngineOptions),
    ]
    if refused:
        raise InputError(f"--single writes one file and no bundle; omit {', '.join(refused)}")


def _open(source: BundleOptions, outputs: ExportOutputs) -> Bundle:
    """Open an existing bundle; raise `InputError` unless something is added to it or made of it."""
    written = [*given_options(FourthGraph), *given_options(EngineOptions)]
    changed = given_options(ExportSettings) or outputs.out
    if changed or not (written or outputs.repository):
        raise InputError(
            "--bundle uses an existing bundle; give --usrnet, --engine, --verify or --triton with "
            "it, and no option that changes its three graphs"
        )
    bundle = source.open()
    if written:
        check_bundle_folder(bundle.path)
    return bundle


def _export(source: BundleOptions, out: Path | None, settings: ExportSettings) -> Bundle:
    with needs_extra("export", "ikc-export"):
        from ikc_deploy.export.exporter import export_bundle
        from ikc_deploy.networks.weights_loader import load_weights
    if out is not None:
        check_bundle_folder(out)
    loaded = load_weights(source.chosen_weights)
    folder = out or Path("export") / f"{loaded.source.name}-{settings.precision}"
    with status("loading") as shown:
        return export_bundle(loaded, folder, settings, shown.update)


def _with_fourth_graph(bundle: Bundle, settings: UsrnetExport | None) -> Bundle:
    if settings is None:
        return bundle
    with needs_extra("export", "ikc-export --usrnet"):
        from ikc_deploy.export.usrnet_graph import add_usrnet
    try:
        with status("loading") as shown:
            return add_usrnet(bundle.path, settings, shown.update)
    except (CheckpointError, ExportError, InputError) as error:
        complete = f"The bundle '{bundle.path}' is complete without it"
        raise type(error)(f"{error}. {complete}") from error


def _add_engine(
    bundle: Bundle, variant: TensorRTVariantName | Literal["auto"], target: Target
) -> Engine:
    from ikc_deploy.engines.cache import add_engine
    from ikc_deploy.engines.toolchain import choose_toolchain

    try:
        toolchain, passed = choose_toolchain(variant, target)
        for name, reason in passed.items():
            note(f"auto: not {name}, as {reason}")
        note(f"engine: {toolchain}")
        with progress_bars() as bars:

            def report(graph: str, phase: str, done: int, total: int) -> None:
                bars.show(graph, done, total, phase)

            engine, built = add_engine(bundle.path, toolchain, target, report)
    except EngineError as error:
        raise EngineError(f"{error}. The bundle '{bundle.path}' is complete without it") from error
    if not built:
        note("the bundle had this engine already")
    return engine


def _verify(bundle: Bundle, added: Engine | None) -> None:
    from ikc_deploy.engines.verify import runnable_engines, verify_engine

    for engine in [added] if added else runnable_engines(bundle):
        with status(f"comparing engine {engine.record.fingerprint}"):
            verify_engine(bundle, engine)


def _facts(bundle: Bundle, engine: Engine | None, models: Mapping[str, Path]) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "name": manifest.name,
        "scale": manifest.scale,
        "precision": manifest.precision,
        "io": manifest.io,
        "convolutions": manifest.convolutions,
        "usrnet": manifest.usrnet and asdict(manifest.usrnet),
        "parity": manifest.parity and asdict(manifest.parity),
        "random_weights": manifest.random_weights,
        "verified": {name: asdict(opinion) for name, opinion in manifest.verified.items()},
        "engine": engine and asdict(engine.record),
        "triton": {name: str(model) for name, model in models.items()},
    }


def _print(bundle: Bundle, engine: Engine | None, models: Mapping[str, Path]) -> None:
    print_graphs(bundle)
    if engine is not None:
        print_engine(engine, f"in {engine.path}")
    print_verified(bundle)
    say(f"bundle: {bundle.path}")
    for name, model in models.items():
        say(f"Triton model {name}: {model}")


if __name__ == "__main__":
    main()
