"""ikc-import: the published IKC checkpoints to one checkpoint of this project."""

from __future__ import annotations

from pathlib import Path

import click

from ikc_deploy.cli.common import HELP, reports_errors
from ikc_deploy.errors import MissingExtraError

_FILE = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@click.option("--sftmd", type=_FILE, required=True, help="F: SFTMD .pth file.")
@click.option("--predictor", type=_FILE, required=True, help="P: Predictor .pth file.")
@click.option("--corrector", type=_FILE, required=True, help="C: Corrector .pth file.")
@click.option("--pca", type=_FILE, required=True, help="The PCA matrix [pixels, code size], .pth.")
@click.option("--out", "-o", type=_FILE, required=True, help="The .safetensors file to write.")
@reports_errors
def main(sftmd: Path, predictor: Path, corrector: Path, pca: Path, out: Path) -> None:
    """Convert the reference implementation's .pth files into one checkpoint.

    Scale and sizes are read off the tensors. Files are read with weights_only: nothing in them
    is executed. Export the result with: ikc-export --weights OUT
    """
    try:
        from ikc_deploy.networks.checkpoints import save_checkpoint
        from ikc_deploy.networks.reference import import_reference
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "ikc-import") from error
    networks = import_reference(sftmd, predictor, corrector, pca)
    save_checkpoint(networks, out)
    settings = networks.architecture
    click.echo(
        f"{out}: x{settings.scale}, {settings.channels} channels, {settings.blocks} blocks, "
        f"codes of {settings.code_size}"
    )


if __name__ == "__main__":
    main()
