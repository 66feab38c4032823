"""What goes into an output beside a clip's video, and how: found out before the work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from ikc_deploy.video.clip import Clip, find_jumps
from ikc_deploy.video.encoders import Encoder, coded_frame
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.names import container_of
from ikc_deploy.video.output_container import TrackError
from ikc_deploy.video.tracks import Excerpt, Track
from ikc_deploy.video.trial import Plan, Trial
from ikc_deploy.video.write_errors import writing


@dataclass(frozen=True)
class PassthroughStreams:
    """The streams beside the video."""

    path: Path
    """The source."""
    tracks: tuple[Track, ...]
    excerpt: Excerpt
    jumps: tuple[Fraction, ...] = ()
    """Of the source's clock, as `RunningClock` gives them."""
    tags: bool = True
    """Take tags and chapters along."""
    cut: bool = False
    """Leave out what begins after the last frame."""

    def without(self, error: TrackError) -> PassthroughStreams | None:
        """What is left if what failed stays behind; None if nothing is."""
        tracks = tuple(track for track in self.tracks if track.index != error.index)
        return None if len(tracks) == len(self.tracks) else replace(self, tracks=tracks)


def check_output(
    target: Path, encoder: Encoder, facts: StreamFacts, clip: Clip | None = None
) -> tuple[PassthroughStreams | None, list[str]]:
    """Try everything that is written to `target` at the end; `facts` are the output's.

    Returns what goes along with the video, if there is a `clip`, and a sentence for each thing that
    will be missing or changed. Raises `VideoError` or `DiskFullError`.
    """
    container = container_of(target)
    with writing(target):
        coded = coded_frame(encoder, facts)
    if clip is None:
        Trial(container, coded, facts).write_header(target, None, Plan())
        return None, []
    path, origin = Path(clip.name), clip.origin * clip.facts.time_base
    excerpt = Excerpt(origin, origin if clip.span.start > 0 else None)
    jumps = find_jumps(path)
    trial = Trial(container, coded, facts, excerpt, jumps)
    plan = trial.plan(path, clip.side_data)
    trial.write_header(target, path, plan)
    return PassthroughStreams(path, tuple(plan.tracks), excerpt, jumps, plan.tags), plan.warnings
