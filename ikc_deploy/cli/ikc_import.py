"""ikc-import: convert published checkpoints to checkpoints of this project."""

from __future__ import annotations

from pathlib import Path

import click

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._ui import say
from ikc_deploy.cli._value_types import OUTPUT_FILE, PATH
from ikc_deploy.errors import InputError, MissingExtraError


@click.command(context_settings=HELP)
@reports_errors
@click.option("--sftmd", type=PATH, help="IKC's F: SFTMD .pth file.")
@click.option("--predictor", type=PATH, help="IKC's P: Predictor .pth file.")
@click.option("--corrector", type=PATH, help="IKC's C: Corrector .pth file.")
@click.option("--pca", type=PATH, help="IKC's PCA matrix [pixels, code size], .pth.")
@click.option("--fkp", type=PATH, help="FKP's kernel prior: FKP_x2.pt, FKP_x3.pt or FKP_x4.pt.")
@click.option("--usrnet", type=PATH, help="USRNet: usrnet_tiny.pth or another size.")
@click.option("--dan", type=PATH, help="DAN or DANv2 of any scale and size, .pth.")
@click.option("--out", "-o", type=OUTPUT_FILE, required=True, help="Output file (.safetensors).")
def main(
    sftmd: Path | None,
    predictor: Path | None,
    corrector: Path | None,
    pca: Path | None,
    fkp: Path | None,
    usrnet: Path | None,
    dan: Path | None,
    out: Path,
) -> None:
    """Convert .pth files of a reference implementation into one checkpoint.

    Give either IKC's four files, or the one file of another network. Scale and sizes are derived
    from the tensors. Files are read with weights_only: nothing in them is executed. To export the
    networks of IKC or DAN: ikc-export --weights OUT; to export a USRNet: ikc-export --usrnet OUT
    """
    networks = {"--sftmd": sftmd, "--predictor": predictor, "--corrector": corrector, "--pca": pca}
    given = [path for path in networks.values() if path is not None]
    readers = {"--fkp": (fkp, _import_flow), "--usrnet": (usrnet, _import_usrnet)}
    readers["--dan"] = (dan, _import_dan)
    alone = [(path, read) for path, read in readers.values() if path is not None]
    try:
        if len(alone) == 1 and not given:
            path, read = alone[0]
            say(f"{out}: {read(path, out)}")
        elif not alone and len(given) == len(networks):
            say(f"{out}: {_import_ikc(given, out)}")
        else:
            raise InputError(
                f"give either {', '.join(networks)} together, or one of {', '.join(readers)} alone"
            )
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "ikc-import") from error


def _import_ikc(files: list[Path], out: Path) -> str:
    from ikc_deploy.networks.checkpoints import save_checkpoint
    from ikc_deploy.networks.reference import import_reference

    networks = import_reference(*files)
    save_checkpoint(networks, out)
    settings = networks.architecture
    return (
        f"x{settings.scale}, {settings.channels} channels, {settings.blocks} blocks, "
        f"codes of {settings.code_size}"
    )


def _import_dan(file: Path, out: Path) -> str:
    from ikc_deploy.networks.checkpoints import save_checkpoint
    from ikc_deploy.networks.reference_dan import import_dan

    networks = import_dan(file)
    save_checkpoint(networks, out)
    settings = networks.architecture
    name = "DAN" if settings.design == "dan1" else "DANv2"
    return (
        f"{name}, x{settings.scale}, {settings.channels} channels, "
        f"{settings.groups * settings.blocks} blocks, codes of {settings.code_size}"
    )


def _import_flow(file: Path, out: Path) -> str:
    from ikc_deploy.networks.flow import save_flow
    from ikc_deploy.networks.reference_flow import import_flow

    flow = import_flow(file)
    save_flow(flow, out, {"source": "imported reference checkpoint"})
    return f"x{flow.scale}, kernels of {flow.size}x{flow.size}"


def _import_usrnet(file: Path, out: Path) -> str:
    from ikc_deploy.networks.reference_usrnet import import_usrnet
    from ikc_deploy.networks.usrnet import save_usrnet

    network = import_usrnet(file)
    save_usrnet(network, out)
    settings = network.settings
    return f"{settings.iterations} iterations, {', '.join(map(str, settings.channels))} channels"


if __name__ == "__main__":
    main()
