"""A batch from beginning to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ikc_deploy.batch.cluster import connected, run_tasks
from ikc_deploy.batch.plan import ClipPlan, Inputs, find_inputs, plan_clip, weight
from ikc_deploy.batch.run_state import BatchRunState, fingerprint, open_run_state
from ikc_deploy.batch.settings import BatchSettings
from ikc_deploy.batch.tasks import ChunkTask, Task, TaskOutcome
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import IkcError
from ikc_deploy.imaging.image_files import ImageTask, Upscaled


@dataclass(frozen=True)
class Joined:
    """A clip that is done."""

    source: Path
    target: Path
    frames: int
    warnings: tuple[str, ...]


@dataclass
class BatchReport:
    """What came of a batch."""

    made: int = 0
    """Outputs of this run."""
    kept: int = 0
    """Outputs that an earlier run had made already."""
    failures: list[str] = field(default_factory=list)


def run_batch(
    settings: BatchSettings,
    on_output: Callable[[Upscaled | Joined], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> BatchReport:
    """Write the missing outputs of a batch; a later run continues an interrupted one.

    `progress` is called with how many pictures and frames are done and how many there are. What
    cannot be made is in the report, and the rest is made. Raises `InputError` for inputs or outputs
    that cannot be, `BundleError`, `MissingExtraError` without Ray, `BackendError` if it does not
    run. Whatever ends a run, the next one goes on.
    """
    inputs = find_inputs(settings.inputs, settings.out, settings.max_pixels)
    bundle = Bundle.open(settings.upscaler.bundle)
    with open_run_state(settings.out) as run_state:
        batch = _BatchRun(settings, run_state, bundle, on_output)
        tasks = batch.plan(inputs)
        total, done = sum(map(weight, tasks)), 0
        progress(done, total)
        if tasks:
            with connected(settings.cluster), run_state.scratch() as scratch:
                work = run_tasks(tasks, settings.upscaler, settings.cluster, scratch)
                for number, outcome in work:
                    batch.take(tasks[number], outcome)
                    done += weight(tasks[number])
                    progress(done, total)
    return batch.report


class _BatchRun:
    def __init__(
        self,
        settings: BatchSettings,
        run_state: BatchRunState,
        bundle: Bundle,
        on_output: Callable[[Upscaled | Joined], None],
    ) -> None:
        self.report = BatchReport()
        self._settings = settings
        self._run_state = run_state
        self._scale = bundle.manifest.scale
        self._on_output = on_output
        self._run: dict[str, Any] = {
            "weights": bundle.manifest.weights_sha256,
            "precision": bundle.manifest.precision,
            "iters": settings.upscaler.iters,
            "sigma": settings.upscaler.sigma,
            "estimate": settings.upscaler.estimate,
        }
        self._pictures: dict[Path, str] = {}
        """What each picture is made from, by its target."""
        self._clips: dict[Path, ClipPlan] = {}
        """The clip that each unfinished piece belongs to, by the piece's place."""

    def plan(self, inputs: Inputs) -> list[Task]:
        """The tasks for what is missing; clips that lack nothing but joining are joined."""
        chunk_tasks = [chunk_task for clip in inputs.clips for chunk_task in self._plan_clip(*clip)]
        return [*chunk_tasks, *(job for job in inputs.pictures if not self._has(job))]

    def take(self, task: Task, outcome: TaskOutcome) -> None:
        """Enter what became of a task."""
        if isinstance(task, ChunkTask):
            self._take_chunk(task, outcome)
        elif outcome.done is None:
            self.report.failures.append(_about(task.source, outcome.error or ""))
        else:
            self._run_state.add(task.target, self._pictures[task.target])
            self.report.made += 1
            self._on_output(outcome.done)

    def _has(self, job: ImageTask) -> bool:
        made_from = fingerprint(job.source, self._run)
        self._pictures[job.target] = made_from
        kept = self._run_state.has(job.target, made_from)
        self.report.kept += kept
        return kept

    def _plan_clip(self, source: Path, target: Path) -> Sequence[ChunkTask]:
        try:
            clip = plan_clip(
                source, target, self._scale, self._settings.encoder, self._run, self._run_state
            )
        except IkcError as error:
            self.report.failures.append(_about(source, str(error)))
            return ()
        if self._run_state.has(target, clip.made_from):
            self.report.kept += 1
            return ()
        missing = clip.missing()
        self._clips |= {job.chunk_folder: clip for job in missing}
        if not missing:
            self._finish(clip)
        return missing

    def _take_chunk(self, job: ChunkTask, outcome: TaskOutcome) -> None:
        clip = self._clips.pop(job.chunk_folder)
        clip.warnings += outcome.warnings
        if outcome.error is not None:
            label = f"piece {clip.jobs.index(job) + 1} of {len(clip.jobs)}: {outcome.error}"
            self.report.failures.append(_about(job.source, label))
        # Its folders are looked at once, not after each piece.
        if clip not in self._clips.values() and not clip.missing():
            self._finish(clip)

    def _finish(self, clip: ClipPlan) -> None:
        try:
            frames = clip.finish()
        except IkcError as error:
            self.report.failures.append(_about(clip.source, str(error)))
            return
        self._run_state.add(clip.target, clip.made_from)
        self.report.made += 1
        warnings = tuple(dict.fromkeys(clip.warnings))
        self._on_output(Joined(clip.source, clip.target, frames, warnings))


def _about(source: Path, error: str) -> str:
    return error if str(source) in error else f"'{source}': {error}"
