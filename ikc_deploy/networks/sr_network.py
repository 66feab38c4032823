"""The SR network F of an architecture: SFTMD, or the FiLM trunk of the film sizes."""

from __future__ import annotations

from ikc_deploy.networks.architecture import Architecture
from ikc_deploy.networks.film import FilmTrunk
from ikc_deploy.networks.sftmd import Sftmd

SrNetwork = Sftmd | FilmTrunk
"""SR network F of any design; called with (lr, code)."""


def build_sr_network(settings: Architecture) -> SrNetwork:
    """Return an uninitialised F of the architecture's design."""
    return FilmTrunk(settings) if settings.design == "film" else Sftmd(settings)
