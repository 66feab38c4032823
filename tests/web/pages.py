"""A page with small untrained networks, in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from ikc_deploy import Bundle
from ikc_deploy.web.server import create_app
from ikc_deploy.web.web_settings import LOOPBACK, WebSettings
from ikc_deploy.web.work import UpscaleService


def small_page(bundle: Bundle, **limits: Any) -> tuple[Starlette, UpscaleService]:
    """The application with one bundle under the name `small`, and its service."""
    service = UpscaleService(replace(WebSettings(), **limits), lambda _: bundle, threads=1)
    return create_app(service, {"small": bundle.manifest.scale}, "small", LOOPBACK), service


def encoded(folder: Path, image: Any, suffix: str = ".png") -> bytes:
    """An image `[H,W,3]` as the content of a file."""
    from ikc_deploy.imaging.writing import write_rgb

    path = folder / f"made{suffix}"
    write_rgb(image, path)
    return path.read_bytes()
