"""Terminal output about a bundle: graphs, parity, engines and their layer precision."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ikc_deploy.bundle.engine_store import Engine
from ikc_deploy.bundle.manifest import GRAPHS, Bundle, UsrnetRecord
from ikc_deploy.bundle.measurements import Int8Parity
from ikc_deploy.cli._common import out_console

_MIB = 2**20


def print_fact(line: str) -> None:
    """Print a line on standard output without wrapping, markup or highlighting."""
    out_console.print(line, soft_wrap=True, highlight=False, markup=False)


def graphs_table(bundle: Bundle) -> Table:
    """Return a table of each graph's convolutions by dtype and its size in MiB."""
    manifest = bundle.manifest
    table = Table(
        title=Text(f"{manifest.name}, x{manifest.scale}, {manifest.precision}, {manifest.io}")
    )
    for column in ("graph", "convolutions", "MiB"):
        table.add_column(column)
    for name in GRAPHS:
        counts = _counts(manifest.convolutions.get(name, {}))
        size = bundle.files[f"{name}.onnx"].bytes
        table.add_row(name, Text(counts), f"{size / _MIB:.1f}")
    return table


def parity_table(bundle: Bundle) -> Table:
    """Return a table of the loop on the graphs against torch, one row for each step."""
    table = Table(title="against torch float32")
    for column in ("step", "image dB", "rounding alone", "frame levels", "largest |dh|"):
        table.add_column(column)
    parity = bundle.manifest.parity
    for step in parity.steps if parity else ():
        table.add_row(
            str(step.step),
            f"{step.image_db:.1f}",
            f"{step.rounding_db:.1f}",
            f"{step.frame_levels:.2f}",
            f"{step.code_error:.1e}",
        )
    return table


def deviations_table(bundle: Bundle) -> Table:
    """Return a table of each graph's RMS error against torch on the same inputs.

    Beside each error is the one that rounding alone causes.
    """
    table = Table(title="each graph against torch: RMS error, and that of rounding alone")
    for column in ("graph", "in float32", "rounding", "as it is", "rounding"):
        table.add_column(column)
    parity = bundle.manifest.parity
    for name, graph in parity.graphs.items() if parity else ():
        pairs = (graph.weights, graph.whole)
        figures = (f"{value:.1e}" for pair in pairs for value in (pair.found, pair.rounding))
        table.add_row(Text(name), *figures)
    return table


def print_verified(bundle: Bundle) -> None:
    """Print the comparison of every verified engine with ONNX Runtime, step by step."""
    for fingerprint, verification in bundle.manifest.verified.items():
        verdict = "passed" if verification.passed else "FAILED"
        print_fact(f"engine {fingerprint} against ONNX Runtime: {verdict}")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for column in ("step", "image dB", "largest |dh|"):
            table.add_column(column)
        for step in verification.steps:
            table.add_row(
                str(step.step), _figure(step.image_db, ".1f"), _figure(step.code_error, ".1e")
            )
        out_console.print(table)


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


def print_graphs(bundle: Bundle) -> None:
    """Print the graphs and everything that was measured on them."""
    manifest = bundle.manifest
    out_console.print(
        graphs_table(bundle), deviations_table(bundle), parity_table(bundle), sep="\n"
    )
    if manifest.usrnet is not None:
        print_fact(usrnet_line(manifest.usrnet))
    if manifest.parity is not None and manifest.parity.int8 is not None:
        print_fact(int8_line(manifest.parity.int8))


def int8_line(found: Int8Parity) -> str:
    """Return a line about the PSNR-Y that 8-bit convolutions cost."""
    return (
        f"PSNR-Y on {found.images} images not used for calibration: {found.int8_db:.2f} dB, "
        f"in float32 {found.fp32_db:.2f}: 8 bits cost {found.loss_db:.2f} dB, with "
        f"{len(found.kept)} convolutions of the SR network kept in float32"
    )


def print_engine(engine: Engine, state: str) -> None:
    """Print an engine's target, plan sizes, `state` (whether it is used here), and layers."""
    record = engine.record
    print_fact(
        f"engine {record.fingerprint}: {record.variant} {record.version}, "
        f"compute capability {', '.join(record.compute_capabilities)}"
    )
    for profile in record.profiles:
        print_fact(f"  LR frames (batch, height, width): {profile}")
    sizes = (f"{graph} {engine.plan_bytes(graph) / _MIB:.1f}" for graph in GRAPHS)
    print_fact(f"  plans: {', '.join(sizes)} MiB")
    print_fact(f"  {state}")
    out_console.print(_layer_precision_table(engine))


def _layer_precision_table(engine: Engine) -> Table:
    precisions = engine.record.layer_precision
    table = Table(title="layers", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("layer type", *GRAPHS):
        table.add_column(column)
    for kind in sorted({kind for graph in GRAPHS for kind in precisions[graph]}):
        counts = (Text(_counts(precisions[graph].get(kind, {}))) for graph in GRAPHS)
        table.add_row(Text(kind), *counts)
    return table


def _figure(value: float | None, form: str) -> str:
    return "not a number" if value is None else format(value, form)


def _counts(precisions: dict[str, int]) -> str:
    return ", ".join(f"{count} {dtype}" for dtype, count in precisions.items())
