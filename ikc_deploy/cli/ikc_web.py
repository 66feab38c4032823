"""ikc-web: a web page to upscale pictures and to see what the networks do."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Annotated

import click

from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import say
from ikc_deploy.errors import InputError, needs_extra
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.option_fields import Option
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.web.web_settings import LOOPBACK, WebSettings
from ikc_deploy.weights import DEFAULT_WEIGHTS, shipped_weights


@dataclass(frozen=True)
class WebAddress:
    """The address of the page.

    Raises:
        InputError: Other machines reach the address, and that is not allowed explicitly.
    """

    host: Annotated[str, Option("Address on which the page answers.")] = "127.0.0.1"
    allow_network: Annotated[
        bool, Option("Allow a --host that other machines reach. The page has no password.")
    ] = False
    names: Annotated[
        tuple[str, ...],
        Option("Host name under which other machines reach the page.", flags=("--name",)),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse an address that other machines reach, unless that is allowed."""
        if not _is_loopback(self.host) and not self.allow_network:
            raise InputError(
                f"'{self.host}' can be reached from other machines, and the page has no password; "
                "add --allow-network if that is meant"
            )

    @property
    def written(self) -> str:
        """Host as a part of a URL: IPv6 addresses are in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names of the page in requests."""
        return tuple(dict.fromkeys(map(str.lower, (*LOOPBACK, self.written, *self.names))))


@click.command(cls=CommandOfPaths, context_settings=HELP)
@reports_errors
@option_group(WebAddress, "address")
@option_group(UpscalerOptions, None, only=("threads",))
@option_group(WebSettings, "settings")
def main(address: WebAddress, threads: int, settings: WebSettings) -> None:
    """Serve a web page: upload a picture, compare with bicubic, see and change the blur.

    Only this machine reaches the page, unless --host and --allow-network are given. Pictures stay
    in memory; no file is kept. Ctrl-C ends the server.
    """
    with needs_extra("web", "ikc-web"):
        import uvicorn

        from ikc_deploy.web.server import create_app
        from ikc_deploy.web.work import UpscaleService
    scales = {name: int(name[1]) for name in shipped_weights() if name[:1] == "x"}
    service = UpscaleService(settings, default_bundle, threads)
    try:
        app = create_app(service, scales, DEFAULT_WEIGHTS, address.hosts)
        say(f"open http://{address.written}:{settings.port}/ in a browser; Ctrl-C ends it")
        uvicorn.run(
            app,
            host=address.host,
            port=settings.port,
            log_level="warning",
            server_header=False,
        )
    finally:
        service.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
