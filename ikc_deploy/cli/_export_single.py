"""ikc-export --single: one ONNX file for other programs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._ui import print_json, say, status
from ikc_deploy.errors import needs_extra
from ikc_deploy.export.export_settings import SingleFileSettings

if TYPE_CHECKING:
    from ikc_deploy.export.single_file import SingleFile


def export_single(
    path: Path,
    source: BundleOptions,
    settings: SingleFileSettings,
    precision: Precision | None,
    as_json: bool,
) -> None:
    """Write the file `path` and print what it is and how exact.

    Args:
        path: The file to write.
        source: The weights to export, or the bundle to compose the file of.
        settings: Number of corrections, or blur.
        precision: Precision of the file; None for that of the bundle, or the default.
        as_json: Whether to print the facts as JSON.

    Raises:
        IkcError: As `export_single_file` and `write_single_file`, or the weights or the bundle
            cannot be read.
    """
    with needs_extra("export", "ikc-export --single"):
        from ikc_deploy.export import single_file
        from ikc_deploy.networks.weights_loader import load_weights
    single_file.check_single_file(path)
    settings = replace(settings, precision=precision or settings.precision)
    if source.folder is not None:
        bundle = Bundle.open(source.folder)
        settings = replace(settings, precision=precision or bundle.manifest.precision)
        with status("loading") as shown:
            written = single_file.write_single_file(bundle, path, settings, shown.update)
    else:
        weights = load_weights(source.chosen_weights)
        with status("loading") as shown:
            written = single_file.export_single_file(weights, path, settings, shown.update)
    if as_json:
        print_json({**asdict(written), "path": str(path)})
    else:
        _print(written, settings)


def _print(written: SingleFile, settings: SingleFileSettings) -> None:
    same = "equal to" if written.equal else f"{written.image_db:.1f} dB from"
    facts = {key.removeprefix("ikc_"): value for key, value in written.metadata.items()}
    loop = f"{facts['iters']} corrections" if settings.sigma is None else f"sigma {facts['sigma']}"
    say(f"{written.path}: {facts['weights']}, x{facts['scale']}, {loop}, {facts['precision']}")
    say(f"{written.bytes / 2**20:.1f} MiB; its image is {same} the runtime's in ONNX Runtime")
