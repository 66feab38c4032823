"""Records and reports that were never measured, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator

from ikc_deploy.evaluation.blurs import BlurSet
from ikc_deploy.evaluation.degradation import Degradation
from ikc_deploy.evaluation.protocol import EvaluationReport, Protocol
from ikc_deploy.evaluation.records import Record
from tests.sealing import manifest

SIGMAS = (1.8, 2.6)
STEPS = 3
PSNR = {("Set5", "a.png"): 30.0, ("Set5", "b.png"): 28.0, ("Set5", "c.png"): 33.0}
PSNR[("One", "x.png")] = 25.0

MANIFEST = manifest(name="paper", weights_sha256="abc", parity=None)


def records(gaussian: bool = True) -> Iterator[Record]:
    """Two datasets, of three images and one; every figure is a plain sum of its indices.

    PSNR falls by a decibel from one sigma to the next, rises by a tenth with each step; sigma is
    estimated 0.1 too large at step 0, then 0.2, 0.3. Without `gaussian` there is no sigma, and the
    kernels are too large for the bundle.
    """
    for (dataset, image), psnr in PSNR.items():
        for index, sigma in enumerate(SIGMAS):
            blur = f"sigma {sigma:g}" if gaussian else f"kernel {index}"
            about = (dataset, image, blur, sigma if gaussian else None)
            level = psnr - index
            yield Record(*about, "bicubic", None, level - 5, 0.7)
            for step in range(STEPS):
                estimate = (sigma if gaussian else 2) + 0.1 * (step + 1)
                kernel = 40.0 + step if gaussian else None
                yield Record(*about, "blind", step, level + step / 10, 0.8, estimate, kernel)
            if gaussian:
                yield Record(*about, "true kernel", None, level + 1, 0.9)


def report(gaussian: bool = True, degradation: Degradation | None = None) -> EvaluationReport:
    """A report with these records."""
    protocol = Protocol(BlurSet.gaussians(SIGMAS), degradation or Degradation())
    return EvaluationReport(MANIFEST, protocol, tuple(records(gaussian)))
