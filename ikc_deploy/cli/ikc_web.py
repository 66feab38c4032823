"""ikc-web: a web page to upscale pictures and to see what the networks do."""

from __future__ import annotations

import ipaddress

import click

from ikc_deploy.cli._command import HELP, reports_errors
from ikc_deploy.cli._option_group import option_group
from ikc_deploy.cli._ui import say
from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.web.web_settings import LOOPBACK, WebSettings
from ikc_deploy.weights import DEFAULT_WEIGHTS, shipped_weights


@click.command(context_settings=HELP)
@reports_errors
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address on which the page answers."
)
@click.option(
    "--allow-network",
    is_flag=True,
    help="Allow a --host that other machines reach. The page has no password.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="Host name under which other machines reach the page; repeatable.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU cores to use; 0 for all.")
@option_group(WebSettings, "settings")
def main(
    host: str, allow_network: bool, names: tuple[str, ...], threads: int, settings: WebSettings
) -> None:
    """Serve a web page: upload a picture, compare with bicubic, see and change the blur.

    The page answers on this machine only, unless --host and --allow-network say otherwise.
    Pictures stay in memory; no file is kept. Ctrl-C ends it.
    """
    try:
        import uvicorn

        from ikc_deploy.web.server import create_app
        from ikc_deploy.web.work import Studio
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "starlette", "web", "ikc-web") from error
    if not _is_loopback(host) and not allow_network:
        raise InputError(
            f"'{host}' can be reached from other machines, and the page has no password; "
            "add --allow-network if that is meant"
        )
    scales = {name: int(name[1]) for name in shipped_weights() if name[:1] == "x"}
    studio = Studio(settings, default_bundle, threads)
    bracketed = f"[{host}]" if ":" in host else host
    hosts = tuple(dict.fromkeys((*LOOPBACK, bracketed.lower(), *map(str.lower, names))))
    try:
        app = create_app(studio, scales, DEFAULT_WEIGHTS, hosts)
        say(f"open http://{bracketed}:{settings.port}/ in a browser; Ctrl-C ends it")
        uvicorn.run(app, host=host, port=settings.port, log_level="warning", server_header=False)
    finally:
        studio.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    main()
