"""ikc-web: a web page to upscale pictures and to see what the networks do."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
from asyncio import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import click

from ikc_deploy.cli._command import HELP, CommandOfPaths, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import say, warn
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
        InputError: Other machines reach the address, and that is not allowed explicitly; or a name
            is more than a host name.
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
        for name in self.names:
            if not name or (not set(name).isdisjoint("/:@ ") and not _is_address(name)):
                raise InputError(
                    f"invalid --name '{name}': give the host name or the IP address alone, without "
                    "http:// and port"
                )

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names of the page in requests."""
        names = map(_in_url, (self.host, *self.names))
        return tuple(dict.fromkeys(map(str.lower, (*LOOPBACK, *names))))

    def url(self, port: int) -> str:
        """Return the address of the page at a port."""
        return f"http://{_in_url(self.names[0] if self.names else self.host)}:{port}/"


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
    sockets = _listen(address.host, settings.port)
    port = sockets[0].getsockname()[1]
    if not _is_loopback(address.host) and not address.names:
        warn("other machines reach the page under a --name only; none is given")
    service = UpscaleService(settings, default_bundle, threads)
    try:
        app = create_app(service, scales, DEFAULT_WEIGHTS, address.hosts)
        say(f"open {address.url(port)} in a browser; Ctrl-C ends it")
        config = uvicorn.Config(
            app,
            # Its own configuration would close the handlers of all other loggers of the process.
            log_config=None,
            log_level="warning",
            server_header=False,
            # Longer than an answer takes; a slow upload would otherwise keep Ctrl-C waiting.
            timeout_graceful_shutdown=5,
        )
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets)
    finally:
        service.close()


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Return whether a record is to be logged: not the traceback of a request cut off by Ctrl-C."""
    return not (record.exc_info and isinstance(record.exc_info[1], CancelledError))


def _listen(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of a host, all at one port; 0 chooses a free one.

    Raises:
        InputError: The host is unknown, or the port cannot be used.
    """
    opened: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            place = (where[0], opened[0].getsockname()[1] if opened else port, *where[2:])
            try:
                opened.append(socket.create_server(place, family=family))
            except OSError as error:
                # localhost has an IPv6 address also on machines without IPv6.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = error
        if missing is not None and not opened:
            raise missing
    except (OSError, UnicodeError) as error:
        for each in opened:
            each.close()
        # Negative numbers are those of the resolver.
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise InputError(
            f"the page cannot answer at {_in_url(host)}:{port}: {reason}; choose another --port "
            "or --host"
        ) from error
    return opened


def _in_url(host: str) -> str:
    """Return a host as a part of a URL: IPv6 addresses are in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
