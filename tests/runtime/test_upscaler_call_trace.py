"""The way of a frame in the code, from the command to the pixels, as a profiler sees it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import ikc_deploy
from ikc_deploy import Bundle
from ikc_deploy.cli import ikc_upscale
from tests.samples import photo

ROOT = Path(ikc_deploy.__file__).parent


class Trace:
    """Calls of this package's modules in the current thread."""

    def __init__(self) -> None:
        self.entries: Counter[str] = Counter()
        """Calls of a module from outside of it."""
        self.nested: dict[str, tuple[str, ...]] = {}
        """The way in which a module was entered from itself most often."""
        self._stack: list[str] = []

    def of(self, work: Callable[[], Any]) -> Any:
        sys.setprofile(self._event)
        try:
            return work()
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        if event == "return" and self._stack:
            self._stack.pop()
        if event != "call":
            return
        path = Path(frame.f_code.co_filename)
        last = self._stack[-1] if self._stack else ""
        # A call of another package belongs to the module that called it.
        name = ".".join(path.relative_to(ROOT).parts) if path.is_relative_to(ROOT) else last
        self._stack.append(name)
        if name == last:
            return
        self.entries[name] += 1
        way = [
            each
            for each, before in zip(self._stack, ["", *self._stack], strict=False)
            if each != before
        ]
        if way.count(name) > self.nested.get(name, ()).count(name):
            self.nested[name] = tuple(way)


MODES: list[list[str]] = [
    ["--estimate", "full"],
    ["--estimate", "crops"],
    ["--estimate", "full", "--tile", "64"],
    ["--estimate", "crops", "--tile", "64"],
    ["--early-stop", "0.01"],
    ["--sigma", "1.7"],
]


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_no_module_is_entered_again_and_again_on_the_way_to_the_pixels(
    bundle: Bundle, tmp_path: Path, mode: list[str]
) -> None:
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    Image.fromarray(photo(96, 150)).save(source)
    command = [str(source), "-o", str(target), "--bundle", str(bundle.path), "--iters", "1"]
    arguments = [*command, "--backend", "onnxruntime", *mode]
    trace = Trace()
    done = trace.of(lambda: CliRunner().invoke(ikc_upscale.main, arguments))
    assert done.exit_code == 0, done.output
    assert Image.open(target).size == (600, 384)
    for name, way in trace.nested.items():
        assert way.count(name) <= 2, f"{name}: {' > '.join(way)}"
    assert trace.entries["runtime.worker.py"] >= 1


@pytest.mark.parametrize("estimate", ["full", "crops", "track"])
def test_a_call_enters_the_upscaler_and_its_worker_once(bundle: Bundle, estimate: Any) -> None:
    with ikc_deploy.load(bundle, "onnxruntime", 1, threads=1) as upscaler:
        for _ in range(2):
            trace = Trace()
            result = trace.of(lambda: upscaler(photo(96, 150), estimate=estimate))
            for name in ("runtime.upscaler.py", "runtime.worker.py"):
                assert trace.entries[name] == 1, trace.entries
            assert all(way.count(name) == 1 for name, way in trace.nested.items()), trace.nested
            assert np.asarray(result.image).shape == (384, 600, 3)
