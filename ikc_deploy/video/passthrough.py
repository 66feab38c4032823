"""Checks, before any work, which streams and metadata an output receives from its clip."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from ikc_deploy.video.clip import Clip, find_jumps
from ikc_deploy.video.encoders import Encoder, coded_frame
from ikc_deploy.video.excerpt import Excerpt
from ikc_deploy.video.interfaces import StreamFacts
from ikc_deploy.video.names import container_of
from ikc_deploy.video.output_container import TrackError
from ikc_deploy.video.tracks import Track
from ikc_deploy.video.trial import Plan, Trial
from ikc_deploy.video.write_errors import writing


@dataclass(frozen=True)
class PassthroughStreams:
    """The streams, tags and chapters that are taken from the source clip."""

    path: Path
    """Path of the source clip."""
    tracks: tuple[Track, ...]
    """Streams other than the video."""
    excerpt: Excerpt
    """Part of the source clip to take."""
    jumps: tuple[Fraction, ...] = ()
    """Jumps of the clock of the source, as `RunningClock.jumps`."""
    tags: bool = True
    """Whether to take tags and chapters."""
    cut: bool = False
    """Whether to omit what begins after the last frame."""

    def without(self, error: TrackError) -> PassthroughStreams | None:
        """Return these streams without the one that failed; None if that one is not known."""
        tracks = tuple(track for track in self.tracks if track.index != error.index)
        return None if len(tracks) == len(self.tracks) else replace(self, tracks=tracks)


def check_output(
    target: Path, encoder: Encoder, facts: StreamFacts, clip: Clip | None = None
) -> tuple[PassthroughStreams | None, list[str]]:
    """Try to write everything that the output will contain.

    Args:
        target: The video file to write.
        encoder: Its encoder.
        facts: Properties of the output.
        clip: The source clip; None for other sources.

    Returns:
        The streams to take from the clip (None without a clip), and a sentence for each part that
        the output will lack or that is changed.

    Raises:
        VideoError: The output cannot be written.
        DiskFullError: The disk is full.
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
    companions = PassthroughStreams(path, tuple(plan.tracks), excerpt, jumps, plan.tags)
    lost = []
    if facts.hdr is not None and not facts.hdr.options(encoder.name):
        lost.append(
            "the clip's HDR metadata (mastering display, light levels) is left out: "
            f"{encoder.name} does not write it; libx265 and libsvtav1 do"
        )
    return companions, [*plan.warnings, *lost]
