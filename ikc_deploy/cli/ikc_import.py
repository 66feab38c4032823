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
@click.option("--out", "-o", type=OUTPUT_FILE, required=True, help="Output file (.safetensors).")
def main(
    sftmd: Path | None,
    predictor: Path | None,
    corrector: Path | None,
    pca: Path | None,
    fkp: Path | None,
    usrnet: Path | None,
    out: Path,
) -> None:
    """Convert .pth files of a reference implementation into one checkpoint.

    Give either IKC's four files, or the one file of another network. Scale and sizes are derived
    from the tensors. Files are read with weights_only: nothing in them is executed. To export IKC's
    networks: ikc-export --weights OUT; to export a USRNet: ikc-export --usrnet OUT
    """
    networks = {"--sftmd": sftmd, "--predictor": predictor, "--corrector": corrector, "--pca": pca}
    given = {name: path for name, path in networks.items() if path is not None}
    try:
        if fkp is not None and usrnet is None and not given:
            say(f"{out}: {_import_flow(fkp, out)}")
        elif usrnet is not None and fkp is None and not given:
            say(f"{out}: {_import_usrnet(usrnet, out)}")
        elif fkp is None and usrnet is None and len(given) == len(networks):
            say(f"{out}: {_import_ikc(list(given.values()), out)}")
        else:
            names = ", ".join(networks)
            raise InputError(f"give either {names} together, or --fkp or --usrnet alone")
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
