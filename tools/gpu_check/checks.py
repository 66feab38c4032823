"""The parts of `make gpu-check`; each returns facts, or raises an error that `parts` reports."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ikc_deploy.benchmarks.synthetic_frames import natural_frame
from ikc_deploy.bundle.file_records import record_files
from ikc_deploy.bundle.manifest import BASIS_FILE, Bundle, Manifest
from ikc_deploy.bundle.psnr import psnr
from ikc_deploy.export.graphs import OPSET, graph_modules
from ikc_deploy.loops import FRAME
from ikc_deploy.networks.weights_loader import Weights
from ikc_deploy.runtime.backends.backend_choice import open_backend
from ikc_deploy.runtime.backends.base import DEFAULT_CUDA_GRAPH, Backend, CudaGraphUse
from ikc_deploy.runtime.backends.cuda_backend import CudaBackend
from ikc_deploy.runtime.cuda.buffers import DeviceBuffer, PinnedBuffer
from ikc_deploy.runtime.cuda.cuda_graphs import capture
from ikc_deploy.runtime.cuda.device import Device, open_device
from ikc_deploy.runtime.cuda.streams import CudaEvent, CudaStream, to_host
from ikc_deploy.runtime.frames import FrameShape
from ikc_deploy.runtime.options import UpscalerOptions
from ikc_deploy.runtime.session import Session
from ikc_deploy.runtime.upscaler import Upscaler
from tools.gpu_check.parts import (
    Facts,
    NotRunError,
    Part,
    opened,
    require,
)
from tools.gpu_check.torch_runner import Place, TorchGraphRunner

Precision = Literal["fp32", "fp16"]
Frame = NDArray[np.uint8]

RUNNERS: Final = ("torch", "onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
_PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16")

_MIN_DB: Final = {"fp32": 60.0, "fp16": 40.0}
"""Smallest PSNR of 8-bit frames against torch on the CPU, float32, at every step. Codes that differ
a little change a few roundings: float32 on another device is not bit-equal. The limit is loose on
purpose: a wrong buffer or order results in 30 dB and less."""

_SLACK_BYTES: Final = 2**20
"""Largest loss of free memory over a thousand frames: other processes use the GPU, too."""


@dataclass(frozen=True)
class GpuCheckSettings:
    """The settings of the check."""

    iters: int = 7
    """Number of corrections after the predictor."""
    shapes: tuple[tuple[int, int], ...] = ((64, 64), (72, 96), (120, 80), (64, 128))
    """Heights and widths of LR frames, in turn."""
    frames: int = 1000
    """Number of frames of the leak test."""
    latency_shapes: tuple[tuple[int, int], ...] = ((64, 64), (256, 256))
    """Heights and widths of the LR frames that are timed."""
    latency_runs: int = 30
    """Number of timed calls."""
    compile: bool = True
    """Whether to measure torch.compile; it needs a minute."""


@dataclass
class Check:
    """The parts of a check and what they share."""

    weights: Weights
    """Weights of the networks."""
    settings: GpuCheckSettings
    """Settings of the check."""
    place: Place
    """Device on which torch computes."""
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ikc-gpu-check-")))
    """Folder for bundles."""

    def __post_init__(self) -> None:
        """Set torch's arithmetic to float32 and export the bundles of both precisions."""
        # float32 means float32, as in the runtime.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._bare = {precision: self._bare_bundle(precision) for precision in _PRECISIONS}
        self._no_export: dict[Precision, str] = {}

    @cached_property
    def device(self) -> Device:
        """The GPU; raises `NotRunError` without one."""
        device: Device = opened(open_device)
        return device

    def parts(self) -> dict[str, Part]:
        """Return all parts by name, in order."""
        parts: dict[str, Part] = {
            "buffers": self.buffers,
            "streams and events": self.streams,
            "graph of copies": self.graph_of_copies,
        }
        parts |= self._loop_parts("torch")
        for precision in _PRECISIONS:
            parts[f"latency: torch, {precision}"] = partial(self.latency, "torch", precision)
            key = f"latency: plain torch, {precision}"
            parts[key] = partial(self.torch_latency, precision, False)
        for precision in reversed(_PRECISIONS):
            key = f"latency: torch.compile, channels_last, {precision}"
            parts[key] = partial(self.torch_latency, precision, True)
        # Exporting takes longer than everything above.
        for precision in _PRECISIONS:
            parts[f"export, {precision}"] = partial(self.exported, precision)
        for runner in RUNNERS[1:]:
            parts |= self._loop_parts(runner)
            for precision in _PRECISIONS:
                key = f"latency: {runner}, {precision}"
                parts[key] = partial(self.latency, runner, precision)
        for precision in _PRECISIONS:
            key = f"latency: ONNX Runtime, buffers on the host, {precision}"
            parts[key] = partial(self.host_latency, precision)
        return parts

    def _loop_parts(self, runner: str) -> dict[str, Part]:
        checks = {
            "graph equals eager loop": self.graph_equals_eager,
            "against torch on the CPU": self.against_the_cpu,
            "arrays of torch": self.foreign_arrays,
            "arrays that are still written or read": self.racing_arrays,
            "shape changes": self.shape_changes,
            "two threads": self.two_threads,
            "submit": self.submitted,
            "leak": self.leak,
        }
        return {
            f"{runner}, {precision}: {name}": partial(check, runner, precision)
            for name, check in checks.items()
            for precision in _PRECISIONS
        }

    # Checks of CUDA itself.

    def buffers(self) -> Facts:
        """Check that copies to the device and back keep every byte, and that memory is freed."""
        stream = CudaStream(self.device)
        free, total = self.device.free_memory()
        for size in (1, 1000, 2**20 + 1, 64 * 2**20):
            content = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
            pinned = PinnedBuffer(self.device, (size,), np.uint8)
            first, second = (DeviceBuffer(self.device, (size,), np.uint8) for _ in range(2))
            pinned.array[...] = content
            stream.upload(pinned, first)
            stream.copy(first.address, second.address, size)
            stream.synchronize()
            pinned.array[...] = 0
            found = to_host(stream, second, pinned)
            require(np.array_equal(found, content), f"{size} bytes changed in a copy")
            del first, second, pinned
        lost = free - self.device.free_memory()[0]
        require(lost <= _SLACK_BYTES, f"{lost} bytes were not freed")
        return {"total_mib": total // 2**20, "free_mib": free // 2**20}

    def streams(self) -> Facts:
        """Check that an event orders two streams, and that times are positive."""
        size = 32 * 2**20
        one, other = CudaStream(self.device), CudaStream(self.device)
        source, target = (PinnedBuffer(self.device, (size,), np.uint8) for _ in range(2))
        first, second = (DeviceBuffer(self.device, (size,), np.uint8) for _ in range(2))
        before, after = CudaEvent(self.device), CudaEvent(self.device)
        for value in range(10):
            source.array[...] = value
            target.array[...] = 255
            before.record(one)
            one.upload(source, first)
            one.copy(first.address, second.address, size)
            after.record(one)
            other.wait(after)
            other.download(second, target)
            other.synchronize()
            require(bool((target.array == value).all()), "a stream did not wait for an event")
        taken = before.elapsed_ms(after)
        require(taken > 0, f"two copies took {taken} ms")
        return {"copies_ms": taken, "gib_per_second": size / 2**30 / (taken / 2e3)}

    def graph_of_copies(self) -> Facts:
        """Check that every launch of a recorded graph repeats the copies, and that it is timed."""
        size = 2**20
        stream = CudaStream(self.device)
        source, target = (PinnedBuffer(self.device, (size,), np.uint8) for _ in range(2))
        buffer = DeviceBuffer(self.device, (size,), np.uint8)
        before, after = CudaEvent(self.device), CudaEvent(self.device)

        def queue() -> None:
            before.record(stream)
            stream.upload(source, buffer)
            stream.download(buffer, target)
            after.record(stream)

        graph = capture(stream, queue)
        times = []
        for value in range(1, 11):
            source.array[...] = value
            target.array[...] = 0
            graph.launch()
            stream.synchronize()
            require(bool((target.array == value).all()), "a launch did not replay the copies")
            times.append(before.elapsed_ms(after))
        require(min(times) > 0, f"events inside the graph measured {min(times)} ms")
        return {"median_ms": statistics.median(times)}

    # Checks of the loop, on every runner.

    def graph_equals_eager(self, runner: str, precision: Precision) -> Facts:
        """Check that one launch and separate calls of the networks return equal bits."""
        frames = self._frames(4)
        with self._open(runner, precision) as upscaler:
            recorded = [upscaler(frame) for frame in frames + frames]
        with self._open(runner, precision, cuda_graph="off") as upscaler:
            eager = [upscaler(frame) for frame in frames + frames]
        for ours, theirs in zip(recorded, eager, strict=True):
            require(np.array_equal(ours.image, theirs.image), "images differ")
            require(np.array_equal(ours.codes, theirs.codes), "codes differ")
        return {"frames": len(recorded)}

    def against_the_cpu(self, runner: str, precision: Precision) -> Facts:
        """Measure the PSNR and |dh| of every step against torch on the CPU in float32."""
        frame = self._frames(1)[0]
        images, codes = self._reference(frame)
        with self._open(runner, precision) as upscaler:
            result = upscaler(frame, steps=True)
        decibels = [
            psnr(ours, wanted, 255) for ours, wanted in zip(result.steps, images, strict=True)
        ]
        errors = [float(np.abs(a - b).max()) for a, b in zip(result.codes, codes, strict=True)]
        facts = {"image_db": decibels, "code_error": errors}
        least = _MIN_DB[precision]
        require(min(decibels) >= least, f"{min(decibels):.1f} dB is below {least:g}: {facts}")
        return facts

    def foreign_arrays(self, runner: str, precision: Precision) -> Facts:
        """Check frames that torch is still computing on the GPU, and results that torch reads."""
        frames = self._frames(4)
        with self._open(runner, precision) as upscaler:
            for frame in frames:
                wanted = upscaler(frame).image
                image = upscaler(self.place.frame(frame)).image
                found = self.place.image(image)
                require(np.array_equal(found, wanted), "the image of a frame on the GPU differs")
        return {"frames": len(frames)}

    def racing_arrays(self, runner: str, precision: Precision) -> Facts:
        """Check frames whose arrays name no stream, and results dropped before they are read.

        Both fail without a word if a stream does not wait for another library's work.
        """
        frames = self._frames(4)
        with self._open(runner, precision) as upscaler:
            for frame in frames:
                wanted = upscaler(frame).image
                image = upscaler(self.place.unnamed(frame)).image
                found = self.place.image(image)
                require(np.array_equal(found, wanted), "a frame was read before it was written")
            for frame in frames:
                wanted = upscaler(frame).image
                read = self.place.read_late(upscaler(self.place.frame(frame)).image)
                # Its result goes into the same memory.
                upscaler(self.place.frame(255 - frame))
                require(
                    np.array_equal(read(), wanted), "a result was overwritten while it was read"
                )
        return {"frames": 3 * len(frames)}

    def shape_changes(self, runner: str, precision: Precision) -> Facts:
        """Check that images stay the same while shapes alternate."""
        frames = self._frames(2 * len(self.settings.shapes))
        with self._open(runner, precision) as upscaler:
            first = [upscaler(frame).image for frame in frames]
            for _ in range(2):
                for frame, wanted in zip(reversed(frames), reversed(first), strict=True):
                    require(np.array_equal(upscaler(frame).image, wanted), "an image changed")
        return {"shapes": len({frame.shape for frame in frames})}

    def two_threads(self, runner: str, precision: Precision) -> Facts:
        """Check that two upscalers recording in two threads return the same images as one."""
        frames = self._frames(6)
        with self._open(runner, precision) as upscaler:
            wanted = [upscaler(frame).image for frame in frames]

        def work(_: int) -> bool:
            with self._open(runner, precision) as upscaler:
                images = [upscaler(frame).image for _ in range(3) for frame in frames]
            return all(map(np.array_equal, images, wanted * 3))

        with ThreadPoolExecutor(2) as threads:
            require(all(threads.map(work, range(2))), "images of threads differ")
        return {"frames": 2 * 3 * len(frames)}

    def submitted(self, runner: str, precision: Precision) -> Facts:
        """Check that submitted frames return the same images as calls, in order."""
        frames = self._frames(8)
        with self._open(runner, precision) as upscaler:
            wanted = [upscaler(frame).image for frame in frames]
            futures = [upscaler.submit(frame) for _ in range(3) for frame in frames]
            images = [future.result(60).image for future in futures]
        require(all(map(np.array_equal, images, wanted * 3)), "submitted frames differ")
        return {"frames": len(images)}

    def leak(self, runner: str, precision: Precision) -> Facts:
        """Check that free GPU memory does not shrink over many frames."""
        frame = self._frames(1)[0]
        with self._open(runner, precision) as upscaler:
            for _ in range(10):
                upscaler(frame)
            before, _ = self.device.free_memory()
            for _ in range(self.settings.frames):
                upscaler(frame)
            after, _ = self.device.free_memory()
        lost = before - after
        require(lost <= _SLACK_BYTES, f"{lost} bytes leaked in {self.settings.frames} frames")
        return {"frames": self.settings.frames, "lost_bytes": lost}

    # Latency.

    def latency(self, runner: str, precision: Precision) -> Facts:
        """Measure milliseconds a frame: queued back to back (events), and from call to result."""
        facts = {}
        for height, width in self.settings.latency_shapes:
            frame = natural_frame(height, width)
            with self._open(runner, precision) as upscaler:
                called = self._clocked(lambda: upscaler(frame))  # noqa: B023
                session = Session(
                    upscaler.backend,
                    upscaler.bundle,
                    FrameShape(1, height, width),
                    self.settings.iters,
                )
                session.upload(frame[None])
                queued = self._queued(upscaler.backend, session)
            facts[f"{height}x{width}"] = {"queued_ms": queued, "called_ms": called}
        return facts

    def torch_latency(self, precision: Precision, compiled: bool) -> Facts:
        """Measure the loop as a torch user writes it: eager, or compiled in channels_last.

        Raises:
            NotRunError: This run leaves compilation out, or torch finds no GPU.
        """
        if compiled and not self.settings.compile:
            raise NotRunError("left out of this run")
        if not self.place.rehearsal and not torch.cuda.is_available():
            raise NotRunError("torch finds no GPU")
        modules = graph_modules(self.weights.networks, precision, "uint8")
        for name, module in modules.items():
            modules[name] = module.to(self.place.device)
            if compiled:
                modules[name] = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        calls = {
            name: torch.compile(module) if compiled else module for name, module in modules.items()
        }

        def loop(lr: torch.Tensor) -> torch.Tensor:
            for _, images in self._walk(calls, lr):
                frame: torch.Tensor = images[FRAME]
            return frame

        facts = {}
        with torch.no_grad():
            for height, width in self.settings.latency_shapes:
                frame = natural_frame(height, width)[None]
                lr = torch.from_numpy(frame).to(self.place.device)

                def called(frame: Frame = frame) -> object:
                    return loop(torch.from_numpy(frame).to(self.place.device)).cpu()

                for _ in range(3):
                    called()
                runs = self.settings.latency_runs
                queued = self.place.milliseconds(partial(loop, lr), runs)
                facts[f"{height}x{width}"] = {
                    "queued_ms": queued,
                    "called_ms": self._clocked(called),
                }
        return facts

    def host_latency(self, precision: Precision) -> Facts:
        """Measure ONNX Runtime's CUDA provider with numpy arrays in and out of every network."""
        from ikc_deploy.runtime.backends.onnx_sessions import load_sessions

        bundle = self._bundle(precision)
        sessions = opened(lambda: load_sessions(bundle, "CUDAExecutionProvider", {}))

        def run(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
            names = bundle.loop.outputs(name, bundle.manifest.io)
            return dict(zip(names, sessions[name].run(list(names), dict(inputs)), strict=True))

        start = None if bundle.loop.start else bundle.basis.delta_code()[None]

        def loop(lr: Frame) -> object:
            for _, images in bundle.loop.walk(run, lr, start, self.settings.iters):
                frame = images[FRAME]
            return frame

        facts = {}
        for height, width in self.settings.latency_shapes:
            frame = natural_frame(height, width)[None]
            for _ in range(3):
                loop(frame)
            facts[f"{height}x{width}"] = {"called_ms": self._clocked(partial(loop, frame))}
        return facts

    # Resources of the parts above.

    def exported(self, precision: Precision) -> Facts:
        """Export the graphs into a bundle, and build a TensorRT engine where that is possible."""
        bundle = self._bundle(precision)
        parity = bundle.manifest.parity
        return {
            "parity": parity and asdict(parity),
            "convolutions": bundle.manifest.convolutions,
        }

    def _open(
        self, runner: str, precision: Precision, cuda_graph: CudaGraphUse = DEFAULT_CUDA_GRAPH
    ) -> Upscaler:
        return Upscaler(*self._backend(runner, precision, cuda_graph), self.settings.iters)

    def _backend(
        self, runner: str, precision: Precision, cuda_graph: CudaGraphUse
    ) -> tuple[Bundle, Backend]:
        device = self.device
        if runner == "torch":
            if not self.place.rehearsal and not torch.cuda.is_available():
                raise NotRunError("torch finds no GPU")
            torch_runner = TorchGraphRunner(self.weights.networks, precision, self.place)
            return self._bare[precision], CudaBackend(torch_runner, device, cuda_graph)
        bundle = self._with_engine(runner, precision)
        backend: Backend = opened(
            lambda: open_backend(runner, bundle, UpscalerOptions(cuda_graph=cuda_graph))
        )
        return bundle, backend

    def _bundle(self, precision: Precision) -> Bundle:
        """Return the exported bundle; it is exported once."""
        folder = self.folder / precision
        if precision in self._no_export:
            raise NotRunError(f"the export failed: {self._no_export[precision]}")
        if not folder.is_dir():
            try:
                from ikc_deploy.export.export_settings import ExportSettings
                from ikc_deploy.export.exporter import export_bundle
            except ModuleNotFoundError as error:
                raise NotRunError(f"exporting needs {error.name}") from error
            try:
                export_bundle(self.weights, folder, ExportSettings(precision))
            except Exception as error:
                # Once is enough: it takes a while.
                self._no_export[precision] = str(error)
                raise
        return Bundle.open(folder)

    def _with_engine(self, runner: str, precision: Precision) -> Bundle:
        """Return the exported bundle, with an engine for this GPU if the runner is a TensorRT."""
        from ikc_deploy.bundle.engine_store import Profile
        from ikc_deploy.engines.cache import add_engine
        from ikc_deploy.engines.targets import Target
        from ikc_deploy.engines.toolchain import prepare_toolchain

        if runner not in ("tensorrt", "tensorrt-rtx"):
            return self._bundle(precision)
        shapes = [*self.settings.shapes, *self.settings.latency_shapes]
        heights, widths = zip(*shapes, strict=True)
        most = (1, max(heights), max(widths))
        profile = Profile((1, min(heights), min(widths)), most, most)
        target = Target(profiles=(profile,))
        variant: Any = runner
        toolchain = opened(lambda: prepare_toolchain(variant, target))
        bundle = self._bundle(precision)
        add_engine(bundle.path, toolchain, target)
        return Bundle.open(bundle.path)

    def _bare_bundle(self, precision: Precision) -> Bundle:
        """Return a bundle without graphs, for the torch runner, which has modules instead."""
        networks = self.weights.networks
        folder = self.folder / f"bare-{precision}"
        folder.mkdir(parents=True, exist_ok=True)
        networks.basis.save(folder / BASIS_FILE)
        manifest = Manifest(
            name=self.weights.source.name,
            scale=networks.architecture.scale,
            loop=networks.loop.name,
            code_size=networks.architecture.code_size,
            precision=precision,
            io="uint8",
            basis_id=networks.basis.id,
            weights_sha256=self.weights.source.sha256,
            random_weights=self.weights.random,
            opset=OPSET,
            architecture=networks.architecture.to_dict(),
            training=networks.training,
            tools={},
            activation_bytes=dict.fromkeys(networks.loop.graphs, 1),
        )
        return Bundle(folder, manifest, record_files(folder, [BASIS_FILE]))

    def _frames(self, count: int) -> list[Frame]:
        shapes = self.settings.shapes
        return [natural_frame(*shapes[i % len(shapes)], seed=i) for i in range(count)]

    def _reference(self, frame: Frame) -> tuple[list[Frame], list[NDArray[np.float32]]]:
        """Return frames and codes of every step by torch on the CPU in float32."""
        modules = graph_modules(self.weights.networks, "fp32", "uint8")
        images, codes = [], []
        with torch.no_grad():
            lr = torch.from_numpy(frame)[None]
            for code, outputs in self._walk(modules, lr):
                images.append(outputs[FRAME][0].numpy())
                codes.append(code[0].numpy())
        return images, codes

    def _walk(
        self, modules: Mapping[str, Callable[..., Any]], lr: torch.Tensor
    ) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Run the loop on modules of graphs; yield the code and the images of every step."""
        networks = self.weights.networks

        def run(name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
            found = modules[name](**inputs)
            outputs = found if isinstance(found, tuple) else (found,)
            return dict(zip(networks.loop.outputs(name, "uint8"), outputs, strict=True))

        start = None
        if networks.loop.start is None:
            first = torch.from_numpy(networks.basis.delta_code()).to(lr.device)
            start = first.expand(len(lr), -1)
        return networks.loop.walk(run, lr, start, self.settings.iters)

    def _queued(self, backend: Backend, session: Session) -> float:
        sequence = session.blind()
        for _ in range(3):
            sequence.run()
        start, end = backend.create_event(), backend.create_event()
        start.record()
        for _ in range(self.settings.latency_runs):
            sequence.queue()
        end.record()
        backend.synchronize()
        return backend.elapsed_ms(start, end) / self.settings.latency_runs

    def _clocked(self, work: Callable[[], object]) -> float:
        """Return the median wall-clock time; `work` must end with its result on the host."""
        for _ in range(3):
            work()
        times = []
        for _ in range(self.settings.latency_runs):
            started = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - started))
        return statistics.median(times)
