"""A real Triton Inference Server: the same answers as the local runtime, and errors that end there.

The networks are served by ONNX Runtime behind the Python backend, a request at a time, so that
answers can be equal to the bit.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import ikc_deploy
from ikc_deploy import Bundle, Result, Upscaler
from ikc_deploy.imaging.reading import read_rgb
from ikc_deploy.imaging.writing import write_rgb
from ikc_deploy.serving.configs import ServingSettings, default_limits
from ikc_deploy.serving.repository import write_repository
from tests.samples import photo
from tests.scale.triton_server import Server, running_server

grpc = pytest.importorskip(
    "tritonclient.grpc", reason="Triton is not installed; `make test-scale` installs it"
)

ITERS: Final = (0, 1, 2, 3)
LARGEST_SIDE: Final = 32


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with small limits, and with a second, narrow model for overload."""
    folder = tmp_path_factory.mktemp("triton")
    limits = default_limits()
    limits = replace(limits, largest_area=LARGEST_SIDE**2, default_iters=3, largest_iters=20)
    write_repository(bundle, folder / "models", ServingSettings(limits, batch=2))
    narrow = shutil.copytree(folder / "models" / "ikc", folder / "models" / "narrow")
    config = (narrow / "config.pbtxt").read_text().replace('name: "ikc"', 'name: "narrow"')
    config = config.replace("max_queue_size: 64", "max_queue_size: 1")
    (narrow / "config.pbtxt").write_text(config.replace("count: 2", "count: 1"))
    with running_server(folder / "models", folder) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with grpc.InferenceServerClient(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="module")
def local(bundle: Bundle) -> dict[int, Upscaler]:
    """The local runtime, by number of corrections."""
    return {iters: ikc_deploy.load(bundle, "onnxruntime", iters, threads=1) for iters in ITERS}


def tensor(name: str, values: NDArray[Any], dtype: str) -> Any:
    given = grpc.InferInput(name, list(values.shape), dtype)
    given.set_data_from_numpy(values)
    return given


def inputs(
    frames: NDArray[np.uint8], iters: int | None = None, sigma: float | None = None
) -> list[Any]:
    given = [tensor("lr", frames, "UINT8")]
    if iters is not None:
        given.append(tensor("iters", np.full((len(frames), 1), iters, np.int32), "INT32"))
    if sigma is not None:
        given.append(tensor("sigma", np.full((len(frames), 1), sigma, np.float32), "FP32"))
    return given


def assert_equal(answer: Any, expected: Result) -> None:
    np.testing.assert_array_equal(answer.as_numpy("image"), expected.image)
    np.testing.assert_array_equal(answer.as_numpy("codes"), expected.codes.swapaxes(0, 1))
    sigma = np.asarray(expected.sigma, np.float32)
    np.testing.assert_array_equal(answer.as_numpy("sigma")[:, 0], sigma)


def metrics(server: Server) -> str:
    with urllib.request.urlopen(server.metrics) as page:
        text: str = page.read().decode()
        return text


def counts(server: Server) -> NDArray[np.int64]:
    """Requests that predictor, sftmd and corrector have answered, from the server's metrics."""
    text = metrics(server)
    found = [
        re.search(rf'nv_inference_request_success{{model="ikc_{network}",.*}} (\d+)', text)
        for network in ("predictor", "sftmd", "corrector")
    ]
    return np.array([int(each[1]) if each else 0 for each in found])


def assert_counted(server: Server, before: NDArray[np.int64], expected: list[int]) -> None:
    """The server counts a request just after it has answered it."""
    deadline = time.monotonic() + 10
    while (counts(server) - before).tolist() != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (counts(server) - before).tolist() == expected


def test_100_requests_of_mixed_sizes_8_at_a_time_are_equal_to_the_local_runtime(
    server: Server, client: Any, local: dict[int, Upscaler]
) -> None:
    random = np.random.default_rng(0)
    cases = []
    for number in range(100):
        height, width = random.integers(8, LARGEST_SIDE + 1, 2)
        frames = [photo(int(height), int(width), number + i) for i in range(1 + number % 2)]
        sigma = 1.75 if number % 5 == 4 else None
        cases.append((np.stack(frames), ITERS[number // 2 % 4], sigma))
    before = counts(server)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda case: client.infer("ikc", inputs(*case)), cases))
    for (lr, iters, sigma), answer in zip(cases, answers, strict=True):
        assert_equal(answer, local[iters](lr, sigma=sigma))
    blind = [iters for _, iters, sigma in cases if sigma is None]
    known = len(cases) - len(blind)
    # With a sigma, the predictor still estimates the noise and the compression, if it can.
    predicted = len(cases) if local[0].bundle.basis.levels else len(blind)
    expected = [predicted, sum(blind) + len(blind) + known, sum(blind)]
    assert_counted(server, before, expected)


def test_metrics_count_1_predictor_to_t_plus_1_sftmd_to_t_correctors(
    server: Server, client: Any
) -> None:
    for iters, requests in ((None, 3), (7, 2)):
        before = counts(server)
        for _ in range(requests):
            client.infer("ikc", inputs(photo(8, 8)[None], iters))
        t = 3 if iters is None else iters
        np.testing.assert_array_equal(
            counts(server) - before, [requests * n for n in (1, t + 1, t)]
        )


FRAME: Final = photo(16, 20)[None]


def disguised() -> list[Any]:
    given = tensor("lr", FRAME, "UINT8")
    given.set_shape([1, 20, 20, 3])
    return [given]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (list, "expected .* inputs? but got 0|missing .*lr"),
        (lambda: [tensor("lr", FRAME.astype(np.float32), "FP32")], "data-type"),
        (lambda: [tensor("lr", FRAME[0], "UINT8")], "batch-size must be <= 2"),
        (lambda: [tensor("lr", FRAME[..., :2].copy(), "UINT8")], "shape"),
        (disguised, "size"),
        (lambda: [tensor("lr", FRAME[:, :0], "UINT8")], "at least 8 pixels on each side"),
        (lambda: inputs(photo(7, 30)[None]), "at least 8 pixels on each side, got 30x7"),
        (lambda: inputs(photo(33, 32)[None]), "at most 1024 pixels, got 32x33; send it in tiles"),
        (lambda: inputs(np.repeat(FRAME, 3, 0)), "batch-size must be <= 2"),
        (lambda: inputs(FRAME, iters=-1), r"iters must be .* in 0\.\.20 .*, got \[-1\]"),
        (lambda: inputs(FRAME, iters=21), r"iters must be .* in 0\.\.20 .*, got \[21\]"),
        (lambda: inputs(FRAME, sigma=9.0), r"sigma must lie in \[0.2, 4\]"),
        (lambda: inputs(FRAME, sigma=float("nan")), r"sigma must lie in \[0.2, 4\]"),
        (
            lambda: [
                *inputs(np.repeat(FRAME, 2, 0)),
                tensor("iters", np.array([[1], [2]], np.int32), "INT32"),
            ],
            "one whole number .* for all frames",
        ),
    ],
)
def test_a_bad_request_is_an_error_and_the_next_good_one_is_answered(
    client: Any, local: dict[int, Upscaler], given: Any, words: str
) -> None:
    with pytest.raises(grpc.InferenceServerException, match=words):
        client.infer("ikc", given())
    assert_equal(client.infer("ikc", inputs(FRAME)), local[3](FRAME))


def test_past_the_queue_requests_are_refused_at_once_and_the_rest_is_answered(
    client: Any, local: dict[int, Upscaler]
) -> None:
    def ask(_: int) -> Any:
        try:
            return client.infer("narrow", inputs(FRAME, iters=20))
        except grpc.InferenceServerException as error:
            return error

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert 0 < len(refused) < len(answers)
    assert all("maximum queue size" in str(error) for error in refused)
    assert_equal(client.infer("narrow", inputs(FRAME)), local[3](FRAME))


class Tracker:
    """What a stream should give, from the graphs alone: F, then C and F from the last code on."""

    def __init__(self, bundle: Bundle, blind: Upscaler) -> None:
        self._graphs = {
            name: onnxruntime.InferenceSession(str(bundle.graph(name)))
            for name in ("sftmd", "corrector")
        }
        self._blind = blind
        self._code: NDArray[np.float32] | None = None

    def __call__(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self._code is None:
            result = self._blind(frame)
            self._code = result.codes[-1]
            return result.image, result.codes.swapaxes(0, 1)
        feeds = {"lr": frame, "code": self._code}
        (sr,) = self._graphs["sftmd"].run(["sr"], feeds)
        (code,) = self._graphs["corrector"].run(["next_code"], {"sr": sr, "code": self._code})
        (image,) = self._graphs["sftmd"].run(["frame"], feeds | {"code": code})
        codes = np.stack([self._code, code], axis=1)
        self._code = code
        return image, codes


def test_frames_of_a_stream_start_from_its_last_code(
    bundle: Bundle, server: Server, client: Any, local: dict[int, Upscaler]
) -> None:
    trackers = {stream: Tracker(bundle, local[3]) for stream in (7, 8)}
    before = counts(server)
    for step in range(4):
        for stream, tracker in trackers.items():
            frame = photo(12, 16 + stream, step + stream)[None]
            ends = {"sequence_start": step == 0, "sequence_end": step == 3}
            answer = client.infer("ikc_stream", inputs(frame), sequence_id=stream, **ends)
            image, codes = tracker(frame)
            np.testing.assert_allclose(answer.as_numpy("codes"), codes, atol=1e-6)
            assert np.abs(answer.as_numpy("image").astype(int) - image).max() <= 1
    # For each stream a first frame with three corrections, and three with one.
    assert_counted(server, before, [2, 2 * (4 + 3 * 2), 2 * (3 + 3)])
    with pytest.raises(grpc.InferenceServerException, match="sequence"):
        client.infer("ikc_stream", inputs(FRAME), sequence_id=7)
    with pytest.raises(grpc.InferenceServerException, match="correlation ID"):
        client.infer("ikc_stream", inputs(FRAME))
    start = {"sequence_id": 7, "sequence_start": True}
    with pytest.raises(grpc.InferenceServerException, match="iters must be"):
        client.infer("ikc_stream", inputs(FRAME, iters=-1), **start)
    assert_equal(client.infer("ikc_stream", inputs(FRAME), **start), local[3](FRAME))


@pytest.mark.parametrize("way", [(), ("--shared-memory",), ("--stream", "--shared-memory")])
def test_the_example_client_writes_what_the_local_runtime_makes(
    server: Server, local: dict[int, Upscaler], tmp_path: Path, way: tuple[str, ...]
) -> None:
    write_rgb(photo(16, 24), tmp_path / "a.png")
    example = Path(__file__).parents[2] / "examples" / "triton_client.py"
    command = [sys.executable, example, "--server", server.grpc, "--out", tmp_path / "out", *way]
    done = subprocess.run(
        [*map(str, command), str(tmp_path / "a.png")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = local[3](photo(16, 24))
    assert done.stdout == f"{tmp_path / 'out' / 'a.png'}: sigma {expected.sigma:.2f}\n"
    np.testing.assert_array_equal(read_rgb(tmp_path / "out" / "a.png"), expected.image)
