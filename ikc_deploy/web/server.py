"""The HTTP interface of the page, on Starlette.

A random cookie identifies the session of a user, which begins with a picture. Requests with
another host name (DNS rebinding) or from another page (CSRF) are refused before anything is read.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import re
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.imaging.reading import read_picture
from ikc_deploy.imaging.suffixes import WRITABLE_SUFFIXES
from ikc_deploy.imaging.writing import write_picture
from ikc_deploy.web.web_settings import LOOPBACK, WebSettings
from ikc_deploy.web.work import Job, Upload, UpscaleRequest, UpscaleService, UserSession

STATIC: Final = Path(__file__).parent / "static"
COOKIE: Final = "ikc_session"
HEADER: Final = "x-ikc"
"""Header of every request that changes something; another page cannot send it without asking."""

_SECURITY: Final = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_MAX_JSON: Final = 4096
_MAX_FACTOR: Final = 100

Endpoint = Callable[[Request, UserSession], Awaitable[Response]]


def create_app(
    service: UpscaleService,
    weights: dict[str, int],
    default: str,
    hosts: tuple[str, ...] = LOOPBACK,
) -> Starlette:
    """Return the application.

    Args:
        service: The service; the caller closes it.
        weights: Scale factors of the weights that users may choose, by name.
        default: Name of the chosen weights when the page opens.
        hosts: Host names, without port, under which the page answers.
    """
    api = _Api(service, weights, default)
    routes = [
        Route("/", lambda _: FileResponse(STATIC / "index.html")),
        Route("/api/setup", api.endpoint(api.setup)),
        Route("/api/weights/{name}", api.endpoint(api.weights_facts)),
        Route("/api/picture", api.endpoint(api.upload, begins=True), methods=["POST"]),
        Route("/api/sample", api.endpoint(api.sample, begins=True), methods=["POST"]),
        Route("/api/upscale", api.endpoint(api.upscale), methods=["POST"]),
        Route("/api/crop", api.endpoint(api.crop), methods=["POST"]),
        Route("/api/jobs/{job}", api.endpoint(api.state)),
        Route("/api/jobs/{job}/cancel", api.endpoint(api.cancel), methods=["POST"]),
        Route("/api/jobs/{job}/bicubic.png", api.endpoint(api.bicubic)),
        Route("/api/jobs/{job}/{step}.png", api.endpoint(api.image)),
        Route("/api/jobs/{job}/{step}/download", api.endpoint(api.download)),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]

    async def guarded(request: Request, follow: Any) -> Response:
        refused = _refusal(request, hosts)
        response = _Json({"error": refused}, 403) if refused else await follow(request)
        response.headers.update(_SECURITY)
        return response

    return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=guarded)])


def _refusal(request: Request, hosts: tuple[str, ...]) -> str:
    """Return why a request is refused; empty if it is not."""
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in hosts:
        return f"this page does not answer under the name '{name}'; use one of {', '.join(hosts)}"
    if request.method in ("GET", "HEAD"):
        return ""
    origin = request.headers.get("origin")
    if HEADER not in request.headers or (origin and urlsplit(origin).netloc != host):
        return (
            "this request comes from another page and is refused; a script that is not a page "
            f"sends the header '{HEADER}: 1' and no other origin"
        )
    return ""


class _Json(JSONResponse):
    """JSON in ASCII: text from a request may hold lone surrogates, which UTF-8 has not."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class _Api:
    """The endpoints below /api."""

    def __init__(self, service: UpscaleService, weights: dict[str, int], default: str) -> None:
        self._service = service
        self._settings: WebSettings = service.settings
        self._weights = weights
        self._default = default

    def endpoint(
        self, answer: Endpoint, begins: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint with its session, and with errors as JSON with one sentence.

        Args:
            answer: The endpoint.
            begins: Whether a request without a session begins one.
        """

        async def answered(request: Request) -> Response:
            token, session = self._service.session(request.cookies.get(COOKIE), begins)
            try:
                response = await answer(request, session)
            except _TooLargeError as error:
                response = _Json({"error": str(error)}, 413, {"connection": "close"})
            except IkcError as error:
                response = _Json({"error": " ".join(str(error).split())}, 400)
            except ClientDisconnect:
                # The connection is closed: no client reads this answer.
                response = Response(status_code=400)
            if token:
                response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
            return response

        return answered

    async def setup(self, _: Request, __: UserSession) -> Response:
        """Return the choices and limits of the page."""
        return _Json(
            {
                "weights": self._weights,
                "default": self._default,
                "max_mib": self._settings.max_upload_mib,
                "max_megapixels": self._settings.max_megapixels,
                "max_iters": self._settings.max_iters,
            }
        )

    async def weights_facts(self, request: Request, _: UserSession) -> Response:
        """Return the range of sigma that weights know; their graphs are completed on first use."""
        name = self._known(request.path_params["name"])
        basis = (await run_in_threadpool(self._service.bundle, name)).basis
        return _Json({"sigma_range": basis.sigma_range})

    def _known(self, weights: object) -> str:
        if not isinstance(weights, str) or weights not in self._weights:
            raise InputError(f"unknown weights; choose one of {', '.join(self._weights)}")
        return weights

    async def upload(self, request: Request, session: UserSession) -> Response:
        """Read a picture from the body, which is refused while it arrives if it is too large."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise InputError(
                "the picture must be the body of the request and not a part of a form, for "
                "example with curl --data-binary @photo.png"
            )
        data = await _body(request, self._settings.max_bytes)
        name = Path(unquote(request.headers.get("x-name", "picture"))).name[:100] or "picture"
        picture = await run_in_threadpool(_read, data, name, self._settings.max_pixels)
        return self._keep(session, Upload(name, picture))

    async def sample(self, _: Request, session: UserSession) -> Response:
        """Take the sample as the session's picture."""
        return self._keep(session, Upload("sample.png", read_picture(STATIC / "sample.png")))

    def _keep(self, session: UserSession, upload: Upload) -> Response:
        self._service.keep(session, upload)
        height, width = upload.picture.size
        facts = {"picture": upload.id, "name": upload.name, "width": width, "height": height}
        return _Json(facts)

    async def upscale(self, request: Request, session: UserSession) -> Response:
        """Start a job."""
        values = await _json(request)
        upload, wanted = self._wanted(values, session)
        job = await run_in_threadpool(self._service.start, session, upload, wanted)
        return _Json(_state(job))

    async def crop(self, request: Request, session: UserSession) -> Response:
        """Return the SR crop around a point as a PNG; its place is in the headers."""
        values = await _json(request)
        upload, wanted = self._wanted(values, session)
        x, y = (int(_number(values, key, 0)) for key in ("x", "y"))
        future = await run_in_threadpool(self._service.crop, upload, wanted, x, y)
        left, top, image = await asyncio.wrap_future(future)
        place = {"x-left": str(left), "x-top": str(top)}
        return Response(await run_in_threadpool(_png, image), 200, place, "image/png")

    def _wanted(
        self, values: dict[str, Any], session: UserSession
    ) -> tuple[Upload, UpscaleRequest]:
        if session.upload is None or values.get("picture") != session.upload.id:
            raise InputError("there is no such picture any more; choose it again")
        weights = self._known(values.get("weights", self._default))
        iters, sigma = (
            None if values.get(key) is None else _number(values, key, 0)
            for key in ("iters", "sigma")
        )
        strength = _number(values, "strength", 1)
        postprocessing = replace(_output_size(values.get("size")), strength=strength)
        steps = None if iters is None else int(iters)
        ensemble = values.get("self_ensemble", False)
        if not isinstance(ensemble, bool):
            raise InputError("self_ensemble must be true or false")
        chosen = UpscaleRequest(weights, steps, sigma, postprocessing, ensemble)
        return session.upload, chosen

    async def state(self, request: Request, session: UserSession) -> Response:
        """Return the progress of a job, and the blurs when it is done."""
        return _Json(_state(session.job(request.path_params["job"])))

    async def cancel(self, request: Request, session: UserSession) -> Response:
        """Cancel a job before its next pass."""
        job = session.job(request.path_params["job"])
        job.cancelled = True
        return _Json(_state(job))

    async def image(self, request: Request, session: UserSession) -> Response:
        """Return the image of a step as a PNG, for display."""
        picture = self._step(request, session)[1]
        return Response(await run_in_threadpool(_png, picture.rgb), 200, None, "image/png")

    async def bicubic(self, request: Request, session: UserSession) -> Response:
        """Return the bicubic image as a PNG, for display."""
        job = session.job(request.path_params["job"])
        if job.bicubic is None:
            raise InputError("this job has no image yet")
        return Response(await run_in_threadpool(_png, job.bicubic), 200, None, "image/png")

    async def download(self, request: Request, session: UserSession) -> Response:
        """Return the file of a step, as ikc-upscale writes it, with opacity and metadata."""
        job, picture = self._step(request, session)
        suffix = request.query_params.get("format", ".png")
        if suffix not in WRITABLE_SUFFIXES:
            raise InputError(f"unknown format; choose one of {', '.join(WRITABLE_SUFFIXES)}")
        data = await run_in_threadpool(_file, picture, suffix)
        (height, width), source = picture.size, job.upload.picture.size
        resizes = job.request.postprocessing.resizes
        size = f"{width}x{height}" if resizes else f"x{height // source[0]}"
        name = quote(f"{Path(job.upload.name).stem}-{size}{suffix}")
        shown = {"content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return Response(
            data, 200, shown, Image.registered_extensions()[suffix].lower().join(("image/", ""))
        )

    def _step(self, request: Request, session: UserSession) -> tuple[Job, Picture]:
        job, step = session.job(request.path_params["job"]), request.path_params["step"]
        if step not in map(str, range(len(job.steps))):
            raise InputError("this job has no image of this step")
        return job, job.steps[int(step)]


class _TooLargeError(InputError):
    """An upload over the limit."""


async def _body(request: Request, most: int) -> bytes:
    too_large = _TooLargeError(
        f"the file is larger than the limit of this page, {most / 2**20:.0f} MiB; "
        "use ikc-upscale for it, or start ikc-web with a larger --max-upload-mib"
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise too_large
    return bytes(data)


async def _json(request: Request) -> dict[str, Any]:
    try:
        values = json.loads(await _body(request, _MAX_JSON))
    except (ValueError, RecursionError) as error:
        raise InputError("invalid request: expected a JSON object") from error
    if not isinstance(values, dict):
        raise InputError("invalid request: expected a JSON object")
    return values


def _number(values: dict[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{key} must be a finite number")
    return number


def _output_size(text: object) -> Postprocessing:
    """Return the output size of a text: a factor (2.5) or a box (1920x1080); empty for none."""
    written = "" if text is None else text
    if not isinstance(written, str):
        raise InputError("size must be a text")
    words = written.strip().lower().replace("\N{MULTIPLICATION SIGN}", "x").replace(",", ".")
    if not words:
        return NO_POSTPROCESSING
    box = re.fullmatch(r"(\d{1,9}) ?x ?(\d{1,9})", words, re.ASCII)
    if box is not None:
        return Postprocessing(size=(int(box[1]), int(box[2])))
    factor = re.fullmatch(r"x?(\d{0,9}\.?\d{1,9})x?", words, re.ASCII)
    # A larger number is a side in pixels.
    if factor is None or float(factor[1]) > _MAX_FACTOR:
        raise InputError(
            f"invalid output size '{written[:40]}': expected a factor, for example 2.5, or "
            "WIDTHxHEIGHT, for example 1920x1080"
        )
    return Postprocessing(factor=float(factor[1]))


def _read(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a picture through a temporary file, which is deleted before the answer."""
    with tempfile.TemporaryDirectory(prefix="ikc-web-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        try:
            return read_picture(path, max_pixels)
        except MemoryError as error:
            raise InputError(f"'{name}' is too large for the memory of this machine") from error
        except IkcError as error:
            raise InputError(str(error).replace(f"'{path}'", f"'{name}'")) from error


def _file(picture: Picture, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ikc-web-") as folder:
        path = Path(folder) / f"image{suffix}"
        write_picture(picture, path)
        return path.read_bytes()


def _png(image: NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", compress_level=1)
    return data.getvalue()


def _state(job: Job) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "job": job.id,
        "state": job.state,
        "passes": job.passes,
        "expected": job.expected,
    }
    if job.state == "failed":
        facts["error"] = job.error
    if job.state == "done":
        height, width = job.steps[-1].size
        facts |= {
            "blurs": job.blurs,
            "width": width,
            "height": height,
            "known": job.request.sigma is not None,
            "milliseconds": round(job.milliseconds),
        }
    return facts
