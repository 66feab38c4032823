from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ikc_deploy.errors import MissingExtraError
from ikc_deploy.video.interfaces import Frame
from ikc_deploy.video.window import WindowSink
from tests.samples import photo


def test_frames_are_shown_until_a_key_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV is a stand-in here: no screen."""
    shown: list[Any] = []
    keys = iter([-1, ord("q")])
    stand_in = SimpleNamespace(
        imshow=lambda _, image: shown.append(image),
        waitKey=lambda _: next(keys),
        destroyAllWindows=lambda: shown.append("closed"),
    )
    monkeypatch.setitem(sys.modules, "cv2", stand_in)
    stop = threading.Event()
    sink = WindowSink(stop)
    sink.write(Frame(photo(8, 8), 0))
    assert not stop.is_set()
    sink.write(Frame(photo(8, 8), 1))
    assert stop.is_set()
    sink.finish(complete=False)
    np.testing.assert_array_equal(shown[0], photo(8, 8)[:, :, ::-1])
    assert shown[2] == "closed"


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"ikc-deploy\[window\]"):
        WindowSink(threading.Event())
