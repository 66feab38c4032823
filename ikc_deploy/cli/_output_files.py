"""Checks of several output files of one command, before the work that fills them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from ikc_deploy.errors import InputError
from ikc_deploy.files import check_file, real_path

STDOUT: Final = Path("-")
"""Path that is standard output instead of a file."""


def check_output_files(files: Mapping[str, Path | None], printed: Collection[str]) -> None:
    """Check that every output can be written, and each to a place of its own.

    Args:
        files: Files by option; None for those not given.
        printed: Options that may be `STDOUT`; one at a time.

    Raises:
        InputError: Two files are the same, or too many options or another one are `STDOUT`.
        OutputError: A file cannot be written.
    """
    named = {option: path for option, path in files.items() if path not in (None, STDOUT)}
    for path in named.values():
        check_file(path)
    if len(set(map(real_path, named.values()))) < len(named):
        raise InputError(f"{', '.join(named)} must be different files")
    on_stdout = [option for option, path in files.items() if path == STDOUT]
    refused = [option for option in on_stdout if option not in printed]
    if refused:
        raise InputError(
            f"{' and '.join(refused)} cannot be - (standard output); give the name of a file"
        )
    if len(on_stdout) > 1:
        raise InputError(f"only one of {' and '.join(on_stdout)} can be - (standard output)")


def check_not_an_input(option: str, output: Path, inputs: Collection[Path]) -> None:
    """Raise `InputError` if the output file is one of the inputs, which would be lost."""
    if real_path(output) in set(map(real_path, inputs)):
        raise InputError(f"{option} '{output}' is also an input; give another file")
