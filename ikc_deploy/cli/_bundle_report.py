"""Terminal output about a bundle: graphs, parity, engines and their layer precision."""

from __future__ import annotations

from ikc_deploy.bundle.engine_store import Engine
from ikc_deploy.bundle.manifest import Bundle, UsrnetRecord
from ikc_deploy.bundle.measurements import Int8Parity, Parity
from ikc_deploy.cli._ui import print_table, say

_MIB = 2**20


def print_graphs(bundle: Bundle) -> None:
    """Print the graphs and everything that was measured on them."""
    manifest = bundle.manifest
    _print_sizes(bundle)
    if manifest.parity is None:
        say("not compared with torch here: graphs completed from a template of shipped weights")
    else:
        _print_deviations(manifest.parity)
        _print_parity(manifest.parity)
    if manifest.usrnet is not None:
        say(usrnet_line(manifest.usrnet))
    if manifest.parity is not None and manifest.parity.int8 is not None:
        say(int8_line(manifest.parity.int8))


def _print_sizes(bundle: Bundle) -> None:
    """Print each graph's convolutions by dtype and its size in MiB."""
    manifest = bundle.manifest
    rows = (
        (
            name,
            _counts(manifest.convolutions.get(name, {})),
            f"{bundle.files[f'{name}.onnx'].bytes / _MIB:.1f}",
        )
        for name in bundle.loop.graphs
    )
    title = f"{manifest.name}, x{manifest.scale}, {manifest.precision}, {manifest.io}"
    print_table(title, ("graph", "convolutions", "MiB"), rows)


def _print_parity(parity: Parity) -> None:
    """Print the loop on the graphs against torch, one row for each step."""
    rows = (
        (
            str(step.step),
            f"{step.image_db:.1f}",
            f"{step.rounding_db:.1f}",
            f"{step.frame_levels:.2f}",
            f"{step.code_error:.1e}",
        )
        for step in parity.steps
    )
    header = ("step", "image dB", "rounding alone", "frame levels", "largest |dh|")
    print_table("against torch float32", header, rows)


def _print_deviations(parity: Parity) -> None:
    """Print each graph's RMS error against torch on the same inputs.

    Beside each error is the one that rounding alone causes.
    """
    rows = (
        (
            name,
            *(
                f"{value:.1e}"
                for pair in (graph.weights, graph.whole)
                for value in (pair.found, pair.rounding)
            ),
        )
        for name, graph in parity.graphs.items()
    )
    title = "each graph against torch: RMS error, and that of rounding alone"
    print_table(title, ("graph", "in float32", "rounding", "as it is", "rounding"), rows)


def print_verified(bundle: Bundle) -> None:
    """Print the comparison of every verified engine with ONNX Runtime, step by step."""
    for fingerprint, verification in bundle.manifest.verified.items():
        verdict = "passed" if verification.passed else "FAILED"
        rows = (
            (str(step.step), _figure(step.image_db, ".1f"), _figure(step.code_error, ".1e"))
            for step in verification.steps
        )
        say(f"engine {fingerprint} against ONNX Runtime: {verdict}")
        print_table("", ("step", "image dB", "largest |dh|"), rows)


def usrnet_line(record: UsrnetRecord) -> str:
    """Return a line about the fourth graph: sizes, margin, convolutions and parity."""
    parity = record.parity
    measured = "not compared with torch"
    if parity is not None:
        measured = (
            f"against torch float32 {parity.image_db:.1f} dB (rounding alone "
            f"{parity.rounding_db:.1f}), {parity.frame_levels:.2f} levels"
        )
    return (
        f"usrnet: LR frames of {record.height}x{record.width}, kernels of up to "
        f"{record.kernel_size}x{record.kernel_size}, margin {record.halo} pixels, "
        f"{_counts(record.convolutions)} convolutions; {measured}"
    )


def int8_line(found: Int8Parity) -> str:
    """Return a line about the PSNR-Y that 8-bit convolutions cost."""
    return (
        f"PSNR-Y on {found.images} images not used for calibration: {found.int8_db:.2f} dB, "
        f"in float32 {found.fp32_db:.2f}; 8 bits cost {found.blind.median_db:.2f} dB (median; "
        f"worst {found.blind.worst_db:.2f}), with the true kernel "
        f"{found.true_kernel.median_db:.2f} (worst {found.true_kernel.worst_db:.2f}), with "
        f"{len(found.kept)} convolutions kept in float32"
    )


def print_engine(engine: Engine, state: str) -> None:
    """Print an engine's target, plan sizes, `state` (whether it is used here), and layers."""
    record = engine.record
    say(
        f"engine {record.fingerprint}: {record.variant} {record.version}, "
        f"compute capability {', '.join(record.compute_capabilities)}"
    )
    for profile in record.profiles:
        say(f"  LR frames (batch, height, width): {profile}")
    sizes = (
        f"{graph} {engine.plan_bytes(graph) / _MIB:.1f}" for graph in engine.bundle.loop.graphs
    )
    say(f"  plans: {', '.join(sizes)} MiB")
    say(f"  {state}")
    _print_layer_precision(engine)


def _print_layer_precision(engine: Engine) -> None:
    precisions, graphs = engine.record.layer_precision, engine.bundle.loop.graphs
    rows = (
        (kind, *(_counts(precisions[graph].get(kind, {})) for graph in graphs))
        for kind in sorted({kind for graph in graphs for kind in precisions[graph]})
    )
    print_table("layers", ("layer type", *graphs), rows)


def _figure(value: float | None, form: str) -> str:
    return "not a number" if value is None else format(value, form)


def _counts(precisions: dict[str, int]) -> str:
    return ", ".join(f"{count} {dtype}" for dtype, count in precisions.items())
