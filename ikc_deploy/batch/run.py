"""The run of a batch: plan, execute on a cluster, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ikc_deploy.batch.cluster import connected, run_tasks
from ikc_deploy.batch.inputs import Inputs, find_inputs, require_folder
from ikc_deploy.batch.plan import ClipPlan, plan_clip, weight
from ikc_deploy.batch.run_state import BatchRunState, fingerprint, open_run_state
from ikc_deploy.batch.settings import BatchSettings
from ikc_deploy.batch.tasks import ChunkTask, Task, TaskOutcome
from ikc_deploy.bundle.manifest import Bundle
from ikc_deploy.errors import IkcError
from ikc_deploy.imaging.file_upscaling import ImageTask, Upscaled


@dataclass(frozen=True)
class Joined:
    """A finished clip, joined from its chunks."""

    source: Path
    """The input clip."""
    target: Path
    """Video file that was written."""
    frames: int
    """Number of frames of the output."""
    warnings: tuple[str, ...]
    """Problems of the source, and parts that the output lacks."""


@dataclass
class BatchReport:
    """The result of a batch."""

    made: int = 0
    """Number of outputs that this run has written."""
    kept: int = 0
    """Number of outputs that an earlier run had written."""
    failures: list[str] = field(default_factory=list)
    """Error messages, which name the input."""


def run_batch(
    settings: BatchSettings,
    on_output: Callable[[Upscaled | Joined], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> BatchReport:
    """Write the missing outputs of a batch; can be repeated after an interruption.

    Inputs that fail are listed in the report, and do not stop the others.

    Args:
        settings: Inputs, output folder, upscaler and cluster.
        on_output: Called for each output that was written.
        progress: Called with the number of finished images and frames, and their total.

    Raises:
        InputError: The inputs or the output folder are invalid, or another run writes to it.
        OutputError: An output cannot be written at its place.
        BundleError: The bundle is missing or damaged.
        MissingExtraError: Ray is not installed.
        BackendError: Ray or the actors do not start.
    """
    require_folder(settings.out)
    inputs = find_inputs(settings.inputs, settings.out, max_pixels=settings.max_pixels).absolute()
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
            "iters": settings.upscaler.options.iters,
            "early_stop": settings.upscaler.options.early_stop,
            "self_ensemble": settings.upscaler.options.self_ensemble,
            "sigma": settings.upscaler.sigma,
            "estimate": settings.upscaler.options.estimate,
            "postprocessing": asdict(settings.postprocessing),
        }
        self._pictures: dict[Path, str] = {}
        """Fingerprint of each image, by its target."""
        self._clips: dict[Path, ClipPlan] = {}
        """Clip of each unfinished chunk, by the folder of the chunk."""

    def plan(self, inputs: Inputs) -> list[Task]:
        """Return the tasks of missing outputs; join clips whose chunks are all finished."""
        chunk_tasks = [
            chunk_task
            for clip in inputs.clips
            for chunk_task in self._plan_clip(clip.source, clip.target)
        ]
        wanted = self._settings.postprocessing
        pictures = (replace(job, postprocessing=wanted) for job in inputs.pictures)
        return [*chunk_tasks, *(job for job in pictures if not self._has(job))]

    def take(self, task: Task, outcome: TaskOutcome) -> None:
        """Record the outcome of a task."""
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
                source,
                target,
                self._scale,
                self._settings.encoder,
                self._settings.postprocessing,
                self._run,
                self._run_state,
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
            label = f"chunk {clip.jobs.index(job) + 1} of {len(clip.jobs)}: {outcome.error}"
            self.report.failures.append(_about(job.source, label))
        # The folders of a clip are checked once, not after each chunk.
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
