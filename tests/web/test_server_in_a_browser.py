"""The page in headless Chromium, as a person uses it."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from ikc_deploy import Bundle
from ikc_deploy.cli.ikc_upscale import main as ikc_upscale
from ikc_deploy.imaging.writing import write_rgb
from tests.cli.running import invoke
from tests.samples import photo
from tests.web.pages import small_page

pytestmark = pytest.mark.browser

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WAIT = 120


@pytest.fixture(scope="module")
def address(small_bundle: Bundle) -> Iterator[str]:
    app, service = small_page(small_bundle)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()
    service.close()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    selenium = pytest.importorskip("selenium", reason="needs the package selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    del selenium
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    service = webdriver.ChromeService(chromedriver)
    started = webdriver.Chrome(options=options, service=service)
    started.set_window_size(1200, 900)
    yield started
    started.quit()


def until(driver: Any, script: str) -> Any:
    """The value of a script once it is true."""
    for _ in range(WAIT * 10):
        found = driver.execute_script(f"return {script}")
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"never true: {script}: {driver.execute_script(SAID)}")


SAID = "return document.getElementById('message').textContent"


def click(driver: Any, name: str) -> None:
    driver.find_element("id", name).click()


def slide(driver: Any, name: str, value: float) -> None:
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input', {bubbles: true}))",
        name,
        value,
    )


def result(driver: Any) -> None:
    """Upscale and wait for both images."""
    click(driver, "go")
    until(driver, "/ in .* s\\.$/.test(document.getElementById('message').textContent)")
    until(driver, "document.getElementById('after').naturalWidth > 0")
    until(driver, "document.getElementById('before').naturalWidth > 0")


def downloaded(driver: Any, folder: Path) -> bytes:
    click(driver, "download")
    for _ in range(WAIT * 10):
        files = [path for path in folder.iterdir() if path.suffix == ".png"]
        if files and files[0].stat().st_size:
            data = files[0].read_bytes()
            files[0].unlink()
            return data
        time.sleep(0.1)
    raise AssertionError("nothing was downloaded")


def test_upload_compare_override_and_download(
    address: str, driver: Any, small_bundle: Bundle, tmp_path: Path
) -> None:
    source = tmp_path / "photo.png"
    write_rgb(photo(48, 64), source)
    driver.get(address)
    until(driver, "document.querySelectorAll('#weights option').length === 1")
    driver.find_element("id", "file").send_keys(str(source))
    until(driver, "!document.getElementById('go').disabled")
    slide(driver, "iters", 2)
    result(driver)
    assert driver.execute_script("return document.getElementById('after').naturalWidth") == 256
    assert "Estimated blur" in driver.find_element("id", "blur").text
    backend = ("--bundle", small_bundle.path, "--backend", "onnxruntime")

    def expected(*options: Any) -> bytes:
        out = tmp_path / "out.png"
        done = invoke(ikc_upscale, source, "-o", out, "--overwrite", *backend, *options)
        assert done.exit_code == 0, done.output
        return out.read_bytes()

    assert downloaded(driver, tmp_path / "downloads") == expected("--iters", 2)
    # The step slider: the image and the file of the step, and its kernel.
    kernel = driver.execute_script("return document.getElementById('kernel').toDataURL()")
    slide(driver, "step", 0)
    assert downloaded(driver, tmp_path / "downloads") == expected("--iters", 0)
    assert driver.find_element("id", "step-value").text == "0 of 2"
    # The divider shows bicubic on its left.
    slide(driver, "split", 25)
    clip = driver.execute_script("return document.getElementById('before').style.clipPath")
    assert "75%" in clip
    # Another blur: first on the crop, then on the whole picture.
    low, high = small_bundle.basis.sigma_range
    sigma = driver.find_element("id", "sigma")
    assert float(sigma.get_attribute("min")) == pytest.approx(low)
    assert float(sigma.get_attribute("max")) == pytest.approx(high)
    click(driver, "automatic")
    slide(driver, "sigma", 3.0)
    until(driver, "document.getElementById('crop').dataset.sigma === '3'")
    until(driver, "document.getElementById('crop').naturalWidth > 0")
    result(driver)
    assert "Given blur: sigma 3.00" in driver.find_element("id", "blur").text
    drawn = driver.execute_script("return document.getElementById('kernel').toDataURL()")
    assert drawn != kernel
    assert downloaded(driver, tmp_path / "downloads") == expected("--sigma", 3.0)
    click(driver, "automatic")
    assert not driver.find_element("id", "live").is_displayed()
    # Another output size: both images of the slider and the file have it.
    driver.find_element("id", "size").send_keys("2.5")
    result(driver)
    for name in ("before", "after"):
        until(driver, f"document.getElementById('{name}').naturalWidth === 160")
    assert downloaded(driver, tmp_path / "downloads") == expected("--iters", 2, "--factor", 2.5)
    driver.find_element("id", "size").send_keys(" by 7")
    click(driver, "go")
    until(driver, "document.getElementById('message').className === 'error'")
    assert driver.execute_script(SAID).startswith("Invalid output size '2.5 by 7': expected")
    # Chromium logs each refused request; nothing else is logged.
    logged = [entry["message"] for entry in driver.get_log("browser")]
    assert len(logged) == 1 and "/api/upscale" in logged[0] and "400" in logged[0]


def test_every_control_is_reached_once_by_tab_and_has_a_name(address: str, driver: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    driver.get(address)
    until(driver, "document.querySelectorAll('#weights option').length === 1")
    click(driver, "sample")
    until(driver, "!document.getElementById('go').disabled")
    slide(driver, "iters", 1)
    result(driver)
    driver.execute_script("document.getElementById('file').focus()")
    reached: list[str | None] = []
    for _ in range(40):
        focused = driver.switch_to.active_element
        if focused.tag_name == "body" or focused.get_attribute("id") in reached:
            break
        reached.append(focused.get_attribute("id"))
        assert focused.accessible_name, reached[-1]
        ActionChains(driver).send_keys(Keys.TAB).perform()
    controls = driver.execute_script(
        "return [...document.querySelectorAll('input,select,button,a')]"
        ".filter((e) => !e.disabled && !e.hidden).map((e) => e.id)"
    )
    assert set(controls) <= set(reached)
    assert set(reached) - set(controls) == {"stage"}


def test_a_bad_file_is_a_sentence(address: str, driver: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    driver.get(address)
    until(driver, "document.querySelectorAll('#weights option').length === 1")
    driver.find_element("id", "file").send_keys(str(bad))
    until(driver, "document.getElementById('message').className === 'error'")
    said = driver.execute_script(SAID)
    assert said.startswith("'bad.png' cannot be read as an image") and said.endswith(".")


def test_it_fits_a_phone(address: str, driver: Any) -> None:
    emulated = {"width": 420, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
    driver.get(address)
    until(driver, "document.querySelectorAll('#weights option').length === 1")
    click(driver, "sample")
    until(driver, "!document.getElementById('go').disabled")
    slide(driver, "iters", 1)
    result(driver)
    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= 420
    image = np.asarray(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("L"))
    assert image.shape[1] == 420 and image.std() > 5
    assert driver.get_log("browser") == []
