"""`UpscalerChoice`: the options that select the bundle, the upscaler's settings and the blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from ikc_deploy.batch.settings import ActorSettings
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.cli._bundle_options import BundleOptions
from ikc_deploy.cli._option_group import given_options, option_group
from ikc_deploy.cli._value_types import BYTES, TILE
from ikc_deploy.errors import InputError
from ikc_deploy.imaging.file_upscaling import check_bundle
from ikc_deploy.option_fields import Option
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.upscaler import Upscaler, load_bundle
from ikc_deploy.weights import RANDOM_PREFIX


@dataclass(frozen=True)
class UpscalerChoice:
    """The bundle, the upscaler's settings and the blur, as on the command line."""

    bundle: BundleOptions
    options: UpscalerOptions
    sigma: Annotated[
        float | None,
        Option(
            "Known blur: standard deviation in pixels of the output. Nothing is estimated or "
            "corrected then."
        ),
    ] = None

    def open_bundle(self) -> Bundle:
        """Return the bundle.

        Raises `InputError` or `KernelError` if it does not support image files or the given sigma.
        """
        weights = self.bundle.weights
        if weights is not None and weights.startswith(RANDOM_PREFIX):
            raise InputError(
                f"'{weights}' means random weights, for benchmarks only; give trained ones"
            )
        bundle = self.bundle.open()
        check_bundle(bundle)
        if self.sigma is not None:
            bundle.basis.code_of_sigma(self.sigma)
        return bundle

    def for_actors(self) -> ActorSettings:
        """Return the settings from which other processes open their own upscalers."""
        return ActorSettings(self.open_bundle().path.absolute(), self.options, self.sigma)

    def open_upscaler(self) -> Upscaler:
        """Return a new upscaler in this process; the caller closes it."""
        return load_bundle(self.open_bundle(), self.options)


_NOT_HERE: Final = {"cuda_graph"}
"""Options for tests of backends."""

upscaler_choice: Final = option_group(
    UpscalerChoice,
    "choice",
    without=_NOT_HERE,
    # Not limited here: the message about an invalid sigma states the range of the bundle.
    types={"tile": TILE, "max_memory": BYTES, "sigma": float},
)
"""Decorator that adds all options of `UpscalerChoice` to a command, as its parameter `choice`."""


def check_blur(choice: UpscalerChoice) -> None:
    """Raise `InputError` if both `--sigma` and `--estimate` are given."""
    if choice.sigma is not None and "--estimate" in given_options(UpscalerOptions):
        raise InputError(
            "--sigma gives the blur and --estimate estimates it; give only one of them"
        )
