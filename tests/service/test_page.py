"""The review page: its words in both languages, and what a reviewer can do with it in a real
browser."""

import csv
import hashlib
import io
import json
import re
import time
import typing
import zipfile
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import realdamage
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import UsageError
from realdamage.phrases import phrases_in
from realdamage.service.app import create_app
from realdamage.service.auth import hash_key
from realdamage.service.reviews import Damage
from realdamage.service.settings import Settings

PACKAGE = Path(realdamage.__file__).parent
PAGE = PACKAGE / "service" / "page"
SAMPLE = PACKAGE.parents[1] / "data" / "sample" / "photos"
KEY = "a-key-of-at-least-24-characters"
SHOP_KEY = "another-key-of-24-characters-or-more"
SMALL = """() => [...document.querySelectorAll("a, button, select, summary, input, .button")]
  .filter((node) => node.getClientRects().length && !node.closest(".unseen, label:not(.button)"))
  .map((node) => [node.outerHTML.slice(0, 80), node.getBoundingClientRect()])
  .filter(([, box]) => box.width > 1 && Math.min(box.width, box.height) < 24)
  .map(([html]) => html)"""
"""What can be touched but is less than 24 pixels wide or high."""


def strings():
    """The table of words of the page, by language."""
    text = (PAGE / "strings.js").read_text(encoding="utf-8")
    _, found, table = text.partition("export const STRINGS =")
    assert found
    return json.loads(table.strip().removesuffix(";"))


# What needs no browser


def test_both_languages_say_the_same_things_and_all_that_the_page_asks_for():
    english, chinese = strings().values()
    assert list(english) == list(chinese)
    for key in english:
        assert english[key].strip(), key
        assert chinese[key].strip(), key
        for_both = [sorted(re.findall(r"\{\w+\}", words[key])) for words in (english, chinese)]
        assert for_both[0] == for_both[1], key
    translated = [key for key in english if english[key] != chinese[key]]
    assert len(translated) > len(english) - 3
    texts = [path.read_text("utf-8") for path in PAGE.glob("*") if path.name != "strings.js"]
    page = "".join(texts)
    asked = set(re.findall(r'data-i18n(?:-label|-placeholder)?="(\w+)"', page))
    asked |= set(re.findall(r'"(key_\w+)"', page)) | set(re.findall(r'say\(\s*"(\w+)"', page))
    assert len(asked) > 50
    assert asked - set(english) == set()
    accusing = "伪造|欺诈|骗|假|作弊|说谎|撒谎|嫌疑|怀疑|可疑|违法|犯罪|篡改"
    assert re.findall(accusing, "".join(phrases_in("zh").values())) == [], "nobody is accused"


def test_the_page_keeps_to_its_content_policy():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"\s(?:style|on\w+)=", html) == []
    for path in PAGE.glob("*"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(?m)(^|\s)//.*$|<!--.*?-->", "", text), path.name
        unsafe = re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not unsafe, path.name


def test_page_and_service_know_the_damages_of_the_manifest():
    script = (PAGE / "decision.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"DAMAGES = (\[.*?\])", script)
    assert json.loads(listed) == ["", *DAMAGES]
    assert {f"damage_{name}" for name in ("", *DAMAGES)} <= set(strings()["en"])
    assert typing.get_args(Damage) == ("", *DAMAGES), "those that the service takes"


# What a reviewer does


@pytest.fixture(scope="module")
def chromium(trial):
    if find_spec("playwright") is None:
        pytest.skip("the page is tried in a browser through playwright: pip install playwright")
    screenshots = trial("screenshots")
    try:
        program = screenshots.find_chromium()
    except UsageError as error:
        pytest.skip(str(error))
    with screenshots.browser(program) as opened:
        yield opened


@pytest.fixture(scope="module")
def running(trial):
    """`with running(app) as address:` the app on a free port."""
    return trial("screenshots").running


@pytest.fixture(scope="module")
def address(chromium, model_file, running):
    with running(create_app(Settings(model=model_file, threads=1, max_photos=4))) as url:
        yield url


@pytest.fixture
def open_page(chromium, address):
    """`open_page(url=…, width=1280)`: the page in a browser of its own; an error in its scripts
    fails the test."""
    contexts, errors = [], []

    def log(note):
        if "Content Security" in note.text:
            errors.append(note.text)

    def make(url=address, width=1280, **options):
        options = {"locale": "en-US", "viewport": {"width": width, "height": 900}, **options}
        contexts.append(chromium.new_context(**options))
        # Matches nothing, but switches interception on from the start. A page.route() that switches
        # it on misses requests that follow at once.
        contexts[-1].route("about:nothing", lambda route: route.abort())
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", log)
        page.goto(url)
        until(page, "document.getElementById('model')?.textContent || location.search")
        return page

    yield make
    for context in contexts:
        context.close()
    assert errors == []


def choose(page, *photos, listings=()):
    for field, files in (("#photos", photos), ("#listings", listings)):
        sent = [{"name": n, "mimeType": "image/jpeg", "buffer": data} for n, data in files]
        if sent:
            page.set_input_files(field, sent)


def judge(page, *photos, **options):
    choose(page, *photos, **options)
    page.click("#judge")
    page.wait_for_selector("#results:not([hidden])")


def sample(name):
    """A photo of the product that has a pasted stain and its original."""
    return (SAMPLE / f"000004_{name}.jpg").read_bytes()


def until(page, expression):
    """Wait until it is true in the page, whose content policy forbids playwright's own way of
    waiting."""
    give_up = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < give_up, f"still not: {expression}"
        page.wait_for_timeout(20)


def overlaps(page):
    return bool(page.evaluate("document.documentElement.scrollWidth > screen.width"))


@pytest.mark.slow
def test_from_upload_to_export(open_page, encode):
    page = open_page()
    assert page.is_disabled("#judge")
    data = encode(red=True, size=(128, 96), seed=3)
    judge(page, ("cup.jpg", data), ("plain.jpg", encode(size=(96, 64), seed=4)))
    assert page.inner_text("#facts .badge") == "Looks synthetic"
    assert page.locator(".marker").count() == 1
    assert "At or above 1.00: synthetic" in page.inner_text("#facts")
    assert "absence of a declaration proves nothing" in page.inner_text("#facts")
    assert page.input_value("#overlay") == "none", "the photo alone comes first"
    page.keyboard.press("h")
    page.keyboard.press("b")
    page.fill("#opacity", "20")
    assert page.evaluate("getComputedStyle(document.querySelector('.layer')).opacity") == "0.2"
    assert page.locator(".boxes rect.region").count() >= 1

    page.select_option("#damage", "cracked")
    page.fill("#reviewer", "Ana")
    page.focus("#note")
    page.keyboard.type("a seam jhb?")  # no shortcuts there
    assert page.input_value("#note") == "a seam jhb?"
    assert page.inner_text("#viewer h2") == "cup.jpg"
    page.click("[data-decision=synthetic]")
    until(page, "document.getElementById('saved').textContent.startsWith('Saved')")
    page.keyboard.press("j")
    page.keyboard.press("3")
    until(page, "document.getElementById('decided').textContent.includes('1 unsure')")
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "metadata.csv"
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    rows = {row["sha256"]: row for row in csv.DictReader(lines)}
    row = rows[hashlib.sha256(data).hexdigest()]
    columns = ("file_name", "label", "damage", "label_source", "decided_by", "model_outcome")
    expected = ["cup.jpg", "synthetic", "cracked", "review", "Ana", "synthetic"]
    assert [row[name] for name in columns] == expected
    assert "plain.jpg" not in {row["file_name"] for row in rows.values()}

    page.click("#new-claim")
    judge(page, ("again.jpg", data))
    until(page, "document.getElementById('saved').textContent.startsWith('Synthetic on ')")
    assert page.inner_text("#saved").endswith("by Ana")


@pytest.mark.slow
def test_a_rotated_photo_lies_under_its_heat(open_page):
    rgb = np.full((96, 160, 3), (80, 100, 144), np.uint8)
    # Upright, after a turn to the right, it lies at the right end of the upper edge.
    rgb[:32, :64] = (200, 100, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, "JPEG", quality=95, exif=exif)
    page = open_page()
    judge(page, ("turned.jpg", data.getvalue()))
    page.keyboard.press("h")
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
        """() => {
          const map = document.querySelector(".map"), pen = map.getContext("2d");
          const at = (x, y) => pen.getImageData(x, y, 1, 1).data[3];
          const [right, bottom] = [map.width - 1, map.height - 1];
          return [map.width, map.height, at(0, 0), at(right, 0), at(right, bottom)];
        }"""
    )
    assert heat[:2] == [6, 10]
    assert heat[3] > 200
    assert max(heat[2], heat[4]) < 60


@pytest.mark.slow
def test_beside_the_listing_photo(open_page):
    page = open_page()
    judge(page, ("claim.jpg", sample("pasted")), listings=(("shop.jpg", sample("original")),))
    assert page.inner_text(".compared strong") == "The same shot, or one from a fixed camera"
    assert page.locator(".pair.two .beside").count() == 1
    page.keyboard.press("h")
    page.keyboard.press("b")
    assert page.input_value("#overlay") == "change0"
    assert page.locator(".boxes rect.changed").count() >= 1
    boxes = page.locator(".boxes rect.changed").all()
    left, top, width, height = (
        np.array([float(box.get_attribute(name) or 0) for box in boxes])
        for name in ("x", "y", "width", "height")
    )
    found = (left.min(), top.min(), (left + width).max(), (top + height).max())
    with Image.open(SAMPLE.parent / "masks" / "000004_pasted.png") as mask:
        assert found == pytest.approx(mask.point(lambda v: 255 * (v > 127)).getbbox(), abs=24)
    page.click(".buyer summary")
    assert page.inner_text(".letter").startswith("Thank you")
    page.select_option(".buyer select", "zh")
    assert "感谢" in page.inner_text(".letter")


@pytest.mark.slow
def test_in_chinese_everything_is_chinese_and_still_after_a_reload(open_page, encode):
    painted, original = sample("pasted"), sample("original")
    page = open_page(locale="zh-CN")
    page.wait_for_selector("#judge")
    assert page.inner_text("#judge") == "开始核查"
    photos = (("shoes.jpg", painted), ("cup.jpg", encode(red=True, size=(128, 96))))
    judge(page, *photos, listings=(("shop.jpg", original), ("text.jpg", b"no photo at all")))
    page.click(".claim .more summary")
    reasons = page.locator(".claim .reasons li").all_inner_texts()
    assert "cup.jpg：尺寸为 128×96 像素，短边应不少于 320 像素。" in reasons
    assert [text for text in reasons if text.startswith("未参与对比：text.jpg：")]
    for _ in photos:
        assert page.locator("#results [lang=en]:not(option)").all_inner_texts() == []
        page.keyboard.press("j")
    page.click("#language")
    english = page.locator(".claim .reasons li").all_text_contents()
    assert not re.search("[\u4e00-\u9fff]", " ".join(english))
    page.click("#language")
    page.reload()
    page.wait_for_selector("#judge")  # shown once the service has said what it can do
    assert page.get_attribute("html", "lang") == "zh-CN"
    judge(page, ("cut.jpg", painted[:400]), ("cup.jpg", encode(red=True)))
    assert page.locator(".strip .badge").all_inner_texts()[0] == "无法读取"
    assert not page.is_visible("#deciding"), "an unreadable photo is not decided"
    assert page.inner_text("#facts .problem").startswith("cut.jpg：文件已损坏或不完整（")


@pytest.mark.slow
def test_a_refusal_is_told_in_the_services_own_words_and_names_are_never_markup(open_page, encode):
    name = '<img src=x onerror="document.title=1">.jpg'
    page = open_page()
    choose(page, *((name, encode(seed=index)) for index in range(5)))
    page.click("#judge")
    page.wait_for_selector("#problem:not([hidden])")
    assert "4" in page.inner_text("#problem")
    assert page.locator(".chosen li span").all_inner_texts() == [name] * 5, "nothing is lost"
    assert page.is_enabled("#judge")
    page.route("**/v1/claims", lambda route: route.fulfill(status=413, body="<html>large</html>"))
    page.click("#judge")
    until(page, "document.getElementById('problem').textContent.includes('HTTP 413')")
    page.unroute("**/v1/claims")
    page.reload()
    judge(page, (name, encode(seed=2)), listings=((name, encode(seed=1)),))
    assert page.inner_text("#viewer h2") == name
    assert page.title() == "realdamage"
    assert page.locator("img[src=x]").count() == 0


# Cases


@pytest.fixture
def desk(model_file, running, tmp_path):
    """A service with a store, a key for a person and one for the shop."""
    hashes = f"{hash_key(KEY, 'ana')} reviewer,{hash_key(SHOP_KEY, 'shop')}"
    given = {"model": model_file, "threads": 1, "store": tmp_path / "store", "deadline": 200}
    with running(create_app(Settings(api_key_hashes=hashes, **given))) as url:
        yield url


@pytest.fixture
def shop(desk):
    """Calls that service with the shop's key."""
    headers = {"X-API-Key": SHOP_KEY}
    with httpx.Client(base_url=f"{desk}/v1", headers=headers, timeout=200) as client:
        yield client


def post_claim(shop, claim_id, **fields):
    """A claim with a painted copy of the listing photo."""
    files = [("photos", ("claim.jpg", sample("pasted")))]
    files.append(("listings", ("shop.jpg", sample("original"))))
    data = {"keep": "true", "claim_id": claim_id, "product": "shoes", **fields}
    answer = shop.post("/claims", files=files, data=data)
    assert answer.status_code == 200, answer.text


def sign_in(page):
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", KEY)
    page.click("#key-form button[value=use]")


@pytest.mark.slow
def test_a_key_is_asked_for_and_kept_for_this_tab(open_page, desk, encode):
    page = open_page(f"{desk}/?keyed#new")
    page.wait_for_selector("#key-dialog[open]")
    for unusable in ("密钥", "wrong-key-wrong-key-wrong-key"):
        assert "A key is needed" in page.inner_text("#key-reason")
        page.fill("#key", unusable)
        page.click("#key-form button[value=use]")
        page.wait_for_selector("#key-dialog[open]")
    until(page, "document.getElementById('key-reason').textContent.includes('Unknown API key')")
    sign_in(page)
    page.wait_for_selector("#intake:visible")
    judge(page, ("cup.jpg", encode(red=True, size=(128, 96))))
    assert page.evaluate("Object.values(sessionStorage)") == [KEY]
    until(page, "document.getElementById('model').textContent.includes('test-1')")
    until(page, "document.getElementById('decided').textContent !== ''")
    assert KEY not in str(page.evaluate("Object.values(localStorage)"))


@pytest.mark.slow
def test_from_the_queue_to_a_decision_by_keyboard_alone(open_page, desk, shop):
    for claim_id in ("A-1", "A-2"):
        post_claim(shop, claim_id, amount="45", currency="CNY")
    page = open_page(f"{desk}/?keyed")
    sign_in(page)
    page.wait_for_selector("#cases a")
    assert page.locator("#cases a .id").all_inner_texts() == ["A-1", "A-2"]
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#decision-form")
    until(page, "document.querySelectorAll('.pair.two img[src^=blob]').length === 2")
    card = page.locator("#send-decision").bounding_box()
    assert card is not None
    assert card["y"] + card["height"] <= 900, "the decision card is in view"
    page.keyboard.press("f")
    assert page.get_attribute("[data-action=refuse]", "aria-pressed") == "true"
    page.keyboard.type("the pixels differ from the listing")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelector('#case .decided') !== null")
    assert "waits for a second person" in page.inner_text("#case .decided")
    page.fill("#reason", "wrong button")
    page.get_by_text("Take back").click()
    until(page, "document.querySelector('[data-action=refund]') !== null")
    page.keyboard.press("Escape")
    page.locator("#reason").blur()
    page.keyboard.press("r")
    page.fill("#reason", "really damaged")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelector('#case .title strong').textContent === 'Decided'")
    page.reload()
    page.wait_for_selector("#case .decided")
    assert page.evaluate("location.hash") == "#claim/A-1"
    assert page.inner_text("#case .title strong") == "Decided"
    page.click("#language")
    assert page.inner_text("#case .title strong") == "已决定"
    page.keyboard.press("q")
    page.wait_for_selector("#cases a")


@pytest.mark.slow
def test_a_buyer_takes_pictures_with_the_camera(open_page, desk, shop, monkeypatch):
    monkeypatch.setattr("realdamage.service.statements.FRAMES", 2)  # each is compared with all
    post_claim(shop, "A-1")
    link = shop.post("/claims/A-1/links", json={"side": "buyer"}).json()
    page = open_page(f"{desk}/{link['path']}?keyed", width=390, permissions=["camera"])
    page.wait_for_selector("#statement:not([hidden])")
    assert len(page.inner_text("#nonce")) == 4
    page.click("#open-camera")
    page.wait_for_selector("#shoot:enabled")
    until(page, "document.getElementById('live').videoWidth > 0")
    page.click("#shoot")
    until(page, "document.getElementById('shot').textContent === '2 of 2'")
    page.fill("#text", "Here it is again.")
    assert page.evaluate(SMALL) == []
    assert not overlaps(page)
    page.wait_for_selector("#shoot:enabled")
    page.click("#send")
    page.wait_for_selector("#done:not([hidden])", timeout=100_000)
    (said,) = shop.get("/claims/A-1/case").json()["statements"]
    path = f"/claims/A-1/files/statements/{said['folder']}/statement.json"
    recapture = shop.get(path).json()["recapture"]
    facts = ("frames", "nonce_matches", "in_order", "product")
    assert [recapture[name] for name in facts] == [2, True, True, "unrelated"]
    page.reload()
    page.wait_for_selector("#problem:not([hidden])")
    assert "was used already" in page.inner_text("#problem")


@pytest.mark.slow
def test_many_claims_from_a_zip_and_from_a_folder(open_page, desk, encode, tmp_path):
    folder = tmp_path / "november"
    for number, name in enumerate(("C-1/a.jpg", "C-1/listing/s.jpg", "D_1.jpg", "D_2.jpg")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(size=(320, 240), seed=number))
    (folder / ".DS_Store").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("A-1/a.jpg", encode(size=(320, 240), seed=7))
        archive.writestr("B-1/b.jpg", b"no photo")
    page = open_page(f"{desk}/?keyed")
    sign_in(page)
    page.wait_for_selector("#queue:visible")
    page.keyboard.press("m")
    page.wait_for_selector("#batch:visible")
    page.focus("#batch-currency")
    for label in ("batch-zip", "batch-folder"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == label, "reachable by keyboard"
    page.set_input_files("#batch-zip", tmp_path / "two.zip")
    page.focus("#batch-send")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#batch-claims a').length === 1")
    until(page, "document.querySelectorAll('#batch-claims [lang=en]').length === 1")
    page.set_input_files("#batch-folder", folder)
    assert page.inner_text("#batch-chosen") == "Files chosen: 4"
    page.click("#batch-send")
    until(page, "document.querySelectorAll('#batch-claims a').length === 3")
    names = page.locator("#batch-claims .id").all_inner_texts()
    assert sorted(names) == ["A-1", "B-1", "C-1", "D"]
    page.click("#language")
    assert page.inner_text("#batch-send") == "提交"
    page.click("#batch-claims a")
    page.wait_for_selector("#case h2")


@pytest.mark.slow
def test_on_a_phone_nothing_is_too_small_or_too_wide(open_page, desk, shop, encode):
    post_claim(shop, "A-1", amount="12")
    page = open_page(f"{desk}/?keyed", width=390, has_touch=True, is_mobile=True)
    sign_in(page)
    places = {"#queue": "#cases a", "#new": "#intake", "#batch": "#batch", "#claim/A-1": "#case h2"}
    for place, ready in places.items():
        page.evaluate(f"location.hash = '{place}'")
        page.wait_for_selector(f"{ready}:visible")
        assert page.evaluate(SMALL) == [], place
        assert not overlaps(page), place
    page.evaluate("location.hash = '#new'")
    page.wait_for_selector("label[for=camera]:visible")
    choose(page, (f"{'very_long_name_' * 8}.jpg", encode(red=True, size=(160, 96))))
    assert not overlaps(page)
    judge(page, *((f"{index}.jpg", encode(seed=index)) for index in range(3)))
    assert not overlaps(page)
    page.click("#language")
    assert not overlaps(page)
