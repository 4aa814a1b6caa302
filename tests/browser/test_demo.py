"""The page in a real browser: Debian's Chromium, driven by Playwright. Screenshots go to `tests/browser/shots`, which git ignores."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from edgewright.export.exporter import Export

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = Path(__file__).parent / "shots"
CAMERA = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
WAIT_MS = 60_000

if CHROMIUM is None:
    pytest.skip("needs Chromium, which this machine does not have", allow_module_level=True)


@pytest.fixture(scope="module")
def browser(all_cores: None) -> Iterator[Browser]:
    """Chromium, closed after the last test here: Playwright leaves a running event loop behind until then."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield found
        found.close()


Open = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser, page_url: str) -> Iterator[Open]:
    """`open_page(width=…, color_scheme=…)`: the page, loaded."""
    contexts: list[Any] = []

    def run(width: int = 1280, height: int = 900, color_scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=color_scheme,  # type: ignore[arg-type]
            permissions=["camera"],
        )
        contexts.append(context)
        page: Page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(page_url)
        page.get_by_role("tab", name="Classify").wait_for()
        return page

    yield run
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def golden(digits_export: Export) -> list[Path]:
    bundle = digits_export.bundle
    return [bundle.path / vector.image for vector in bundle.manifest.golden]


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def upload(page: Page, picture: Path | str, where: str = "#picture") -> None:
    page.locator(f"{where} input[type=file]").first.set_input_files(str(picture))


def test_upload_gets_its_label(open_page: Open, digits_export: Export, golden: list[Path]) -> None:
    page = open_page()
    upload(page, golden[0])
    answer = page.locator("#answer .ew-verdict")
    answer.wait_for()
    assert any(label in answer.inner_text() for label in digits_export.bundle.manifest.labels)
    assert "ms from file to label" in page.locator("#stages").inner_text()
    shoot(page, "classify")


def test_example_gets_its_label(open_page: Open) -> None:
    page = open_page()
    page.locator("#examples button, #examples img").first.click()
    page.locator("#answer .ew-verdict").wait_for()


def test_camera_is_labelled_live(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("button", name="Camera").click()
    page.locator("#webcam").get_by_role("button").first.click()
    record = page.locator('#webcam button[aria-label="start recording"], #webcam button[aria-label="capture photo"]')
    record.first.wait_for()
    record.first.click()
    page.locator("#live-answer .ew-verdict").wait_for()
    shoot(page, "camera")


def test_artefacts_are_compared(open_page: Open, golden: list[Path], tmp_path: Path) -> None:
    page = open_page()
    page.get_by_role("tab", name="Compare").click()
    upload(page, golden[0], "#compare-picture")
    page.locator("#comparison table").wait_for()
    assert "model.int8.ort-x86" in page.locator("#comparison").inner_text()
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for number, picture in enumerate(golden):
            archive.write(picture, f"{number}{picture.suffix}")
    upload(page, tmp_path / "pictures.zip", "#compare-files")
    page.locator("#agreement table").wait_for()
    assert f"{len(golden)} pictures" in page.locator("#agreement").inner_text()
    shoot(page, "compare")


def test_benchmark_runs_and_stops(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Benchmark").click()
    seconds = page.locator("#bench-seconds input[type=number]")
    seconds.fill("60")
    seconds.press("Enter")
    page.locator("#bench-start").click()
    page.locator("#bench-state [role=progressbar]").wait_for()
    page.locator("#bench-stop").click()
    page.locator("#bench-state", has_text="stopped").wait_for()
    seconds.fill("2")
    seconds.press("Enter")
    page.locator("#bench-start").click()
    page.locator("#bench-result .ew-plot svg").first.wait_for(timeout=60_000)
    assert "pictures/s" in page.locator("#bench-result").inner_text()
    shoot(page, "benchmark")


def test_card_tells_about_the_bundle(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="About").click()
    page.locator("#about h2").wait_for()
    assert "Limits" in page.locator("#about").inner_text()
    shoot(page, "about")


def test_bad_file_is_a_sentence(open_page: Open, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    page = open_page()
    upload(page, tmp_path / "bad.png")
    answer = page.locator("#answer [role=alert]")
    answer.wait_for()
    said = answer.inner_text()
    assert "This is no picture that can be used here" in said
    assert "/" not in said
    assert "Traceback" not in page.content()
    shoot(page, "bad-file")


def test_no_other_machine_is_asked(open_page: Open, page_url: str) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.get_by_role("tab", name="Classify").wait_for()
    page.locator("#picture").wait_for()
    page.wait_for_timeout(1000)  # what comes late; the page itself never stops asking its own server
    assert [
        url for url in asked if not url.startswith((page_url, "data:", "blob:", page_url.replace("http", "ws")))
    ] == []


def test_narrow_screen_needs_no_sideways_scrolling(open_page: Open, golden: list[Path]) -> None:
    page = open_page(width=390, height=844)
    upload(page, golden[0])
    page.locator("#answer .ew-verdict").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 391
    shoot(page, "narrow")


def test_dark_page_is_dark(open_page: Open, golden: list[Path]) -> None:
    page = open_page(color_scheme="dark")
    upload(page, golden[0])
    page.locator("#answer .ew-verdict").wait_for()
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 80, colour
    shoot(page, "dark")


def test_tabs_are_reached_by_keyboard(open_page: Open) -> None:
    page = open_page()
    page.get_by_role("tab", name="Classify").focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "tab":
            break
        if page.evaluate("document.activeElement.textContent.trim()") == "Compare":
            break
    page.keyboard.press("Enter")
    page.locator("#compare-picture").wait_for()


def test_full_queue_is_a_sentence(open_page: Open, page_url: str, digits_export: Export, golden: list[Path]) -> None:
    from gradio_client import Client

    page = open_page()
    # Letting go of twelve takes its time where the browser and the measurement hold all cores.
    client = Client(page_url, verbose=False, httpx_kwargs={"timeout": WAIT_MS / 1000})
    # One is measured, eight wait: the queue is full.
    name = digits_export.bundle.manifest.name
    jobs = [client.submit(name, 10, api_name="/benchmark") for _ in range(12)]
    try:
        page.wait_for_timeout(1500)
        upload(page, golden[0])
        toast = page.get_by_test_id("toast-text").first
        toast.wait_for()
        said = toast.inner_text()
        assert "busy" in said.lower() or "queue is full" in said.lower(), said
        assert "/" not in said
        shoot(page, "queue-full")
    finally:
        for job in jobs:
            job.cancel()


def test_picture_that_is_too_large_is_a_sentence(open_page: Open, tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    page = open_page()
    upload(page, tmp_path / "large.png")
    answer = page.locator("#answer [role=alert]")
    answer.wait_for()
    assert "pixels" in answer.inner_text()
    assert "/" not in answer.inner_text()
