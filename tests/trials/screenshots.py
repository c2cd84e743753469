"""Takes the README's pictures of the review page and of an evidence page, from the real service.

`python tests/trials/screenshots.py --out data/results`: the photos are those of data/sample. It
needs playwright, an installed Chromium and a font for Chinese (fonts-noto-cjk); nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image

from realdamage.claims import EvidenceLog
from realdamage.claims.videos import seal
from realdamage.errors import UsageError
from realdamage.files import write_atomically
from realdamage.service.app import create_app
from realdamage.service.auth import hash_key
from realdamage.service.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)
SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample" / "photos"

_CLAIM = ("000004_ai_region.jpg", "000004_pasted.jpg", "000003_ai_whole.jpg")
_LISTING = "000004_original.jpg"
_TEXT = "The top arrived like this."
KEY = "a-key-of-the-reviewer-who-looks"
# Generous, because the judging of ten photos shares the processor with whatever else runs.
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0
_CLAIM_SECONDS = 600.0
_PAGE_SECONDS = 180.0
_CASES = {
    "2026-0142": "Knitted top, yellow",
    "2026-0143": "黄色针织背心",
    "2026-0144": "Sleeveless top",
    "2026-0145": "饮料罐",
}
_CASE = "#claim/2026-0142"


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serves the app on a free port of this machine's own address, in a thread; gives its
    address."""
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", log_config=None, access_log=False)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)  # a daemon: it does not keep the program alive


def find_chromium() -> Path:
    """The browser to drive, the first of CHROMIUM_NAMES. Raises UsageError when there is none."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        names = ", ".join(CHROMIUM_NAMES)
        raise UsageError(f"no Chromium found as {names}; install one: apt install chromium")
    return Path(found)


@contextmanager
def browser(chromium: Path) -> Iterator[Browser]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=list(CHROMIUM_OPTIONS), timeout=1000 * _START_SECONDS
        )
        yield opened
        opened.close()


def take_screenshots(out: Path, *, every: bool) -> None:
    """Writes page.png, page_queue.png, page_phone.png, page_zh.png and evidence.png; `every`: each
    view at both widths in both languages instead."""
    # All are taken before the first is written: no mixture of old and new pictures is left behind.
    pictures: dict[str, bytes] = {}
    with _desk() as (address, call), browser(find_chromium()) as opened:
        if every:
            _every_view(opened, address, call, pictures)
        else:
            pictures["page.png"] = _view(opened, address, _CASE, 1280)
            pictures["page_queue.png"] = _view(opened, address, "#queue", 1280)
            pictures["page_phone.png"] = _view(opened, address, _CASE, 390)
            pictures["page_zh.png"] = _view(opened, address, _CASE, 1280, chinese=True)
            pictures["evidence.png"] = _evidence(opened, call)
    for name, picture in pictures.items():
        write_atomically(out / name, small_png(picture))
        print(out / name)


@contextmanager
def _desk() -> Iterator[tuple[str, httpx.Client]]:
    """The address of a service with a reviewer's key and four kept claims, and a client of it."""
    from case import packing_video  # next to this file; when this runs as a script

    hashes = f"{hash_key(KEY, 'ana')} reviewer,{hash_key(KEY[::-1], 'shop')}"
    listing = (SAMPLE / _LISTING).read_bytes()
    with tempfile.TemporaryDirectory() as name:
        store, video = Path(name) / "store", Path(name) / "packing.mp4"
        video.write_bytes(packing_video([listing]))
        seals = EvidenceLog(Path(name) / "seals.jsonl")
        seal(video, "SO-880", seals)
        options: Any = {"store": store, "seals": seals.path, "deadline": _CLAIM_SECONDS}
        app = create_app(Settings(api_key_hashes=hashes, **options))
        keys = {"X-API-Key": KEY[::-1]}
        with (
            running(app) as address,
            httpx.Client(base_url=address, headers=keys, timeout=_CLAIM_SECONDS) as call,
        ):
            for number, (claim_id, product) in enumerate(_CASES.items()):
                names = _CLAIM if number == 0 else _CLAIM[number - 1 : number]
                files = [("photos", (name, (SAMPLE / name).read_bytes())) for name in names]
                files += [("listings", (_LISTING, listing))]
                about = {"claim_id": claim_id, "keep": "true", "product": product, "text": _TEXT}
                about |= {"order_id": f"SO-88{number}", "merchant": "North Shop", "buyer": "b-17"}
                about |= {"amount": ("89.90", "45", "310", "1299")[number], "currency": "CNY"}
                call.post("/v1/claims", files=files, data=about).raise_for_status()
            path = _link(call, "2026-0142", "merchant")
            sent = [("photos", ("box.jpg", listing)), ("videos", (video.name, video.read_bytes()))]
            said = {"text": "Packed in a double box. The photo shows the top that we sent."}
            call.post(f"/v1/statements/{path}", files=sent, data=said).raise_for_status()
            yield address, call


def _link(call: httpx.Client, claim_id: str, side: str) -> str:
    made = call.post(f"/v1/claims/{claim_id}/links", json={"side": side}).json()
    return str(made["path"]).removeprefix("s/")


def _every_view(
    opened: Browser, address: str, call: httpx.Client, pictures: dict[str, bytes]
) -> None:
    buyer = f"s/{_link(call, '2026-0142', 'buyer')}"
    merchant = f"s/{_link(call, '2026-0143', 'merchant')}"
    views = {"queue": "#queue", "new": "#new", "batch": "#batch", "case": _CASE}
    views |= {"buyer": buyer, "merchant": merchant}
    for name, place in views.items():
        for width in (1280, 390):
            for chinese in (False, True):
                picture = _view(opened, address, place, width, chinese=chinese)
                pictures[f"{name}_{width}_{'zh' if chinese else 'en'}.png"] = picture
    pictures["evidence.png"] = _evidence(opened, call)


def _view(opened: Browser, address: str, place: str, width: int, *, chinese: bool = False) -> bytes:
    context = opened.new_context(
        viewport={"width": width, "height": 900},
        locale="zh-CN" if chinese else "en-US",
        permissions=["camera"],
    )
    context.set_default_timeout(1000 * _PAGE_SECONDS)
    page = context.new_page()
    page.add_init_script(f"sessionStorage.setItem('realdamage.key', '{KEY}')")
    page.goto(f"{address}/{place}")
    shown = {"#queue": ".cases a", "#new": "#intake", "#batch": "#batch", "s": "#statement"}
    page.wait_for_selector(f"{shown.get(place.split('/')[0], '#case h2')}:visible")
    page.wait_for_load_state("networkidle")
    if page.locator("#open-camera").is_visible():
        page.click("#open-camera")
        page.wait_for_selector("#shoot:enabled")
    return _settled(page)


def small_png(picture: bytes) -> bytes:
    """The picture as a PNG of 256 colours, a few hundred KB."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as opened:
        few = opened.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _evidence(opened: Browser, call: httpx.Client) -> bytes:
    # A printed page is long: its upper part shows what it is.
    context = opened.new_context(viewport={"width": 1000, "height": 1300})
    context.set_default_timeout(1000 * _PAGE_SECONDS)
    page = context.new_page()
    page.set_content(call.get("/v1/claims/2026-0142/evidence.html").raise_for_status().text)
    return _settled(page, whole=False)


def _settled(page: Page, *, whole: bool = True) -> bytes:
    """The page, once its pictures are decoded and its maps drawn; `whole`: also what is below
    the window."""
    # A lazy picture below the window of a phone may never be decoded.
    decoded = "Promise.all([...document.images].map((image) => image.decode().catch(() => {})))"
    page.evaluate(f"Promise.race([{decoded}, new Promise((done) => setTimeout(done, 5000))])")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_timeout(200)
    picture = page.screenshot(full_page=whole, animations="disabled")
    page.context.close()
    return picture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the PNG files")
    parser.add_argument("--every", action="store_true", help="each view, width and language")
    options = parser.parse_args()
    take_screenshots(options.out, every=options.every)
