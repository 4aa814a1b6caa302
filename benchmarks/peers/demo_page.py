"""How the page of `edgewright demo` behaves: its start, from upload to label, the camera's frames a second, its memory.

    python -m edgewright.benchmarks.peers.demo_page BUNDLE [--json]

A real Chromium (Debian's), driven by Playwright, on the same machine, whose cores it shares with the page's server.
"""

from __future__ import annotations

import re
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from edgewright.benchmarks.peers.own_server import own_server, resident_mb
from edgewright.benchmarks.peers.sides import machine, run_script
from edgewright.benchmarks.subjects import golden_pictures
from edgewright.runtime.bundle import open_bundle
from edgewright.runtime.console import emit_json, print_table
from edgewright.runtime.errors import UsageError
from edgewright.runtime.loading import load

__all__ = ["measure_page"]

_CAMERA = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
_UPLOADS = 10
_COUNT_ANSWERS = """() => {
    window.answers = 0;
    let last = 0;
    new MutationObserver(() => {
        // An answer is written in several steps; what follows within 15 ms belongs to the same one.
        const now = performance.now();
        if (now - last > 15) window.answers += 1;
        last = now;
    }).observe(document.querySelector('#live-answer'), {childList: true, subtree: true, characterData: true});
}"""


def measure_page(bundle: Path, *, seconds: float) -> dict[str, Any]:
    """Seconds until the page can be used, milliseconds from upload to label beyond the runtime's own, frames a second of the
    camera, and the server's memory in MB.
    """
    if find_spec("playwright") is None:
        raise UsageError("There is no Playwright here. Install it with: pip install playwright")
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise UsageError("There is no Chromium here. On Debian: apt install chromium")
    opened = open_bundle(bundle)
    pictures = [str(opened.path / vector.image) for vector in opened.manifest.golden]
    with load(bundle) as classifier:
        classifier.warm_up()
        own_ms = median(_own_ms(classifier, data) for data in golden_pictures(opened) * 5)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *_CAMERA])
        begun = time.perf_counter()
        with own_server("demo", str(bundle)) as (url, pid):
            served_s = time.perf_counter() - begun
            page = browser.new_context(permissions=["camera"]).new_page()
            page.goto(url)
            page.locator("#picture input[type=file]").first.wait_for(state="attached")
            usable_s = time.perf_counter() - begun
            uploads = [_upload_ms(page, pictures[number % len(pictures)]) for number in range(_UPLOADS)]
            frames_per_s = _frames_per_s(page, seconds)
            memory_mb = resident_mb(pid)
        browser.close()
    return {
        "served_s": served_s,
        "usable_s": usable_s,
        "upload_to_label_ms": median(uploads[1:]),
        "runtime_ms": own_ms,
        "beyond_runtime_ms": median(uploads[1:]) - own_ms,
        "camera_frames_per_s": frames_per_s,
        "memory_mb": memory_mb,
    }


def _own_ms(classifier: Any, data: bytes) -> float:
    begun = time.perf_counter()
    classifier(data)
    return 1e3 * (time.perf_counter() - begun)


def _upload_ms(page: Any, picture: str) -> float:
    begun = time.perf_counter()
    page.locator("#picture input[type=file]").first.set_input_files(picture)
    page.locator("#answer .ew-verdict").wait_for()
    elapsed = 1e3 * (time.perf_counter() - begun)
    page.locator("#picture").get_by_role("button", name=re.compile("clear|remove", re.IGNORECASE)).first.click()
    page.locator("#answer .ew-verdict").wait_for(state="detached")
    return elapsed


def _frames_per_s(page: Any, seconds: float) -> float:
    page.get_by_role("button", name="Camera").click()
    page.locator("#webcam").get_by_role("button").first.click()
    record = page.locator('#webcam button[aria-label="start recording"], #webcam button[aria-label="capture photo"]')
    record.first.click()
    page.locator("#live-answer .ew-verdict").wait_for()
    page.evaluate(_COUNT_ANSWERS)
    page.wait_for_timeout(1e3 * seconds)
    return float(page.evaluate("window.answers")) / seconds


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    seconds: Annotated[float, typer.Option(min=1, help="How long the camera is watched.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Start the page, use it, and measure."""
    facts = machine()
    document = measure_page(bundle, seconds=seconds)
    if json:
        emit_json({**document, "device": facts})
    print_table(
        f"the page of {bundle}",
        ("served s", "usable s", "upload to label ms", "beyond the runtime ms", "camera frames/s", "memory MB"),
        [
            (
                f"{document['served_s']:.1f}",
                f"{document['usable_s']:.1f}",
                f"{document['upload_to_label_ms']:.0f}",
                f"{document['beyond_runtime_ms']:.0f}",
                f"{document['camera_frames_per_s']:.1f}",
                "–" if document["memory_mb"] is None else f"{document['memory_mb']:.0f}",
            )
        ],
    )


if __name__ == "__main__":
    run_script(main)
