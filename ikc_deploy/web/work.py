"""`UpscaleService`: the back end of the page, with isolated user sessions and one queue of jobs."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import IkcError, InputError
from ikc_deploy.imaging.file_upscaling import check_bundle, postprocessed, upscale_picture
from ikc_deploy.imaging.picture import Picture
from ikc_deploy.imaging.postprocessing import NO_POSTPROCESSING, Postprocessing
from ikc_deploy.kernels import KernelBasis, ellipse_of_kernel
from ikc_deploy.runtime.backends.cpu_backends import choose_cpu_backend
from ikc_deploy.runtime.self_ensemble import SYMMETRIES
from ikc_deploy.runtime.upscaler import Upscaler
from ikc_deploy.web.watched_backend import CancelledError, WatchedBackend
from ikc_deploy.web.web_settings import WebSettings

UpscalerKey = tuple[str, int | None, bool]
"""Weights, number of corrections, and whether there is a self-ensemble."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]

CROP: Final = 64
"""Side in LR pixels of the crop on which the blur slider is live."""

_KEPT_JOBS: Final = 2
"""Number of finished jobs of a session whose images stay in memory."""

_KEPT_UPSCALERS: Final = 4
_IDLE_SECONDS: Final = 3600.0
"""Time in seconds after which an unused session and its pictures are deleted."""

_BUSY: Final = "the page is busy; try again in a minute"


@dataclass(frozen=True)
class UpscaleRequest:
    """The settings of one job."""

    weights: str
    iters: int | None = None
    """Number of corrections; None for the number that the weights recommend."""
    sigma: float | None = None
    """Standard deviation of the known blur in HR pixels; None to estimate it."""
    postprocessing: Postprocessing = NO_POSTPROCESSING
    """Output size and strength."""
    self_ensemble: bool = False
    """Whether images are means over flips and rotations; crops never are."""


@dataclass(eq=False)
class Upload:
    """A picture of a session."""

    name: str
    picture: Picture
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))


@dataclass(eq=False)
class Job:
    """One request with its progress and, once it is done, its images."""

    upload: Upload
    request: UpscaleRequest
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    error: str = ""
    passes: int = 0
    """Number of passes of networks that have started."""
    expected: int = 0
    """Expected number of passes, if the picture is not tiled."""
    steps: list[Picture] = field(default_factory=list)
    bicubic: NDArray[np.uint8] | None = None
    blurs: list[dict[str, Any]] = field(default_factory=list)
    """Estimated blur of each step: kernel, sigma, axes and angle of the ellipse."""
    milliseconds: float = 0.0
    cancelled: bool = False

    @property
    def finished(self) -> bool:
        """Whether the job is done, failed or cancelled."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(eq=False)
class UserSession:
    """The pictures and jobs of one user."""

    used: float = field(default_factory=time.monotonic)
    upload: Upload | None = None
    jobs: OrderedDict[str, Job] = field(default_factory=OrderedDict)

    def job(self, job_id: str) -> Job:
        """Return a job of this user.

        Raises:
            InputError: There is none with this id.
        """
        job = self.jobs.get(job_id)
        if job is None:
            raise InputError("this result is no longer kept; upscale the picture again")
        return job


class UpscaleService:
    """User sessions, a queue of jobs, and the upscalers that run the jobs one after another.

    Args:
        settings: Limits.
        open_bundle: Function from the name of weights to their bundle.
        threads: Number of CPU cores; 0 for all.
    """

    def __init__(
        self, settings: WebSettings, open_bundle: Callable[[str], Bundle], threads: int = 0
    ) -> None:
        self.settings = settings
        self._open_bundle = open_bundle
        self._threads = threads
        self._sessions: OrderedDict[str, UserSession] = OrderedDict()
        self._bundles: dict[str, Bundle] = {}
        self._upscalers: OrderedDict[UpscalerKey, tuple[Upscaler, WatchedBackend]] = OrderedDict()
        self._lock = threading.Lock()
        # One worker: two pictures at once need twice the memory and are not faster.
        self._worker = ThreadPoolExecutor(1, "ikc-web")
        self._waiting = 0

    def session(self, token: str | None, begins: bool) -> tuple[str, UserSession]:
        """Return the session of a token with that token; forget idle ones.

        Args:
            token: Token of a request; None if it has none.
            begins: Whether an unknown token begins a session, under a new token. Otherwise the
                session is an empty one that is not kept, so that requests without a picture do not
                replace sessions that have one, and the token is empty.
        """
        now = time.monotonic()
        with self._lock:
            for old, idle in list(self._sessions.items()):
                if now - idle.used > _IDLE_SECONDS:
                    self._forget(old)
            if token is None or token not in self._sessions:
                if not begins:
                    return "", UserSession()
                while len(self._sessions) >= self.settings.sessions:
                    self._forget(next(iter(self._sessions)))
                token = secrets.token_urlsafe(24)
                self._sessions[token] = UserSession()
            self._sessions.move_to_end(token)
            found = self._sessions[token]
            found.used = now
            return token, found

    def _forget(self, token: str) -> None:
        for job in self._sessions.pop(token).jobs.values():
            job.cancelled = True

    def bundle(self, weights: str) -> Bundle:
        """Return the bundle of weights, opened once."""
        with self._lock:
            known = self._bundles.get(weights)
        if known is None:
            known = self._open_bundle(weights)
            check_bundle(known)
            with self._lock:
                self._bundles[weights] = known
        return known

    def keep(self, session: UserSession, upload: Upload) -> None:
        """Make a picture that of the session; its jobs are cancelled and their results dropped."""
        with self._lock:
            for job in session.jobs.values():
                job.cancelled = True
            session.jobs.clear()
            session.upload = upload

    def start(self, session: UserSession, upload: Upload, request: UpscaleRequest) -> Job:
        """Queue a job and return it at once; older results of the session are dropped.

        Raises:
            InputError: A value is out of range, or too many jobs are waiting.
            KernelError: The blur is outside the range of the weights.
        """
        self.check(upload, request)
        job = Job(upload, request)
        # Before older results are dropped, as a full queue refuses it.
        self._queue(lambda: self._do(job))
        with self._lock:
            for older in session.jobs.values():
                older.cancelled = True
            session.jobs[job.id] = job
            while len(session.jobs) > _KEPT_JOBS:
                session.jobs.popitem(last=False)
        return job

    def crop(self, upload: Upload, request: UpscaleRequest, x: int, y: int) -> Future[Any]:
        """Return a future of the crop `[h,w,3]` around a point, under the request's blur.

        It has the strength of the request, and its share of the output size.
        """
        output_height, output_width = self.check(upload, request)
        height, width = upload.picture.size
        left = max(0, min(x - CROP // 2, width - CROP))
        top = max(0, min(y - CROP // 2, height - CROP))
        rgb = upload.picture.rgb[top : top + CROP, left : left + CROP]
        size = (
            max(1, round(rgb.shape[0] * output_height / height)),
            max(1, round(rgb.shape[1] * output_width / width)),
        )
        return self._queue(lambda: (left, top, self._crop(rgb, request, size)))

    def check(self, upload: Upload, request: UpscaleRequest) -> tuple[int, int]:
        """Refuse a request that cannot be done, before the work.

        Returns:
            Height and width of the output in pixels.

        Raises:
            InputError: A value is out of range, or the output is too large for the page.
            KernelError: The blur is outside the range of the weights.
        """
        most = self.settings.max_iters
        if request.iters is not None and not 0 <= request.iters <= most:
            raise InputError(f"corrections must lie in [0, {most}], got {request.iters}")
        bundle = self.bundle(request.weights)
        if request.sigma is not None:
            bundle.basis.code_of_sigma(request.sigma)
        scale = bundle.manifest.scale
        height, width = request.postprocessing.output_size(*upload.picture.size, scale)
        # Images of all steps are kept: none may be larger than without a size.
        limit = scale**2 * self.settings.max_pixels
        if height * width > limit:
            raise InputError(
                f"an output of {width}x{height} pixels is larger than the limit of this page, "
                f"{limit / 1e6:.3g} million pixels; give a smaller output size, or use ikc-upscale"
            )
        return height, width

    def close(self) -> None:
        """Stop all work and free everything."""
        with self._lock:
            for token in list(self._sessions):
                self._forget(token)
        self._worker.shutdown(wait=True, cancel_futures=True)
        for upscaler, _ in self._upscalers.values():
            upscaler.close()
        self._upscalers.clear()

    def _queue(self, work: Callable[[], Any]) -> Future[Any]:
        with self._lock:
            if self._waiting >= self.settings.queue:
                raise InputError(_BUSY)
            self._waiting += 1

        def run() -> Any:
            try:
                return work()
            finally:
                with self._lock:
                    self._waiting -= 1

        return self._worker.submit(run)

    def _upscaler(
        self, request: UpscaleRequest, self_ensemble: bool
    ) -> tuple[Upscaler, WatchedBackend]:
        key = request.weights, request.iters, self_ensemble
        if key not in self._upscalers:
            while len(self._upscalers) >= _KEPT_UPSCALERS:
                self._upscalers.popitem(last=False)[1][0].close()
            bundle = self.bundle(request.weights)
            backend = WatchedBackend(choose_cpu_backend(bundle, self._threads)[0])
            made = Upscaler(bundle, backend, request.iters, self_ensemble=self_ensemble)
            self._upscalers[key] = made, backend
        self._upscalers.move_to_end(key)
        return self._upscalers[key]

    def _crop(
        self, rgb: NDArray[np.uint8], request: UpscaleRequest, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        upscaler, backend = self._upscaler(request, self_ensemble=False)
        backend.on_pass = lambda: None
        picture = Picture(np.ascontiguousarray(rgb))
        done, _ = upscale_picture(upscaler, picture, request.sigma)
        return request.postprocessing(picture.rgb, done.rgb, size)

    def _do(self, job: Job) -> None:
        if job.cancelled:
            job.state = "cancelled"
            return
        try:
            self._upscale(job)
        except CancelledError:
            job.state = "cancelled"
        except MemoryError:
            job.error, job.state = "this machine has too little memory for this picture", "failed"
        except IkcError as error:
            job.error, job.state = str(error), "failed"
        except BaseException:
            job.error, job.state = "an error of the page; its log has the details", "failed"
            raise

    def _upscale(self, job: Job) -> None:
        ensemble = job.request.self_ensemble
        upscaler, backend = self._upscaler(job.request, ensemble)
        known = job.request.sigma is not None
        job.expected = 1 + (upscaler.bundle.basis.levels > 0) if known else 2 + 2 * upscaler.iters
        if ensemble:
            job.expected += (len(SYMMETRIES) - 1) * (1 if known else 1 + upscaler.iters)

        def on_pass() -> None:
            if job.cancelled:
                raise CancelledError("cancelled")
            job.passes += 1

        backend.on_pass = on_pass
        job.state = "running"
        picture = job.upload.picture
        upscaled, result = upscale_picture(upscaler, picture, job.request.sigma, steps=True)
        if job.cancelled:
            raise CancelledError("cancelled")
        wanted = job.request.postprocessing
        job.bicubic = postprocessed(picture, upscaled, replace(wanted, strength=0.0)).rgb
        job.steps = [
            postprocessed(picture, replace(upscaled, rgb=image), wanted) for image in result.steps
        ]
        job.blurs = [blur_of_code(upscaler.bundle.basis, code) for code in result.codes]
        job.milliseconds = result.timings["total"]
        job.state = "done"


def blur_of_code(basis: KernelBasis, code: NDArray[np.float32]) -> dict[str, Any]:
    """Return the blur of a code `[code_size]`, for display.

    Returns:
        The `kernel` as rows, the `sigma` of the nearest circular Gaussian in HR pixels, and `long`,
        `short` and `angle` of its `Ellipse`.
    """
    kernel = basis.decode(code)
    ellipse = ellipse_of_kernel(kernel)
    return {
        "kernel": np.round(kernel.astype(float), 6).tolist(),
        "sigma": round(float(basis.sigma_of_code(code)), 3),
        "long": round(ellipse.long, 3),
        "short": round(ellipse.short, 3),
        "angle": round(ellipse.angle, 1),
    }
