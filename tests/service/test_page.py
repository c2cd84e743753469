"""The review page: its words in both languages, and what a reviewer can do with it in a real browser."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import realdamage
import realdamage.service
from realdamage.claims import ClaimPolicy
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import UsageError
from realdamage.phrases.templates import TEMPLATES
from realdamage.service.app import create_app
from realdamage.service.keys import hash_key
from realdamage.service.screenshots import SAMPLE, browser, find_chromium, main, running, small_png
from realdamage.service.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGE = Path(realdamage.service.__file__).parent / "page"
KEY = "a-key-of-at-least-24-characters"
ACCUSING = (
    "造假",
    "伪造",
    "欺诈",
    "诈骗",
    "骗",
    "假",
    "作弊",
    "说谎",
    "撒谎",
    "嫌疑",
    "怀疑",
    "可疑",
    "违法",
    "犯罪",
    "篡改",
)
Encode = Callable[..., bytes]
Open = Callable[..., "Page"]


def strings(name: str = "strings", constant: str = "STRINGS") -> dict[str, dict[str, str]]:
    """The table of words in a script of the page, by language."""
    _, found, table = (
        (PAGE / f"{name}.js").read_text(encoding="utf-8").partition(f"export const {constant} =")
    )
    assert found
    read: dict[str, dict[str, str]] = json.loads(table.strip().removesuffix(";"))
    return read


def source_of_inference() -> str:
    folder = Path(realdamage.__file__).parent
    files = [
        path
        for room in ("phrases", "core", "provenance", "photo_pairs", "claims")
        for path in (folder / room).rglob("*.*")
        if path.suffix in (".py", ".yaml") and path.name != "templates.py"
    ]
    return "".join(path.read_text(encoding="utf-8") for path in files)


# What needs no browser


def test_both_languages_say_the_same_things() -> None:
    words = strings()
    assert list(words) == ["en", "zh"]
    assert list(words["en"]) == list(words["zh"])
    for key, english in words["en"].items():
        chinese = words["zh"][key]
        assert english.strip(), key
        assert chinese.strip(), key
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese)), (
            key
        )
    translated = [key for key in words["en"] if words["en"][key] != words["zh"][key]]
    assert len(translated) > len(words["en"]) - 3


def test_every_rule_of_a_claim_has_a_title_in_chinese() -> None:
    titles, source = strings("reasons", "REASON_TITLES")["zh"], source_of_inference()
    assert set(ClaimPolicy.default().to_dict()["rules"]) - set(titles) == set()
    assert [code for code in titles if code not in source] == []
    written = set(re.findall(r'\b(?:Reason\.of|\.note|Finding)\(\s*"(\w+)"', source)) - {"c2pa"}
    assert {"no_promise", "c2pa_remote", "listing_unreadable"} <= written
    assert written - set(titles) == set()


def test_every_sentence_of_the_service_is_there_in_chinese() -> None:
    """Whatever the service says of a photo it says in these templates: `tests/core/test_sentences.py`."""
    chinese = strings("sentences", "SENTENCES")["zh"]
    english = {name: text for name, text in TEMPLATES.items() if name != "verbatim"}
    assert set(chinese) ^ set(english) == set()
    for name, text in english.items():
        said = chinese[name]
        assert sorted(set(re.findall(r"\{(\w+)\}", said))) == values_in(text), name
        assert re.search("[\u3000-\u9fff\uff00-\uffef]", said), name
        assert not text.endswith(".") or said.endswith("。"), name
    assert not [word for word in ACCUSING if word in "".join(chinese.values())]


def values_in(template: str) -> list[str]:
    return sorted({name for _, name, _, _ in Formatter().parse(template) if name})


def test_every_word_that_the_page_asks_for_is_there_and_none_is_left_over() -> None:
    asked, prefixes = set(), set()
    for path in PAGE.glob("*"):
        text = path.read_text(encoding="utf-8")
        if path.name != "strings.js":
            asked |= set(re.findall(r'data-i18n(?:-label|-placeholder)?="(\w+)"', text))
            asked |= set(re.findall(r'"(key_\w+)"', text)) | set(
                re.findall(r'say\(\s*"(\w+)"', text)
            )
            asked |= {
                word
                for pair in re.findall(r'\? "(\w+)" : "(\w+)"', text)
                for word in pair
                if "_" in word
            }
            prefixes |= set(re.findall(r"`(\w+_)\$\{", text))
    known = set(strings()["en"])
    allowed = {
        "decide_real",
        "decide_synthetic",
        "language_name",
        "model",
        "previous",
        "next",
        *asked,
    }
    assert asked - known == set()
    left_over = {
        key for key in known - allowed if not key.startswith((*prefixes, "short_", "outcome_"))
    }
    assert left_over == set()


def test_the_page_keeps_to_its_content_policy() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"\s(?:style|on\w+)=", html) == []
    for path in PAGE.glob("*"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(?m)(^|\s)//.*$|<!--.*?-->", "", text), path.name
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text), (
            path.name
        )


def test_the_page_offers_the_damages_of_the_manifest() -> None:
    (listed,) = re.findall(
        r"DAMAGES = \[\s*\.\.\.\[(.*?)\]",
        (PAGE / "decision.js").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert json.loads(f"[{listed}]") == ["", *DAMAGES]
    assert {f"damage_{name}" for name in ("", *DAMAGES)} <= set(strings()["en"])


def test_a_screenshot_is_made_small_without_losing_its_size_if_it_can() -> None:
    plain = io.BytesIO()
    Image.new("RGB", (120, 80), (20, 90, 160)).save(plain, "PNG")
    with Image.open(io.BytesIO(small_png(plain.getvalue()))) as image:
        assert image.size == (120, 80)
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(
        noise, "PNG"
    )
    smaller = small_png(noise.getvalue(), most_bytes=4_000)
    assert len(smaller) <= 4_000
    with Image.open(io.BytesIO(smaller)) as image:
        assert 0 < image.width < 120


def test_screenshots_say_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--chromium", str(tmp_path / "chrome")]) == 2
    assert "chrome: no such file; name a Chromium" in capsys.readouterr().err
    program = tmp_path / "chromium"
    program.touch()
    assert (
        main(["--out", str(tmp_path), "--chromium", str(program), "--photos", str(tmp_path)]) == 2
    )
    assert "000004_ai_region.jpg: no such photo; name the folder" in capsys.readouterr().err


def test_a_missing_browser_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"no Chromium found as chromium, .* install one"):
        find_chromium()


# What a reviewer does


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if find_spec("playwright") is None:
        pytest.skip("the page is tried in a browser through playwright: pip install playwright")
    try:
        program = find_chromium()
    except UsageError as error:
        pytest.skip(str(error))
    with browser(program) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(chromium: Browser, model_file: Path) -> Iterator[str]:
    with running(create_app(Settings(model=model_file, threads=1, max_photos=4))) as url:
        yield url


@pytest.fixture
def open_page(chromium: Browser, address: str) -> Iterator[Open]:
    """`open_page(url=…, width=1280)`: the page in a browser of its own; an error in its scripts fails the test."""
    contexts, errors = [], []

    def make(url: str = address, width: int = 1280, **options: Any) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, **{"locale": "en-US", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda note: errors.append(note.text) if "Content Security" in note.text else None,
        )
        page.goto(url)
        until(page, "document.getElementById('model').textContent || location.search")
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []


def choose(
    page: Page, *photos: tuple[str, bytes], listings: tuple[tuple[str, bytes], ...] = ()
) -> None:
    for field, files in (("#photos", photos), ("#listings", listings)):
        if files:
            sent = [
                {"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in files
            ]
            page.set_input_files(field, sent)


def judge(page: Page, *photos: tuple[str, bytes], **options: Any) -> None:
    choose(page, *photos, **options)
    page.click("#judge")
    page.wait_for_selector("#results:not([hidden])")


def until(page: Page, expression: str) -> None:
    """Wait until it is true in the page, whose content policy forbids playwright's own way of waiting."""
    give_up = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < give_up, f"still not: {expression}"
        page.wait_for_timeout(20)


def overlaps(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def test_from_upload_to_export(open_page: Open, encode: Encode) -> None:
    page = open_page()
    assert page.is_disabled("#judge")
    data = encode(red=True, size=(128, 96), seed=3)
    judge(page, ("cup.jpg", data), ("plain.jpg", encode(size=(96, 64), seed=4)))
    assert page.inner_text("#facts .badge") == "Looks synthetic"
    assert page.locator(".marker").count() == 1
    assert "From 1.00: synthetic" in page.inner_text("#facts")
    assert "absence of a declaration proves nothing" in page.inner_text("#facts")
    page.fill("#opacity", "20")
    assert page.evaluate("getComputedStyle(document.querySelector('.layer')).opacity") == "0.2"
    assert page.locator(".boxes rect.region").count() >= 1

    page.select_option("#damage", "cracked")
    page.fill("#reviewer", "Ana")
    page.fill("#note", "a seam")
    page.click("[data-decision=synthetic]")
    until(page, "document.getElementById('saved').textContent.startsWith('Saved')")
    page.keyboard.press("j")
    page.keyboard.press("3")
    until(page, "document.getElementById('decided').textContent.includes('1 unsure')")
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "metadata.csv"
    rows = list(
        csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8").splitlines())
    )
    (row,) = [row for row in rows if row["sha256"] == hashlib.sha256(data).hexdigest()]
    told = [
        row[name]
        for name in ("file_name", "label", "damage", "label_source", "decided_by", "model_outcome")
    ]
    assert told == ["cup.jpg", "synthetic", "cracked", "review", "Ana", "synthetic"]
    assert "plain.jpg" not in {row["file_name"] for row in rows}

    page.click("#new-claim")
    judge(page, ("again.jpg", data))
    until(page, "document.getElementById('saved').textContent.startsWith('Synthetic on ')")
    assert page.inner_text("#saved").endswith("by Ana")


def test_keys_move_between_photos_and_overlays(open_page: Open, encode: Encode) -> None:
    page = open_page()
    judge(page, ("a.jpg", encode(red=True, size=(128, 96))), ("b.jpg", encode(seed=1)))
    title = page.locator("#viewer h2")
    for key, name in (
        ("j", "b.jpg"),
        ("ArrowRight", "a.jpg"),
        ("k", "b.jpg"),
        ("ArrowLeft", "a.jpg"),
    ):
        page.keyboard.press(key)
        assert title.inner_text() == name
    assert page.locator(".layer canvas").count() == 1
    page.keyboard.press("h")
    assert page.locator(".layer canvas").count() == 0
    page.keyboard.press("h")
    assert page.locator(".boxes").count() == 1
    page.keyboard.press("b")
    assert page.locator(".boxes").count() == 0
    page.keyboard.press("]")
    assert page.input_value("#opacity") == "75"
    page.focus("#note")
    page.keyboard.type("jhb?")
    assert (page.input_value("#note"), title.inner_text()) == ("jhb?", "a.jpg")
    page.locator("#note").blur()
    page.keyboard.press("?")
    assert page.is_visible("#help-dialog")
    assert page.locator("#shortcuts kbd").count() == 7


def test_a_rotated_photo_lies_under_its_heat(open_page: Open) -> None:
    rgb = np.full((96, 160, 3), (80, 100, 144), np.uint8)
    rgb[:32, :64] = (
        200,
        100,
        40,
    )  # upright, after a turn to the right, it lies at the right end of the upper edge
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=95, exif=exif)
    page = open_page()
    judge(page, ("turned.jpg", data.getvalue()))
    until(
        page,
        "document.querySelector('.photo').complete && document.querySelector('.map').width < 100",
    )
    frame = page.locator(".frame").bounding_box()
    photo = page.evaluate(
        "(({naturalWidth: w, naturalHeight: h}) => [w, h])(document.querySelector('.photo'))"
    )
    assert photo == [96, 160]
    assert frame is not None
    assert frame["width"] / frame["height"] == pytest.approx(0.6, abs=0.01)
    heat = page.evaluate(
        """() => { const map = document.querySelector(".map"), pen = map.getContext("2d");
        const at = (x, y) => pen.getImageData(x, y, 1, 1).data[3];
        return [map.width, map.height, at(0, 0), at(map.width - 1, 0), at(map.width - 1, map.height - 1)]; }"""
    )
    assert heat[:2] == [6, 10]
    assert heat[3] > 200
    assert max(heat[2], heat[4]) < 60


def test_beside_the_listing_photo(open_page: Open) -> None:
    claim, listing_photo = (
        (SAMPLE / f"000004_{name}.jpg").read_bytes() for name in ("pasted", "original")
    )
    page = open_page()
    judge(page, ("claim.jpg", claim), listings=(("shop.jpg", listing_photo),))
    assert page.inner_text(".compared strong") == "The same shot, or one from a fixed camera"
    assert page.input_value("#overlay") == "change0"
    assert page.locator(".boxes rect.changed").count() >= 1
    left, top, width, height = (
        float(page.get_attribute(".boxes rect.changed", name) or 0)
        for name in ("x", "y", "width", "height")
    )
    assert (left, top, left + width, top + height) == pytest.approx((82, 243, 138, 300), abs=12)
    page.select_option("#overlay", "listing0")
    until(page, "document.querySelector('.listing').style.transform !== ''")
    frame, listing = (page.locator(name).bounding_box() for name in (".frame", ".listing"))
    assert frame is not None
    assert listing is not None
    for side in ("x", "y", "width", "height"):
        assert listing[side] == pytest.approx(frame[side], abs=4)
    page.click(".buyer summary")
    assert page.inner_text(".letter").startswith("Thank you")
    page.select_option(".buyer select", "zh")
    assert "感谢" in page.inner_text(".letter")


def test_a_photo_without_a_trace_does_not_outshine_the_recommendation(
    open_page: Open, encode: Encode
) -> None:
    claim, listing_photo = (
        (SAMPLE / f"000004_{name}.jpg").read_bytes() for name in ("pasted", "original")
    )
    page = open_page()
    judge(
        page,
        ("plain.jpg", encode(size=(640, 480))),
        ("c.jpg", claim),
        listings=(("shop.jpg", listing_photo),),
    )
    assert page.inner_text(".recommendation strong") == "Escalate to a specialist"
    assert page.inner_text("#facts .badge") == "No trace in the pixels"
    assert page.locator(".strip .badge").all_inner_texts()[0] == "No trace"

    def style(selector: str, name: str, part: str = "") -> str:
        script = f"getComputedStyle(document.querySelector({selector!r}), {part!r}).{name}"
        return str(page.evaluate(script))

    sizes = [
        float(style(of, "fontSize").removesuffix("px"))
        for of in ("#facts .badge", ".recommendation strong")
    ]
    assert sizes[0] < 0.7 * sizes[1]
    for badge in ("#facts .badge", ".strip .badge"):
        assert style(badge, "content", "::before") == "none"  # no tick
        assert style(badge, "color") == style(".recommendation .quiet", "color")  # no green
    page.click("#language")
    assert page.inner_text("#facts .badge") == "像素中未见痕迹"


def test_in_chinese_and_still_after_a_reload(open_page: Open, encode: Encode) -> None:
    page = open_page()
    judge(page, ("cup.jpg", encode(red=True, size=(128, 96))))
    page.click("#language")
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert page.inner_text("#facts .badge") == "疑似合成"
    page.reload()
    assert page.inner_text("#judge") == "开始核查"
    assert page.get_attribute("html", "lang") == "zh-CN"
    assert open_page(locale="zh-CN").inner_text("#judge") == "开始核查"


def test_a_claim_is_told_in_whole_chinese_sentences(open_page: Open, encode: Encode) -> None:
    painted, original = (
        (SAMPLE / f"000004_{name}.jpg").read_bytes() for name in ("pasted", "original")
    )
    page = open_page(locale="zh-CN")
    photos = (("shoes.jpg", painted), ("cup.jpg", encode(red=True, size=(128, 96))))
    judge(page, *photos, listings=(("shop.jpg", original), ("text.jpg", b"no photo at all")))
    page.click(".claim .more summary")
    reasons = page.locator(".claim .reasons li").all_inner_texts()
    assert "cup.jpg：尺寸为 128×96 像素，短边应不少于 320 像素。" in reasons
    (text,) = [text for text in reasons if text.startswith("未参与对比：text.jpg：")]
    assert "不是可以读取的照片，文件以 b'no photo at ' 开头。支持的格式：JPEG、" in text
    (changed,) = [
        text for text in reasons if text.startswith("shoes.jpg：与商品原图 shop.jpg 为同一次拍摄")
    ]
    assert re.search(r"，但有 \d+ 处差异（占重叠部分的 \d+\.\d%）。两张照片中哪一张有改动", changed)
    assert re.search(
        r"cup.jpg：模型在像素中发现了它视为合成痕迹的特征（得分 \+\d+\.\d\d）。", "\n".join(reasons)
    )
    compared = page.locator(".compared .reasons li").all_inner_texts()
    assert re.fullmatch(
        r"有 \d+% 的细微纹理与商品原图相同：同一次拍摄，或固定机位、光线未变的另一次拍摄；仅凭.*",
        compared[0],
    )
    for _ in photos:
        assert page.locator("#results [lang=en]:not(option)").all_inner_texts() == []
        page.keyboard.press("j")
    page.click("#language")
    english = page.locator(".claim .reasons li").all_text_contents()
    assert "cup.jpg: 128x96 pixels, the shorter side should have 320." in english
    assert not re.search("[\u4e00-\u9fff]", " ".join(english))
    page.click("#language")
    page.click("#new-claim")
    judge(page, ("cut.jpg", painted[:400]), ("cup.jpg", encode(red=True)))
    cut = page.inner_text("#facts .problem")
    assert cut.startswith("cut.jpg：文件已损坏或不完整（")
    assert cut.endswith("），请索取原始文件")
    assert (
        f"{cut.replace('：', '：无法读取：')}。"
        in page.locator(".claim .reasons li").all_text_contents()
    )


def test_what_the_page_cannot_say_in_chinese_stands_in_english_below_its_title(
    open_page: Open, encode: Encode
) -> None:
    page = open_page(locale="zh-CN")

    def of_another_version(route: Any) -> None:
        answer = route.fetch().json()
        (first, *_), code = answer["reasons"], "photo_too_small"
        told = {"code": code, "sentence": "It is small."}
        about = {"template": "about", "values": {"name": "cup.jpg"}}
        lacking = [{"template": "photo_too_small", "values": {"width": "9"}}]
        unknown = [about, {"template": "constructor", "values": {}}]
        answer["reasons"] = [
            told,
            *({**told, "phrases": said} for said in ([], lacking, unknown)),
            first,
        ]
        route.fulfill(json=answer)

    page.route("**/v1/claims", of_another_version)
    judge(page, ("cup.jpg", encode(red=True, size=(128, 96))))
    reasons = page.locator(".claim > .reasons li").all_inner_texts()
    assert reasons == ["照片尺寸过小 It is small."] * 4
    assert page.locator(".claim > .reasons [lang=en]").count() == 4
    assert str(page.locator(".claim .more li").text_content()).startswith("cup.jpg：")


def test_a_name_is_text_and_never_markup(open_page: Open, encode: Encode) -> None:
    name = '<img src=x onerror="document.title=1">.jpg'
    page = open_page()
    choose(page, (name, encode(seed=1)))
    assert page.inner_text(".chosen li span") == name
    judge(page, ("b.jpg", encode(seed=2)), listings=((name, encode(seed=1)),))
    assert page.inner_text("#viewer h2") == name
    assert page.title() == "realdamage"
    assert page.locator("img[src=x]").count() == 0


def test_a_phone_has_no_sideways_scroll(open_page: Open, encode: Encode) -> None:
    page = open_page(width=390, has_touch=True, is_mobile=True)
    assert page.is_visible("label[for=camera]")
    long_name = f"{'very_long_name_' * 8}.jpg"
    choose(page, (long_name, encode(red=True, size=(160, 96))))
    assert not overlaps(page)
    judge(page, *((f"{index}.jpg", encode(seed=index)) for index in range(3)))
    assert not overlaps(page)
    page.click("#language")
    assert not overlaps(page)


def test_one_unreadable_photo_fails_alone(open_page: Open, encode: Encode) -> None:
    page = open_page()
    judge(page, ("cut.jpg", encode(size=(128, 96))[:400]), ("good.jpg", encode(size=(128, 96))))
    assert page.locator(".strip .badge").all_inner_texts()[0] == "Unreadable"
    assert "cut.jpg" in page.inner_text("#facts .problem")
    assert not page.is_visible("#deciding")
    page.keyboard.press("j")
    assert page.is_visible("#deciding")
    assert page.locator("#facts .badge").count() == 1


def test_a_refusal_is_told_in_the_services_own_words(open_page: Open, encode: Encode) -> None:
    page = open_page()
    choose(page, *((f"{index}.jpg", encode(seed=index)) for index in range(5)))
    page.click("#judge")
    page.wait_for_selector("#problem:not([hidden])")
    assert "4" in page.inner_text("#problem")
    assert page.locator(".chosen li").count() == 5  # nothing is lost
    assert page.is_enabled("#judge")

    refusal = {"error": {"code": "busy", "message": "64 photos are waiting.", "request_id": "r"}}
    page.route(
        "**/v1/claims",
        lambda route: route.fulfill(status=429, json=refusal, headers={"Retry-After": "1"}),
    )
    page.click("#judge")
    until(
        page,
        "document.getElementById('problem').textContent.includes('64 photos are waiting. Try again in 1 s.')",
    )
    assert page.is_disabled("#judge")
    page.wait_for_selector("#judge:enabled")

    page.unroute("**/v1/claims")
    page.route("**/v1/claims", lambda route: route.abort())
    page.click("#judge")
    until(page, "document.getElementById('problem').textContent.includes('cannot be reached')")
    page.unroute("**/v1/claims")
    page.route(
        "**/v1/claims", lambda route: route.fulfill(status=413, body="<html>too large</html>")
    )
    page.click("#judge")
    until(page, "document.getElementById('problem').textContent.includes('HTTP 413')")


def test_a_decision_that_is_not_stored_is_told_where_it_was_made(
    open_page: Open, encode: Encode
) -> None:
    page, sent = open_page(), []
    judge(page, ("one.jpg", encode(size=(128, 96))), ("two.jpg", encode(size=(128, 96), seed=1)))
    page.route("**/v1/reviews", lambda route: sent.append(route))
    for key in ("1", "1"):
        page.keyboard.down(key)  # the second one is a repeat: the key is held
    page.keyboard.up("1")
    page.keyboard.press("j")
    assert page.inner_text("#viewer h2") == "two.jpg"
    until_sent = time.monotonic() + 20
    while not sent and time.monotonic() < until_sent:
        page.wait_for_timeout(20)
    assert len(sent) == 1
    sent[0].fulfill(
        status=503, json={"error": {"code": "unavailable", "message": "No room on the disk."}}
    )
    until(page, "document.querySelector('#saved').textContent.includes('No room on the disk.')")
    assert page.inner_text("#viewer h2") == "one.jpg"
    assert page.get_attribute("#saved", "class") == "problem"
    assert page.locator("#deciding [aria-pressed=true]").count() == 0


def test_a_key_is_asked_for_and_kept_for_this_tab(
    open_page: Open, encode: Encode, model_file: Path
) -> None:
    settings = Settings(model=model_file, threads=1, api_key_hashes=hash_key(KEY, "team"))
    with running(create_app(settings)) as url:
        page = open_page(f"{url}/?keyed")
        choose(page, ("cup.jpg", encode(red=True, size=(128, 96))))
        page.click("#judge")
        page.wait_for_selector("#key-dialog[open]")
        for unusable in ("密钥", "wrong-key-wrong-key-wrong-key"):
            assert "a key is needed" in page.inner_text("#key-reason")
            page.fill("#key", unusable)
            page.click("#key-form button[value=use]")
            page.wait_for_selector("#key-dialog[open]")
        until(page, "document.getElementById('key-reason').textContent.includes('not known here')")
        page.fill("#key", KEY)
        page.click("#key-form button[value=use]")
        page.wait_for_selector("#results:not([hidden])")
        assert page.evaluate("Object.values(sessionStorage)") == [KEY]
        until(page, "document.getElementById('model').textContent.includes('test-1')")
        until(page, "document.getElementById('decided').textContent !== ''")
        assert KEY not in str(page.evaluate("Object.values(localStorage)"))
        page.context.close()
