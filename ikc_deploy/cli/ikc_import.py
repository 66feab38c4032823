"""ikc-import: convert published checkpoints to checkpoints of this project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._output_files import check_not_an_input
from ikc_deploy.cli._ui import say
from ikc_deploy.cli._value_types import OUTPUT_FILE
from ikc_deploy.errors import InputError, needs_extra
from ikc_deploy.option_fields import Option


@dataclass(frozen=True)
class ImportedFiles:
    """The files of a reference implementation, and the checkpoint to write.

    Raises:
        InputError: The checkpoint has another suffix than .safetensors, or is one of the files.
    """

    out: Annotated[Path, Option("Output file (.safetensors).", flags=("--out", "-o"))]
    sftmd: Annotated[Path | None, Option("IKC's F: SFTMD.")] = None
    predictor: Annotated[Path | None, Option("IKC's P: Predictor.")] = None
    corrector: Annotated[Path | None, Option("IKC's C: Corrector.")] = None
    pca: Annotated[
        Path | None, Option("IKC's PCA matrix [pixels, code size], .pth, .npy, .npz or .mat.")
    ] = None
    fkp: Annotated[
        Path | None, Option("FKP's kernel prior: FKP_x2.pt, FKP_x3.pt or FKP_x4.pt.")
    ] = None
    usrnet: Annotated[Path | None, Option("USRNet: usrnet_tiny.pth or another size.")] = None
    dan: Annotated[Path | None, Option("DAN or DANv2 of any scale and size.")] = None

    def __post_init__(self) -> None:
        """Refuse an output whose name no command recognises, or that is one of the files."""
        if self.out.suffix != ".safetensors":
            raise InputError(f"invalid output '{self.out}': give a name ending in .safetensors")
        files = (*self.of_ikc.values(), self.fkp, self.usrnet, self.dan)
        check_not_an_input("--out", self.out, [path for path in files if path is not None])

    @property
    def of_ikc(self) -> dict[str, Path | None]:
        """Files of IKC by option; they are needed together."""
        return {
            "--sftmd": self.sftmd,
            "--predictor": self.predictor,
            "--corrector": self.corrector,
            "--pca": self.pca,
        }


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@option_group(ImportedFiles, "files", types={"out": OUTPUT_FILE})
def main(files: ImportedFiles) -> None:
    """Convert published weights (.pth, .pt, .safetensors) into one checkpoint.

    Give either IKC's four files, or the one file of another network. Scale and sizes are derived
    from the tensors. Files are read with weights_only: nothing in them is executed. To export the
    networks of IKC or DAN: ikc-export --weights OUT; to export a USRNet: ikc-export --usrnet OUT.
    """
    out, networks = files.out, files.of_ikc
    given = [path for path in networks.values() if path is not None]
    readers = {
        "--fkp": (files.fkp, _import_flow),
        "--usrnet": (files.usrnet, _import_usrnet),
        "--dan": (files.dan, _import_dan),
    }
    alone = [(path, read) for path, read in readers.values() if path is not None]
    with needs_extra("export", "ikc-import"):
        if len(alone) == 1 and not given:
            path, read = alone[0]
            say(f"{out}: {read(path, out)}")
        elif not alone and len(given) == len(networks):
            say(f"{out}: {_import_ikc(given, out)}")
        else:
            raise InputError(
                f"give either {', '.join(networks)} together, or one of {', '.join(readers)} alone"
            )


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
