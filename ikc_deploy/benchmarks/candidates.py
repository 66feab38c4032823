"""Who takes part in a bench, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args

from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.runners import CandidateRunner
from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.errors import InputError, MissingExtraError
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.runtime.backends import BACKENDS

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

MODES: Final[dict[str, Mapping[str, Any]]] = {
    "": {},
    "crops": {"estimate": "crops"},
    "track": {"estimate": "track"},
}
"""Arguments of `Upscaler.__call__` for each way to estimate the blur, by the suffix of the
candidate's name. The exact loop has neither. For the tracker, the calls of a benchmark are a clip
without motion."""


@dataclass(frozen=True)
class UpscalerVariant:
    """How to load one of ours and call it."""

    backend: str
    precision: Precision
    arguments: Mapping[str, Any]

    def open(self, subject: Subject, case: BenchmarkCase) -> CandidateRunner:
        """An upscaler for the case."""
        from ikc_deploy.benchmarks.upscaler_runner import UpscalerRunner

        bundle = our_bundle(subject, self.precision)
        return UpscalerRunner(bundle, self.backend, case, self.arguments)


@dataclass(frozen=True)
class Candidate:
    """One way to upscale the frames of a case."""

    name: str
    about: str
    """For people."""
    open: Callable[[Subject, BenchmarkCase], CandidateRunner]
    """Raises an `IkcError` with the reason if it does not run here."""
    ours: UpscalerVariant | None = None
    """How to load and call it, if it is ours."""


def candidates() -> dict[str, Candidate]:
    """Everyone, by name; ours first. "auto" stands for the best backend here."""
    mine = [
        _ours(backend, precision, mode)
        for backend in ("auto", *BACKENDS)
        for precision in PRECISIONS
        for mode in MODES
    ]
    return {candidate.name: candidate for candidate in (*mine, *_OTHERS)}


def choose(names: str) -> list[Candidate]:
    """The candidates of a list such as "onnxruntime-fp32,torch-eager", or of "all".

    Raises `InputError` with all names for an unknown one.
    """
    known = candidates()
    if names == "all":
        # One of the backends is the best, and takes part under its own name.
        return [found for name, found in known.items() if not name.startswith("auto-")]
    asked = [name.strip() for name in names.split(",")]
    unknown = [name for name in asked if name not in known]
    if unknown or len(set(asked)) < len(asked):
        what = f"does not know '{unknown[0]}'" if unknown else "names a candidate twice"
        raise InputError(f"--compare {what}; it takes all, or a list of {', '.join(known)}")
    return [known[name] for name in asked]


def _ours(backend: str, precision: Precision, mode: str) -> Candidate:
    name = "-".join(filter(None, (backend, precision, mode)))
    about = f"ikc-deploy, {backend}, {precision}{f', estimate={mode}' if mode else ''}"
    settings = UpscalerVariant(backend, precision, MODES[mode])
    return Candidate(name, about, settings.open, settings)


def our_bundle(subject: Subject, precision: Precision) -> Bundle:
    """The bundle of the networks under test; raises `InputError` if it has another precision."""
    if subject.bundle is None:
        return default_bundle(str(subject.weights), precision)
    bundle = Bundle.open(subject.bundle)
    found = bundle.manifest.precision
    if found != precision:
        raise InputError(
            f"'{subject.bundle}' is an {found} bundle; compare onnxruntime-{found}, or export it "
            f"again in {precision}"
        )
    return bundle


def _open_torch(subject: Subject, case: BenchmarkCase, **settings: bool) -> CandidateRunner:
    try:
        from ikc_deploy.benchmarks.torch_loops import TorchLoopRunner, TorchSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "A torch loop") from error
    return TorchLoopRunner(subject, case, TorchSettings(**settings))


def _open_plain(subject: Subject, case: BenchmarkCase) -> CandidateRunner:
    from ikc_deploy.benchmarks.plain_graphs import PlainGraphsRunner

    try:
        return PlainGraphsRunner(subject, case)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", "Plain graphs") from error


_OTHERS: Final = (
    Candidate(
        "reference-loop",
        "torch eager, image and code to the host after every step, one correction more",
        partial(_open_torch, round_trips=True),
    ),
    Candidate("torch-eager", "torch eager, plain networks", _open_torch),
    Candidate(
        "torch-channels-last",
        "torch eager, channels_last",
        partial(_open_torch, channels_last=True),
    ),
    Candidate(
        "torch-compile",
        "torch.compile, default settings",
        partial(_open_torch, compile=True),
    ),
    Candidate(
        "onnxruntime-plain",
        "ONNX Runtime, plain graphs, default settings",
        _open_plain,
    ),
)
