from __future__ import annotations

import asyncio
import io
import logging
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from ikc_deploy import Bundle
from ikc_deploy.cli.ikc_upscale import main as ikc_upscale
from ikc_deploy.cli.ikc_web import main as ikc_web
from ikc_deploy.errors import InputError
from ikc_deploy.web.web_settings import WebSettings
from ikc_deploy.web.work import UpscaleService
from tests.cli.running import assert_one_clear_line, invoke
from tests.samples import photo
from tests.web.pages import encoded, small_page

URL = "http://127.0.0.1:7860"
HEADERS = {"x-ikc": "1"}


@pytest.fixture
def client(small_bundle: Bundle) -> Iterator[TestClient]:
    app, service = small_page(small_bundle, max_upload_mib=1, max_megapixels=0.01)
    with TestClient(app, base_url=URL, headers=HEADERS) as opened:
        yield opened
    service.close()


def other_user(client: TestClient) -> TestClient:
    return TestClient(client.app, base_url=URL, headers=HEADERS)


def upload(client: TestClient, data: bytes, name: str = "a.png") -> dict[str, Any]:
    answer = client.post("/api/picture", content=data, headers={"x-name": name})
    assert answer.status_code == 200, answer.text
    facts: dict[str, Any] = answer.json()
    return facts


def finished(client: TestClient, **values: Any) -> dict[str, Any]:
    """The state of a job at its end."""
    answer = client.post("/api/upscale", json=values)
    assert answer.status_code == 200, answer.text
    job = answer.json()
    for _ in range(1200):
        if job["state"] not in ("waiting", "running"):
            break
        time.sleep(0.05)
        job = client.get(f"/api/jobs/{job['job']}").json()
    facts: dict[str, Any] = job
    return facts


def pixels(client: TestClient, path: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


@pytest.mark.parametrize(
    ("chosen", "given", "name"),
    [
        ({}, (), "a-x4"),
        ({"sigma": 1.5}, ("--sigma", 1.5), "a-x4"),
        ({"size": "2.5"}, ("--factor", 2.5), "a-50x40"),
        ({"size": " 2,5x"}, ("--factor", 2.5), "a-50x40"),
        (
            {"size": "60 \N{MULTIPLICATION SIGN} 33", "strength": 0.5},
            ("--size", "60x33", "--strength", 0.5),
            "a-41x33",
        ),
        ({"size": "5.5"}, ("--factor", 5.5), "a-110x88"),
        ({"self_ensemble": True}, ("--self-ensemble",), "a-x4"),
    ],
)
def test_a_download_is_the_file_of_ikc_upscale(
    client: TestClient,
    small_bundle: Bundle,
    tmp_path: Path,
    chosen: dict[str, Any],
    given: tuple[Any, ...],
    name: str,
) -> None:
    source = tmp_path / "in.png"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rgba = np.dstack([photo(16, 20), np.arange(320, dtype=np.uint8).reshape(16, 20)])
    Image.fromarray(rgba).save(source, icc_profile=profile)
    picture = upload(client, source.read_bytes())
    job = finished(client, picture=picture["picture"], iters=None, **chosen)
    assert job["state"] == "done", job
    step = len(job["blurs"]) - 1
    for suffix in (".png", ".webp", ".tif"):
        out = tmp_path / f"out{suffix}"
        arguments = ("--bundle", small_bundle.path, "--backend", "onnxruntime")
        done = invoke(ikc_upscale, source, "-o", out, *arguments, *given)
        assert done.exit_code == 0, done.output
        path = f"/api/jobs/{job['job']}/{step}/download?format={suffix}"
        answer = client.get(path)
        assert answer.content == out.read_bytes()
        assert answer.headers["content-disposition"].endswith(f"{name}{suffix}")


def test_steps_blurs_and_bicubic(client: TestClient, tmp_path: Path) -> None:
    frame = photo(16, 20)
    picture = upload(client, encoded(tmp_path, frame))["picture"]
    job = finished(client, picture=picture, iters=2)
    assert len(job["blurs"]) == 3 and not job["known"]
    assert np.asarray(job["blurs"][0]["kernel"]).shape == (21, 21)
    for step in range(3):
        assert pixels(client, f"/api/jobs/{job['job']}/{step}.png").shape == (64, 80, 3)
    plain = np.asarray(Image.fromarray(frame).resize((80, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pixels(client, f"/api/jobs/{job['job']}/bicubic.png"), plain)
    faint = finished(client, picture=picture, iters=2, strength=0)
    np.testing.assert_array_equal(pixels(client, f"/api/jobs/{faint['job']}/2.png"), plain)


def test_a_crop_is_upscaled_under_the_given_blur(client: TestClient, tmp_path: Path) -> None:
    picture = upload(client, encoded(tmp_path, photo(80, 90)))["picture"]
    wanted = {"picture": picture, "x": 85, "y": 0}
    images = []
    for sigma in (0.5, 3.0):
        answer = client.post("/api/crop", json={**wanted, "sigma": sigma})
        assert (answer.headers["x-left"], answer.headers["x-top"]) == ("26", "0")
        images.append(np.asarray(Image.open(io.BytesIO(answer.content))).astype(int))
        assert images[-1].shape == (256, 256, 3)
    assert np.abs(images[0] - images[1]).max() > 0


def test_the_compared_images_and_the_crop_have_the_output_size(
    client: TestClient, tmp_path: Path
) -> None:
    frame = photo(80, 90)
    picture = upload(client, encoded(tmp_path, frame))["picture"]
    job = finished(client, picture=picture, size="1.5", iters=1)
    assert (job["width"], job["height"]) == (135, 120)
    plain = Image.fromarray(frame).resize((360, 320), Image.Resampling.BICUBIC)
    expected = np.asarray(plain.resize((135, 120), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(pixels(client, f"/api/jobs/{job['job']}/bicubic.png"), expected)
    assert pixels(client, f"/api/jobs/{job['job']}/0.png").shape == (120, 135, 3)
    wanted = {"picture": picture, "x": 40, "y": 40, "sigma": 2.0}
    crops = []
    for size in ("", "1.5"):
        answer = client.post("/api/crop", json={**wanted, "size": size})
        crops.append(Image.open(io.BytesIO(answer.content)))
    assert crops[0].size == (256, 256)
    np.testing.assert_array_equal(
        crops[0].resize((96, 96), Image.Resampling.LANCZOS), np.asarray(crops[1])
    )


def test_users_do_not_see_each_other(client: TestClient, tmp_path: Path) -> None:
    picture = upload(client, encoded(tmp_path, photo(16, 16)))["picture"]
    job = finished(client, picture=picture)
    stranger = other_user(client)
    for path in ("", "/0.png", "/bicubic.png", "/0/download"):
        assert stranger.get(f"/api/jobs/{job['job']}{path}").status_code == 400
    answer = stranger.post("/api/upscale", json={"picture": picture})
    assert answer.status_code == 400 and "choose it again" in answer.json()["error"]
    cookie = stranger.post("/api/sample").headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert client.cookies["ikc_session"] != stranger.cookies["ikc_session"]


def test_requests_without_a_picture_replace_no_session(client: TestClient, tmp_path: Path) -> None:
    picture = upload(client, encoded(tmp_path, photo(16, 16)))["picture"]
    for _ in range(WebSettings().sessions + 1):
        answer = other_user(client).get("/api/setup")
        assert answer.status_code == 200 and "set-cookie" not in answer.headers
    assert finished(client, picture=picture)["state"] == "done"


def test_the_range_of_sigma_is_that_of_the_weights(
    client: TestClient, small_bundle: Bundle
) -> None:
    answer = client.get("/api/weights/small")
    assert answer.json() == {"sigma_range": list(small_bundle.basis.sigma_range)}
    refused = client.get("/api/weights/x9")
    assert refused.status_code == 400 and "choose one of small" in refused.json()["error"]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be huge."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    ended = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + ended


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "the file is empty"),
        (b"not a picture", 400, "format is not one of"),
        (png_header(50000, 50000), 400, "2500 million, and the limit"),
        (bytes(2**20 + 1), 413, "larger than the limit of this page, 1 MiB"),
    ],
)
def test_bad_and_huge_uploads_are_sentences(
    client: TestClient, data: bytes, status: int, words: str
) -> None:
    answer = client.post("/api/picture", content=data, headers={"x-name": "x.png"})
    assert answer.status_code == status
    said = answer.json()["error"]
    assert words in said and "/tmp" not in said


def test_a_body_without_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(64):
            taken += 1
            yield bytes(2**18)

    assert client.post("/api/picture", content=endless()).status_code == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:7860"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": URL}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
    ],
)
def test_other_hosts_and_other_pages_are_refused(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    assert client.post("/api/sample", headers=headers).status_code == status


def test_a_form_of_another_page_lacks_the_header(client: TestClient) -> None:
    plain = TestClient(client.app, base_url=URL)
    assert plain.post("/api/sample").status_code == 403
    assert "frame-ancestors 'none'" in plain.get("/").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sigma": 99}, "sigma"),
        ({"sigma": "2"}, "sigma must be a finite number"),
        ({"sigma": [1]}, "sigma must be a finite number"),
        ({"iters": 10**6}, "corrections must lie in [0, 20]"),
        ({"iters": 10**400}, "iters must be a finite number"),
        ({"strength": 2}, "strength must lie in [0, 1]"),
        ({"self_ensemble": 1}, "self_ensemble must be true or false"),
        ({"size": 2.5}, "size must be a text"),
        ({"size": "big"}, "invalid output size 'big': expected a factor"),
        ({"size": "1920x"}, "invalid output size '1920x'"),
        ({"size": "1080"}, "for example 1920x1080"),
        ({"size": "0"}, "factor must lie in [0.01, 100]"),
        ({"size": "0x9"}, "invalid output size 0x9"),
        ({"size": "99999x1"}, "from 1 to 65535 pixels"),
        ({"size": "60"}, "larger than the limit of this page"),
        ({"weights": "../x"}, "unknown weights"),
        ({"picture": "other"}, "choose it again"),
    ],
)
def test_wrong_requests_are_sentences(
    client: TestClient, values: dict[str, Any], words: str
) -> None:
    picture = client.post("/api/sample").status_code
    assert picture == 200
    made = client.post("/api/sample").json()["picture"]
    answer = client.post("/api/upscale", json={"picture": made, **values})
    assert answer.status_code == 400 and words in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/upscale", b"[" * 4000, "expected a JSON object"),
        ("/api/upscale", b'{"size": "\xff"}', "expected a JSON object"),
        (
            "/api/upscale",
            rb'{"picture": "PICTURE", "size": "\ud800"}',
            "invalid output size '\ud800'",
        ),
        ("/api/upscale", b'{"iters": ' + b"9" * 4000 + b"}", "choose it again"),
    ],
)
def test_wrong_json_is_a_sentence(client: TestClient, path: str, body: bytes, words: str) -> None:
    made = client.post("/api/sample").json()["picture"].encode()
    answer = client.post(path, content=body.replace(b"PICTURE", made))
    assert answer.status_code == 400 and words in answer.json()["error"]


def test_a_picture_in_a_form_is_refused_with_what_to_do(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/api/picture", files={"file": encoded(tmp_path, photo(16, 16))})
    assert answer.status_code == 400 and "curl --data-binary" in answer.json()["error"]


@pytest.mark.parametrize("step", ["1", "-1", "x", "9" * 5000])
def test_steps_that_a_job_does_not_have(client: TestClient, step: str, tmp_path: Path) -> None:
    picture = upload(client, encoded(tmp_path, photo(16, 16)))["picture"]
    job = finished(client, picture=picture, sigma=1.5)["job"]
    for path in (f"{step}.png", f"{step}/download"):
        answer = client.get(f"/api/jobs/{job}/{path}")
        assert answer.status_code == 400 and "no image of this step" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/picture", "/api/upscale"])
def test_a_client_that_leaves_during_an_upload_is_no_error(client: TestClient, path: str) -> None:
    received = iter([{"type": "http.request", "body": b"part", "more_body": True}])

    async def receive() -> dict[str, Any]:
        return next(received, {"type": "http.disconnect"})

    async def send(_: object) -> None:
        pass

    headers = [(b"host", b"127.0.0.1:7860"), (b"x-ikc", b"1")]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}

    async def call() -> None:
        await client.app({**scope, "headers": headers}, receive, send)

    asyncio.run(call())


def test_a_job_that_a_full_queue_refuses_ends_no_other(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = upload(client, encoded(tmp_path, photo(16, 16)))["picture"]
    job = finished(client, picture=picture, sigma=1.5)["job"]

    def full(*_: object) -> None:
        raise InputError("the page is busy")

    monkeypatch.setattr(UpscaleService, "_queue", full)
    for _ in range(3):
        assert client.post("/api/upscale", json={"picture": picture}).status_code == 400
    assert client.get(f"/api/jobs/{job}/0.png").status_code == 200


def test_a_job_is_cancelled_between_passes(small_bundle: Bundle, tmp_path: Path) -> None:
    app, service = small_page(small_bundle)
    with TestClient(app, base_url=URL, headers=HEADERS) as client:
        picture = client.post("/api/sample").json()["picture"]
        job = client.post("/api/upscale", json={"picture": picture, "iters": 20}).json()["job"]
        client.post(f"/api/jobs/{job}/cancel")
        for _ in range(1200):
            state = client.get(f"/api/jobs/{job}").json()
            if state["state"] == "cancelled":
                break
            time.sleep(0.05)
        assert state["state"] == "cancelled" and state["passes"] < 42
    service.close()


def test_no_file_stays(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(tmp_path, photo(16, 16))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    job = finished(client, picture=upload(client, data)["picture"])
    assert client.get(f"/api/jobs/{job['job']}/0/download").status_code == 200
    client.post("/api/picture", content=b"broken")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org"])
def test_other_addresses_need_a_flag(host: str) -> None:
    assert_one_clear_line(invoke(ikc_web, "--host", host), "add --allow-network")


@pytest.mark.parametrize("name", ["http://machine", "machine:7860", "", "a b"])
def test_names_are_host_names_alone(name: str) -> None:
    assert_one_clear_line(invoke(ikc_web, "--name", name), "give the host name")


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_one_clear_line(invoke(ikc_web, "--port", port), f"{port}: Address already in use")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), "http://127.0.0.1:"),
        (("--host", "localhost"), "http://localhost:"),
        (("--host", "0.0.0.0", "--allow-network", "--name", "fe80::1"), "http://[fe80::1]:"),
    ],
)
def test_the_free_port_that_0_chooses_is_shown(
    arguments: tuple[str, ...], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: set[int] = set()

    def run(_: object, sockets: list[socket.socket]) -> None:
        ports.update(each.getsockname()[1] for each in sockets)
        for each in sockets:
            each.close()

    closed: list[bool] = []
    handler = logging.NullHandler()
    monkeypatch.setattr(handler, "close", lambda: closed.append(True))
    monkeypatch.setattr("uvicorn.Server.run", run)
    done = invoke(ikc_web, "--port", 0, *arguments)
    assert done.exit_code == 0, done.output
    assert not closed, "the handlers of other loggers stay open"
    (port,) = ports
    assert f"open {shown}{port}/ in a browser" in done.stdout
