"""ikc-export: export weights to a bundle, with TensorRT engines, or a repository for Triton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import click

from ikc_deploy.bundle.bundle_writer import check_bundle_folder
from ikc_deploy.bundle.engine_store import Engine
from ikc_deploy.bundle.manifest import Bundle, FrameIO, Precision
from ikc_deploy.bundle.tensorrt_variants import TENSORRT_VARIANTS, TensorRTVariantName
from ikc_deploy.cli._bundle_report import (
    print_engine,
    print_graphs,
    print_verified,
)
from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import note, print_json, progress_bars, say, status
from ikc_deploy.cli._value_types import HEIGHT_WIDTH, OUTPUT_FILE, PATH, FiniteNumber
from ikc_deploy.engines.targets import Target, parse_shapes, read_target
from ikc_deploy.errors import (
    CheckpointError,
    EngineError,
    ExportError,
    InputError,
    MissingExtraError,
)
from ikc_deploy.serving.repository import check_repository, write_repository
from ikc_deploy.weights import DEFAULT_WEIGHTS


@click.command(context_settings=HELP)
@reports_errors
@click.option(
    "--weights",
    help="Shipped weights, a checkpoint file, or random:ARCHITECTURE (x2, x3, x4, x4-lite, ...).  "
    f"[default: {DEFAULT_WEIGHTS}]",
)
@click.option("--fp32", "precision", flag_value="fp32", help="Convolutions in float32.  [default]")
@click.option("--fp16", "precision", flag_value="fp16", help="Convolutions in float16.")
@click.option(
    "--int8",
    "precision",
    flag_value="int8",
    help="Convolutions in 8 bits, if the loss of PSNR is within its limit.",
)
@click.option(
    "--calibrate",
    type=PATH,
    help="Folder of HR images for --int8: half of them calibrate, the others measure.  "
    "[default: synthetic images]",
)
@click.option(
    "--io",
    type=click.Choice(["uint8", "float"]),
    help="Layout of frames: N,H,W,3 uint8, or N,3,H,W float32 in [0,1].  [default: uint8]",
)
@click.option(
    "--out",
    type=PATH,
    help="Folder of the bundle.  [default: export/NAME-PRECISION]",
)
@click.option(
    "--bundle",
    "folder",
    type=PATH,
    help="Existing bundle for --usrnet, --engine, --verify or --triton; nothing is exported, and "
    "only --usrnet needs torch.",
)
@click.option(
    "--usrnet",
    metavar="FILE",
    help="Add a fourth graph, which upscales under a given blur kernel of any shape: a USRNet "
    "checkpoint, or the word shipped.",
)
@click.option(
    "--res",
    type=HEIGHT_WIDTH,
    help="Height and width of the LR frames that the fourth graph accepts, for example 128x128; "
    "others are cut into such tiles.  [default: for SR frames of about 512x512]",
)
@click.option(
    "--engine",
    "variant",
    type=click.Choice([*TENSORRT_VARIANTS, "auto"]),
    help="Add a TensorRT engine: built on the target GPU (tensorrt), ahead of time (tensorrt-rtx), "
    "or by the variant that works here (auto).",
)
@click.option(
    "--target",
    "target_file",
    type=PATH,
    help="Target of the --engine: a name such as rtx-desktop, or a TOML file.  "
    "[default: the GPU of this machine]",
)
@click.option(
    "--shapes",
    multiple=True,
    help="LR frames that the --engine accepts, MIN:OPT:MAX, for example 64x64:256x256:540x960 "
    "(HEIGHTxWIDTH or BATCHxHEIGHTxWIDTH; repeatable), instead of the target's.",
)
@click.option(
    "--verify",
    type=click.Choice(["polygraphy"]),
    help="Compare the new engine with ONNX Runtime, per graph and per step, on a machine that runs "
    "it; with --bundle and no --engine, every engine that runs here.",
)
@click.option(
    "--triton",
    "repository",
    type=PATH,
    help="Folder for a model repository of Triton Inference Server.",
)
@click.option(
    "--single",
    type=OUTPUT_FILE,
    metavar="FILE.onnx",
    help="Write one ONNX file for other programs instead of a bundle: docs/single-file.md.",
)
@click.option(
    "--iters",
    type=int,
    help="Corrections in the --single file.  [default: the number that the weights recommend]",
)
@click.option(
    "--sigma",
    type=FiniteNumber(),
    help="Known blur of the --single file, in pixels of the output: nothing is estimated then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def main(
    weights: str | None,
    precision: Precision | None,
    calibrate: Path | None,
    io: FrameIO | None,
    out: Path | None,
    folder: Path | None,
    usrnet: str | None,
    res: tuple[int, int] | None,
    variant: TensorRTVariantName | Literal["auto"] | None,
    target_file: Path | None,
    shapes: tuple[str, ...],
    verify: str | None,
    repository: Path | None,
    single: Path | None,
    iters: int | None,
    sigma: float | None,
    as_json: bool,
) -> None:
    """Export predictor, SFTMD and corrector as ONNX graphs in a verified bundle.

    With --usrnet, a fourth graph is added, for ikc-upscale --kernel.

    With --engine, a TensorRT engine is added. If that fails, the bundle remains usable.

    With --triton, the bundle (with its plans of the variant tensorrt, if any) is also written as
    five models for Triton Inference Server: see docs/serving.md.

    With --single, the whole loop (or, with --sigma, the SR network under that blur) becomes one
    ONNX file with one input and one output, and no bundle is written.
    """
    if single is not None:
        others = {
            "--out": out,
            "--calibrate": calibrate,
            "--io": io,
            "--usrnet": usrnet,
            "--res": res,
            "--engine": variant,
            "--target": target_file,
            "--shapes": shapes or None,
            "--verify": verify,
            "--triton": repository,
        }
        refused = [name for name, value in others.items() if value is not None]
        if refused:
            raise InputError(f"--single writes one file and no bundle; omit {', '.join(refused)}")
        _single(single, weights, folder, precision, iters, sigma, as_json)
        return
    if iters is not None or sigma is not None:
        raise InputError("--iters and --sigma belong to --single; give --single too")
    target = _target(variant, target_file, shapes)
    if res is not None and usrnet is None:
        raise InputError("--res is the size of the fourth graph's frames; give --usrnet too")
    if repository is not None:
        check_repository(repository)
    if folder is None:
        bundle = _export(
            weights or DEFAULT_WEIGHTS,
            out,
            precision=precision,
            io=io,
            calibrate=calibrate,
        )
    elif not (usrnet or variant or verify or repository) or (
        (weights, precision, calibrate, io, out) != (None,) * 5
    ):
        raise InputError(
            "--bundle uses an existing bundle; give --usrnet, --engine, --verify or --triton with "
            "it, and no option that changes its three graphs"
        )
    else:
        bundle = Bundle.open(folder)
        if usrnet or variant or verify:
            check_bundle_folder(folder)
    if usrnet is not None:
        bundle = _add_usrnet(bundle, usrnet, res)
    engine = _add_engine(bundle, variant, target) if variant else None
    bundle = engine.bundle if engine else bundle
    if verify is not None:
        _verify(bundle, engine)
        bundle = Bundle.open(bundle.path)
    models = write_repository(bundle, repository) if repository else {}
    if as_json:
        print_json(_facts(bundle, engine, models))
    else:
        _print(bundle, engine, models)


def _target(variant: str | None, file: Path | None, shapes: tuple[str, ...]) -> Target:
    if variant is None and (file or shapes):
        raise InputError("--target and --shapes belong to --engine; give --engine too")
    target = read_target(file) if file else Target()
    return replace(target, profiles=tuple(map(parse_shapes, shapes))) if shapes else target


def _export(weights: str, out: Path | None, **settings: Any) -> Bundle:
    try:
        from ikc_deploy.export.exporter import ExportSettings, export_bundle
        from ikc_deploy.networks.weights_loader import load_weights
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "ikc-export") from error
    chosen = ExportSettings(**{name: value for name, value in settings.items() if value})
    if out is not None:
        check_bundle_folder(out)
    loaded = load_weights(weights)
    folder = out or Path("export") / f"{loaded.source.name}-{chosen.precision}"
    with status("loading") as shown:
        return export_bundle(loaded, folder, chosen, shown.update)


def _single(
    path: Path,
    weights: str | None,
    folder: Path | None,
    precision: Precision | None,
    iters: int | None,
    sigma: float | None,
    as_json: bool,
) -> None:
    if weights is not None and folder is not None:
        raise InputError("give --weights or --bundle, not both")
    try:
        from ikc_deploy.export import single_file
        from ikc_deploy.networks.weights_loader import load_weights
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "ikc-export --single") from error
    single_file.check_single_file(path)
    bundle = None if folder is None else Bundle.open(folder)
    chosen = precision or (bundle.manifest.precision if bundle else "fp32")
    settings = single_file.SingleFileSettings(chosen, iters, sigma)
    loaded = None if bundle else load_weights(weights or DEFAULT_WEIGHTS)
    with status("loading") as shown:
        if bundle is not None:
            written = single_file.write_single_file(bundle, path, settings, shown.update)
        elif loaded is not None:
            written = single_file.export_single_file(loaded, path, settings, shown.update)
    if as_json:
        print_json({**asdict(written), "path": str(path)})
        return
    same = "equal to" if written.equal else f"{written.image_db:.1f} dB from"
    facts = {key.removeprefix("ikc_"): value for key, value in written.metadata.items()}
    loop = f"sigma {facts['sigma']}" if sigma is not None else f"{facts['iters']} corrections"
    say(f"{path}: {facts['weights']}, x{facts['scale']}, {loop}, {facts['precision']}")
    say(f"{written.bytes / 2**20:.1f} MiB; its image is {same} the runtime's in ONNX Runtime")


def _add_usrnet(bundle: Bundle, weights: str, size: tuple[int, int] | None) -> Bundle:
    try:
        from ikc_deploy.export.usrnet_graph import UsrnetExport, add_usrnet
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "ikc-export --usrnet") from error
    asked = UsrnetExport(None if weights == "shipped" else Path(weights), size)
    try:
        with status("loading") as shown:
            return add_usrnet(bundle.path, asked, shown.update)
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
