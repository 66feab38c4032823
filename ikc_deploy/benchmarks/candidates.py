"""The candidates of a benchmark, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args

from ikc_deploy.benchmarks.case import BenchmarkCase, Subject
from ikc_deploy.benchmarks.plain_engines import (
    NcnnEngine,
    OnnxRuntimeEngine,
    OpenVinoEngine,
    PlainEngine,
)
from ikc_deploy.benchmarks.runners import CandidateRunner
from ikc_deploy.bundle.manifest import Bundle, Precision
from ikc_deploy.errors import InputError, needs_extra
from ikc_deploy.export.default_bundle import default_bundle
from ikc_deploy.runtime.backends.backend_names import BACKENDS, OPENVINO
from ikc_deploy.runtime.options import UpscalerOptions

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
    """An `Upscaler` to load, and the arguments of its calls."""

    backend: str
    """Name of the backend, or "auto"."""
    precision: Precision
    """Precision of the bundle."""
    arguments: Mapping[str, Any]
    """Arguments of `Upscaler.__call__`."""
    arithmetic: str = UpscalerOptions.precision
    """Precision in which OpenVINO computes what the bundle does not quantise."""

    def open(self, subject: Subject, case: BenchmarkCase) -> CandidateRunner:
        """Open an upscaler for the case.

        Raises:
            IkcError: It does not run here; the message has the reason.
        """
        from ikc_deploy.benchmarks.upscaler_runner import UpscalerRunner

        bundle = our_bundle(subject, self.precision)
        return UpscalerRunner(bundle, self.options(case.iters, case.threads), case, self.arguments)

    def options(self, iters: int, threads: int) -> UpscalerOptions:
        """Return the options that load it."""
        return UpscalerOptions(
            iters=iters, backend=self.backend, precision=self.arithmetic, threads=threads
        )


@dataclass(frozen=True)
class Candidate:
    """A program that upscales the frames of a case."""

    name: str
    """Name as in `ikc-bench --compare`."""
    about: str
    """Description for people."""
    open: Callable[[Subject, BenchmarkCase], CandidateRunner]
    """Function that opens it for a case; raises an `IkcError` with the reason if it does not run
    here."""
    ours: UpscalerVariant | None = None
    """Variant of our `Upscaler`; None for other programs."""


def candidates() -> dict[str, Candidate]:
    """Return all candidates by name, our own first; "auto" is the best backend here."""
    mine = [
        _ours(backend, precision, mode)
        for backend in ("auto", *BACKENDS)
        for precision in PRECISIONS
        for mode in MODES
    ]
    mine += [_ours_in_bfloat16(mode) for mode in MODES]
    return {candidate.name: candidate for candidate in (*mine, *_OTHERS)}


def choose(names: str) -> list[Candidate]:
    """Return the candidates of a list.

    Args:
        names: Names such as "onnxruntime-fp32,torch-eager", or "all".

    Raises:
        InputError: A name is unknown (the message lists all names) or given twice.
    """
    known = candidates()
    if names == "all":
        # The best backend is measured under its own name.
        return [found for name, found in known.items() if not name.startswith("auto-")]
    asked = [name.strip() for name in names.split(",")]
    unknown = [name for name in asked if name not in known]
    if unknown or len(set(asked)) < len(asked):
        what = f"does not know '{unknown[0]}'" if unknown else "names a candidate twice"
        raise InputError(f"--compare {what}; expected all, or a list of {', '.join(known)}")
    return [known[name] for name in asked]


def _ours(backend: str, precision: Precision, mode: str) -> Candidate:
    # With float32 bundles, OpenVINO would compute in bfloat16 on some CPUs.
    fixed = backend == OPENVINO and precision == "fp32"
    arithmetic = "f32" if fixed else UpscalerOptions.precision
    return _candidate(precision, mode, UpscalerVariant(backend, precision, MODES[mode], arithmetic))


def _ours_in_bfloat16(mode: str) -> Candidate:
    return _candidate("bf16", mode, UpscalerVariant(OPENVINO, "fp32", MODES[mode], "bf16"))


def _candidate(precision: str, mode: str, variant: UpscalerVariant) -> Candidate:
    name = "-".join(filter(None, (variant.backend, precision, mode)))
    about = f"ikc-deploy, {variant.backend}, {precision}{f', estimate={mode}' if mode else ''}"
    return Candidate(name, about, variant.open, variant)


def our_bundle(subject: Subject, precision: Precision) -> Bundle:
    """Return the bundle of the networks under test; weights are exported into the cache.

    Raises:
        InputError: The given bundle has another precision.
    """
    if subject.bundle is None:
        return default_bundle(str(subject.weights), precision)
    bundle = Bundle.open(subject.bundle)
    found = bundle.manifest.precision
    if found != precision:
        raise InputError(
            f"'{subject.bundle}' is an {found} bundle; compare onnxruntime-{found}, or export it "
            f"again as {precision}"
        )
    return bundle


def _open_torch(subject: Subject, case: BenchmarkCase, **settings: bool) -> CandidateRunner:
    with needs_extra("export", "A torch loop"):
        from ikc_deploy.benchmarks.torch_loops import TorchLoopRunner, TorchSettings
    return TorchLoopRunner(subject, case, TorchSettings(**settings))


def _open_plain(subject: Subject, case: BenchmarkCase, engine: PlainEngine) -> CandidateRunner:
    from ikc_deploy.benchmarks.plain_graphs import PlainGraphsRunner

    with needs_extra("export", "Plain graphs"):
        return PlainGraphsRunner(subject, case, engine)


_OTHERS: Final = (
    Candidate(
        "reference-loop",
        "torch eager, image and code copied to the host after every step, one more correction",
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
        "torch-compile-bf16",
        "torch.compile, channels_last, autocast to bfloat16",
        partial(_open_torch, compile=True, channels_last=True, bfloat16=True),
    ),
    Candidate(
        "onnxruntime-plain",
        "ONNX Runtime, plain graphs, default settings",
        partial(_open_plain, engine=OnnxRuntimeEngine()),
    ),
    Candidate(
        "openvino-plain-fp32",
        "OpenVINO, plain graphs, float32",
        partial(_open_plain, engine=OpenVinoEngine("fp32")),
    ),
    Candidate(
        "openvino-plain-bf16",
        "OpenVINO, plain graphs, bfloat16",
        partial(_open_plain, engine=OpenVinoEngine("bf16")),
    ),
    Candidate(
        "ncnn-plain",
        "ncnn, plain graphs converted by pnnx, float32",
        partial(_open_plain, engine=NcnnEngine()),
    ),
)
