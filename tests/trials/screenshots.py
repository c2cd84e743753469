"""Takes the README's pictures of the review page and of an evidence page, from the real service.

`python tests/trials/screenshots.py --out data/results`: the photos are those of data/sample. It
needs playwright and an installed Chromium; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from fastapi import FastAPI
from PIL import Image

from realdamage.claims import EvidenceLog
from realdamage.claims.videos import seal
from realdamage.errors import RealDamageError, UsageError
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
_LISTING = ("000004_original.jpg",)
_TEXT = "The top arrived like this."
KEY = "a-key-of-the-reviewer-who-looks"
_MOST_BYTES = 400_000
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
# Without a Chinese font both characters are drawn as the sign for a missing one.
_HAS_CHINESE = """() => {
  const drawn = (text) => {
    const canvas = document.createElement("canvas");
    const pen = canvas.getContext("2d");
    pen.font = "24px sans-serif";
    pen.fillText(text, 4, 30);
    return canvas.toDataURL();
  };
  return drawn("中") !== drawn("文");
}"""


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serves the app on a free port of this machine's own address, in a thread; gives its address.

    Raises RealDamageError when it does not start in time.
    """
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", log_config=None, access_log=False)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            give_up = time.monotonic() + _START_SECONDS
            while not server.started:
                if not thread.is_alive() or time.monotonic() > give_up:
                    raise RealDamageError(
                        "the service did not start; try `realdamage serve`, which says why"
                    )
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)  # a daemon: it does not keep the program alive


def find_chromium(path: Path | None = None) -> Path:
    """The browser to drive: `path`, or the first of CHROMIUM_NAMES. Raises UsageError when there
    is none."""
    if path is not None:
        if not path.is_file():
            raise UsageError(
                f"--chromium {path}: no such file; name a Chromium or Chrome that is installed"
            )
        return path
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        raise UsageError(
            f"no Chromium found as {', '.join(CHROMIUM_NAMES)}; install one (apt install "
            "chromium), or name it with --chromium FILE"
        )
    return Path(found)


@contextmanager
def browser(chromium: Path) -> Iterator[Browser]:
    """A headless browser. Raises RealDamageError when playwright is not installed, or the
    program does not start."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError as error:
        raise RealDamageError(
            "the screenshots need playwright to drive the browser: pip install playwright"
        ) from error
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(
                executable_path=chromium,
                args=list(CHROMIUM_OPTIONS),
                timeout=1000 * _START_SECONDS,
            )
        except Error as error:
            raise RealDamageError(
                f"{chromium}: does not start: {error.message.splitlines()[0]}"
            ) from error
        yield opened
        opened.close()


def take_screenshots(
    out: Path, chromium: Path, photos: Path, *, every: bool = False, model: Path | None = None
) -> list[Path]:
    """Writes page.png, page_queue.png, page_phone.png, page_zh.png and evidence.png; `every`: each
    view at both widths in both languages instead. Returns the paths. Raises RealDamageError."""
    from playwright.sync_api import Error

    # All are taken before the first is written: no mixture of old and new pictures is left behind.
    pictures: dict[str, bytes] = {}
    with _desk(photos, model) as (address, call), browser(chromium) as opened:
        try:
            if every:
                _every_view(opened, address, call, pictures)
            else:
                pictures["page.png"] = _view(opened, address, _CASE, 1280)
                pictures["page_queue.png"] = _view(opened, address, "#queue", 1280)
                pictures["page_phone.png"] = _view(opened, address, _CASE, 390)
                pictures["page_zh.png"] = _view(opened, address, _CASE, 1280, chinese=True)
                pictures["evidence.png"] = _evidence(opened, call)
        except Error as error:
            message = f"the page could not be shown: {error.message.splitlines()[0]}"
            raise RealDamageError(message) from error
    for name, picture in pictures.items():
        write_atomically(out / name, small_png(picture))
    return [out / name for name in pictures]


@contextmanager
def _desk(photos: Path, model: Path | None) -> Iterator[tuple[str, httpx.Client]]:
    """The address of a service with a reviewer's key and four kept claims, and a client of it."""
    from case import packing_video  # next to this file; when this runs as a script

    hashes = f"{hash_key(KEY, 'ana')} reviewer,{hash_key(KEY[::-1], 'shop')}"
    with tempfile.TemporaryDirectory() as name:
        store, video = Path(name) / "store", Path(name) / "packing.mp4"
        video.write_bytes(packing_video([(photos / one).read_bytes() for one in _LISTING]))
        seals = EvidenceLog(Path(name) / "seals.jsonl")
        seal(video, "SO-880", seals)
        options: Any = {"model": model, "store": store, "seals": seals.path}
        app = create_app(Settings(api_key_hashes=hashes, deadline=_CLAIM_SECONDS, **options))
        keys = {"X-API-Key": KEY[::-1]}
        with (
            running(app) as address,
            httpx.Client(base_url=address, headers=keys, timeout=_CLAIM_SECONDS) as call,
        ):
            for number, (claim_id, product) in enumerate(_CASES.items()):
                names = _CLAIM if number == 0 else _CLAIM[number - 1 : number]
                listing = _LISTING[0]
                files = [("photos", (name, (photos / name).read_bytes())) for name in names]
                files += [("listings", (listing, (photos / listing).read_bytes()))]
                about = {"claim_id": claim_id, "keep": "true", "product": product, "text": _TEXT}
                about |= {"order_id": f"SO-88{number}", "merchant": "North Shop", "buyer": "b-17"}
                about |= {"amount": ("89.90", "45", "310", "1299")[number], "currency": "CNY"}
                _say(f"judging claim {claim_id} ({number + 1} of {len(_CASES)})")
                answer = call.post("/v1/claims", files=files, data=about)
                if answer.status_code != 200:
                    raise RealDamageError(f"the claim was not judged: {answer.text[:200]}")
            _say("sending the merchant's statement")
            path = _link(call, "2026-0142", "merchant")
            sent = [("photos", ("box.jpg", (photos / _LISTING[0]).read_bytes()))]
            sent.append(("videos", (video.name, video.read_bytes())))
            said = {"text": "Packed in a double box. The photo shows the top that we sent."}
            answer = call.post(f"/v1/statements/{path}", files=sent, data=said)
            if answer.status_code != 201:
                raise RealDamageError(f"the statement was not received: {answer.text[:200]}")
            yield address, call


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


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
    _say(f"looking at {place.split('/')[0]} at {width} pixels{' in Chinese' * chinese}")
    page.add_init_script(f"sessionStorage.setItem('realdamage.key', '{KEY}')")
    page.goto(f"{address}/{place}")
    if chinese and not page.evaluate(_HAS_CHINESE):
        raise RealDamageError("page_zh.png needs a font for Chinese: apt install fonts-noto-cjk")
    shown = {"#queue": ".cases a", "#new": "#intake", "#batch": "#batch", "s": "#statement"}
    page.wait_for_selector(f"{shown.get(place.split('/')[0], '#case h2')}:visible")
    page.wait_for_load_state("networkidle")
    if page.locator("#open-camera").is_visible():
        page.click("#open-camera")
        page.wait_for_selector("#shoot:enabled")
    return _settled(page)


def small_png(picture: bytes, most_bytes: int = _MOST_BYTES) -> bytes:
    """The picture as a PNG of at most that many bytes: with fewer colours, then smaller."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    while True:
        for colours in (256, 128, 64):
            buffer = io.BytesIO()
            image.quantize(colours, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
            if buffer.tell() <= most_bytes:
                return buffer.getvalue()
        image = image.resize(
            (image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS
        )


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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python tests/trials/screenshots.py", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the PNG files"
    )
    parser.add_argument(
        "--chromium", type=Path, metavar="FILE", help="the browser; default: the one that is found"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        default=SAMPLE,
        metavar="DIR",
        help="the sample's photos (%(default)s)",
    )
    parser.add_argument(
        "--every", action="store_true", help="each view at 1280 and 390 pixels in both languages"
    )
    parser.add_argument(
        "--model", type=Path, metavar="FILE", help="the .onnx file; default: the one in the package"
    )
    options = parser.parse_args(arguments)
    try:
        chromium = find_chromium(options.chromium)
        for path in take_screenshots(
            options.out, chromium, options.photos, every=options.every, model=options.model
        ):
            print(f"{path}: {path.stat().st_size // 1000} kB")
    except RealDamageError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
