"""Settings of the web page: the only statement of its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from ikc_deploy.option_fields import Option, check_options

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
"""Names under which the page is reached on its own machine."""


@dataclass(frozen=True)
class WebSettings:
    """Limits of the web page.

    Raises:
        InputError: A value is out of range.
    """

    port: Annotated[int, Option("Port of the page.", minimum=0, maximum=65535)] = 7860
    max_upload_mib: Annotated[
        int, Option("Largest upload in MiB.", minimum=1, heading="Speed and memory")
    ] = 64
    max_megapixels: Annotated[
        float,
        Option(
            "Millions of pixels of the largest picture that is read.",
            minimum=0.001,
            heading="Speed and memory",
        ),
    ] = 4.0
    max_iters: Annotated[
        int, Option("Largest number of corrections.", minimum=0, heading="Speed and memory")
    ] = 20
    sessions: Annotated[
        int,
        Option(
            "Number of users whose pictures are kept in memory; the longest idle is dropped first.",
            minimum=1,
            heading="Speed and memory",
        ),
    ] = 16
    queue: Annotated[
        int,
        Option("Number of jobs that may wait.", minimum=1, heading="Speed and memory"),
    ] = 16

    def __post_init__(self) -> None:
        """Require every option in its range."""
        check_options(self)

    @property
    def max_bytes(self) -> int:
        """Largest upload in bytes."""
        return self.max_upload_mib * 2**20

    @property
    def max_pixels(self) -> int:
        """Number of pixels of the largest picture."""
        return round(1e6 * self.max_megapixels)
