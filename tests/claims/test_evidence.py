"""A claim from its photos to a folder of evidence, and what `verify` finds when somebody touches it."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from realdamage.claims import (
    Claim,
    ClaimIndex,
    ClaimPolicy,
    EvidenceLog,
    judge_claim,
    schema,
    verify_evidence,
    write_evidence,
)
from realdamage.claims.log import canonical, entry_hash
from realdamage.core.detector import Detector
from realdamage.errors import PhotoError, RealDamageError, UsageError
from realdamage.provenance import TrustAnchors
from realdamage.rendering.terminal import format_claim

Photo = Callable[..., bytes]
Files = list[tuple[str, bytes]]
SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def painted(claim_photo: Photo) -> bytes:
    """The listing's photo with a dark blot, saved again, its file full of markup and with a position."""
    with Image.open(io.BytesIO(claim_photo(1, size=(640, 480), quality=92))) as image:
        rgb = np.asarray(image).copy()
    rgb[150:230, 250:350] = (20, 15, 10)
    exif = Image.Exif()
    exif[0x010F] = SCRIPT
    position = exif.get_ifd(0x8825)
    position[1], position[2], position[3], position[4] = (
        "N",
        (31.0, 14.0, 15.93),
        "E",
        (121.0, 28.0, 24.71),
    )
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, format="JPEG", quality=85, exif=exif)
    return data.getvalue()


@pytest.fixture(scope="module")
def photos(claim_photo: Photo, painted: bytes) -> Files:
    return [
        (f"{SCRIPT}.jpg", painted),
        ("red.jpg", claim_photo(2, red=True)),
        ("cut.jpg", claim_photo(3)[:3000]),
    ]


@pytest.fixture(scope="module")
def listings(claim_photo: Photo) -> Files:
    return [("listing.jpg", claim_photo(1, size=(640, 480), quality=92))]


@pytest.fixture(scope="module")
def claim(detector: Detector, photos: Files, listings: Files) -> Claim:
    return judge_claim(
        photos, detector=detector, listings=listings, text=f"它裂了。{SCRIPT}", claim_id="C-1"
    )


@pytest.fixture(scope="module")
def written(
    claim: Claim, photos: Files, listings: Files, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("claim") / "evidence"
    return write_evidence(claim, photos, listings, folder, keep_originals=True).parent


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """The evidence of the claim, to be touched."""
    return shutil.copytree(written, tmp_path / "evidence")


def read(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "evidence.json").read_bytes())
    return values


def test_every_photo_is_looked_at_and_one_fails_alone(
    claim: Claim, sha256: Callable[[bytes], str], photos: Files
) -> None:
    assert claim.recommendation == "escalate"
    codes = [reason.code for reason in claim.reasons]
    assert codes == [
        "same_capture_changed",
        "verdict_synthetic",
        "photo_unreadable",
        "listing_unrelated",
        "no_promise",
    ]
    assert [photo.sha256 for photo in claim.photos] == [sha256(data) for _, data in photos]
    first, red, cut = claim.photos
    assert first.verdict is not None
    assert first.verdict.outcome == "real"
    assert [(name, found.outcome) for name, found in first.comparisons] == [
        ("listing.jpg", "same_capture")
    ]
    (change,) = first.comparisons[0][1].changes
    assert np.abs(np.subtract(change.box, (250, 150, 350, 230))).max() <= 16
    assert red.verdict is not None
    assert red.verdict.outcome == "synthetic"
    assert (cut.verdict, cut.provenance, cut.comparisons) == (None, None, ())
    assert "cut off" in cut.error
    assert claim.model["thresholds"]["t_synthetic"] == 1.0


def test_the_json_is_what_its_schema_says(folder: Path, claim: Claim) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    values = read(folder)
    assert [error.message for error in validator.iter_errors(values)] == []
    validator.validate(claim.to_dict(heatmaps=False))
    assert claim.to_dict(heatmaps=False)["photos"][0]["comparisons"][0]["change_map"] is None
    assert values["photos"][0]["verdict"]["heatmap"] is not None
    assert values["message_to_buyer"]["zh"].startswith("感谢")
    assert set(values) == set(schema()["properties"])
    for wrong in ({"recommendation": "refuse"}, {"schema_version": 2}, {"photos": []}):
        assert not validator.is_valid(values | wrong)
    del values["policy"]["rules"]["verdict_synthetic"]
    assert not validator.is_valid(values)


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_runs_nothing_and_loads_nothing(folder: Path) -> None:
    page = (folder / "evidence.html").read_text(encoding="utf-8")
    parser = Elements()
    parser.feed(page)
    assert {tag for tag, _ in parser.found}.isdisjoint(
        {"script", "link", "iframe", "object", "b", "form"}
    )
    attributes = [(key, value or "") for _, found in parser.found for key, value in found.items()]
    assert not [key for key, _ in attributes if key.startswith("on") or key == "href"]
    sources = [value for key, value in attributes if key == "src"]
    assert len(sources) == 5  # two photos, their heat maps, one comparison
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "default-src 'none'" in page
    assert "url(" not in page
    assert "@import" not in page
    assert (
        page.count("&lt;script&gt;alert(1)") >= 3
    )  # the file's name, its EXIF and the text are all told, escaped
    assert len(page) < 1_500_000


def test_the_position_is_told_to_be_there_and_nowhere_else(folder: Path) -> None:
    assert read(folder)["photos"][0]["provenance"]["camera"]["gps"] is True
    for name in ("evidence.json", "evidence.html", "log.jsonl"):
        text = re.sub(r"base64,[^\"]*", "", (folder / name).read_text(encoding="utf-8"))
        assert "15.93" not in text
        assert "24.71" not in text
        assert "31.23" not in text


def test_an_embedded_picture_has_no_metadata(folder: Path) -> None:
    import base64

    page = (folder / "evidence.html").read_text(encoding="utf-8")
    for text in re.findall(r"base64,([^\"]+)", page):
        with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
            assert not picture.getexif()
            assert max(picture.size) <= 1440


def test_the_texts_for_the_buyer_stand_in_the_page(folder: Path, claim: Claim) -> None:
    page = (folder / "evidence.html").read_text(encoding="utf-8")
    for text in claim.to_dict()["message_to_buyer"].values():
        assert text.replace("'", "&#39;") in page


def test_originals_are_kept_byte_for_byte_under_names_of_ours(
    folder: Path, photos: Files, listings: Files
) -> None:
    kept = read(folder)["originals"]
    assert kept == [
        "originals/photo-01.jpg",
        "originals/photo-02.jpg",
        "originals/photo-03.jpg",
        "originals/listing-01.jpg",
    ]
    assert [(folder / name).read_bytes() for name in kept] == [
        data for _, data in [*photos, *listings]
    ]


def test_verify_says_what_it_proves(folder: Path, photos: Files) -> None:
    report = verify_evidence(folder)
    assert report.problems == ()
    assert report.notes == ()
    assert (
        len(report.checked) == 1 + 6 + 4
    )  # the chain, six files as recorded, four originals of the claim
    assert "Whoever holds the folder can write all of it anew" in report.proves[1]
    anchored = verify_evidence(folder, head=report.head, photos=[("mine.jpg", photos[0][1])])
    assert anchored.passed
    assert "the head that was given" in anchored.proves[0]
    assert any(line.startswith("mine.jpg: is the claim's") for line in anchored.checked)


def change_json(folder: Path) -> None:
    text = (folder / "evidence.json").read_text(encoding="utf-8")
    (folder / "evidence.json").write_text(
        text.replace('"escalate"', '"approve"', 1), encoding="utf-8"
    )


def break_json(folder: Path) -> None:
    (folder / "evidence.json").write_text("{")


def change_page(folder: Path) -> None:
    with (folder / "evidence.html").open("a") as page:
        page.write(" ")


def change_original(folder: Path) -> None:
    with (folder / "originals" / "photo-02.jpg").open("ab") as photo:
        photo.write(b"\0")


def change_log(folder: Path) -> None:
    log = folder / "log.jsonl"
    log.write_text(log.read_text().replace("escalate", "approve"))


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (change_json, "evidence.json: was changed"),
        (break_json, "evidence.json: is not JSON"),
        (change_page, "evidence.html: was changed"),
        (change_original, "photo-02.jpg: was changed"),
        (change_original, "photo-02.jpg: is none of the claim's photos"),
        (change_log, "line 1: its payload was changed"),
        (lambda folder: (folder / "evidence.html").unlink(), "evidence.html: is missing"),
        (lambda folder: (folder / "evidence.json").unlink(), "evidence.json: is missing"),
        (lambda folder: (folder / "log.jsonl").unlink(), "log.jsonl: is missing"),
        (lambda folder: (folder / "log.jsonl").write_text(""), "log.jsonl: holds no entry"),
        (
            lambda folder: (folder / "evidence.json").write_text(
                '{"schema_version": 1, "photos": 5}'
            ),
            "was changed",
        ),
    ],
)
def test_what_was_touched_is_named(
    folder: Path, tamper: Callable[[Path], None], named: str
) -> None:
    tamper(folder)
    report = verify_evidence(folder)
    assert not report.passed
    assert any(named in problem for problem in report.problems), report.problems
    assert report.proves == ()


def test_a_head_says_nothing_of_evidence_that_was_written_after_it(
    folder: Path, claim: Claim, photos: Files, listings: Files
) -> None:
    head = verify_evidence(folder).head
    other = replace(claim, recommendation="approve", reasons=())
    write_evidence(other, photos, listings, folder, overwrite=True)
    report = verify_evidence(folder, head=head)
    assert report.passed
    assert any("was added after the head that was given" in note for note in report.notes)
    assert "1 entry was added since" in report.proves[0]
    assert "it says nothing about them" in report.proves[0]
    current = verify_evidence(folder, head=report.head)
    assert "recorded by then and have not changed" in current.proves[0]
    assert current.notes == ()


def test_a_verdict_that_the_promise_held_back_leads_the_page(
    detector: Detector, claim_photo: Photo, tmp_path: Path
) -> None:
    policy = replace(
        ClaimPolicy.default(),
        rules=replace(ClaimPolicy.default().rules, verdict_synthetic="escalate"),
    )
    photos = [("red.jpg", claim_photo(2, red=True))]
    claim = judge_claim(photos, detector=detector, policy=policy)
    assert claim.recommendation == "review"
    page = write_evidence(claim, photos, [], tmp_path / "evidence").read_text(encoding="utf-8")
    lead = page[page.index('class="card lead') : page.index("</section>")]
    assert "It does not escalate" in lead


def test_a_folder_written_anew_passes_without_and_fails_with_its_head(
    folder: Path, claim: Claim, photos: Files, listings: Files
) -> None:
    head = verify_evidence(folder).head
    shutil.rmtree(folder)
    write_evidence(
        replace(claim, recommendation="approve"), photos, listings, folder, keep_originals=True
    )
    assert verify_evidence(folder).passed
    assert "is not in the chain" in verify_evidence(folder, head=head).problems[0]


def test_other_photos_and_other_files_are_told(folder: Path, claim_photo: Photo) -> None:
    (folder / "more.txt").write_text("added later")
    report = verify_evidence(folder, photos=[("other.jpg", claim_photo(9))])
    assert report.notes == (f"{folder / 'more.txt'}: is not part of the evidence",)
    assert "other.jpg: is none of the claim's photos" in report.problems[0]


def test_a_forged_log_cannot_have_other_files_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / "log.jsonl").unlink()
    EvidenceLog(folder / "log.jsonl").append(
        {"event": "evidence_written", "files": {"../secret": "0" * 64}}
    )
    assert any(
        "does not cover ../secret" in problem for problem in verify_evidence(folder).problems
    )


@pytest.mark.parametrize(("head", "says"), [("abc", "64 hex digits"), ("z" * 64, "64 hex digits")])
def test_verify_with_wrong_input(folder: Path, tmp_path: Path, head: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        verify_evidence(folder, head=head)
    with pytest.raises(UsageError, match="no evidence in this folder"):
        verify_evidence(tmp_path / "none")
    with pytest.raises(UsageError, match="no such log"):
        verify_evidence(folder, log=tmp_path / "none.jsonl")


def test_a_folder_with_something_in_it_is_left_alone(
    folder: Path, claim: Claim, photos: Files, listings: Files, tmp_path: Path
) -> None:
    before = (folder / "evidence.json").read_bytes()
    with pytest.raises(UsageError, match="is not empty"):
        write_evidence(claim, photos, listings, folder)
    assert (folder / "evidence.json").read_bytes() == before
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="other files than evidence"):
        write_evidence(claim, photos, listings, tmp_path / "holiday", overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'notes\.txt' beside the evidence"):
        write_evidence(claim, photos, listings, folder, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        write_evidence(claim, photos, listings, tmp_path / "holiday" / "beach.jpg")


def test_overwriting_goes_on_with_the_log(
    folder: Path, claim: Claim, photos: Files, listings: Files
) -> None:
    head = verify_evidence(folder).head
    write_evidence(
        replace(claim, recommendation="review"), photos, listings, folder, overwrite=True
    )
    report = verify_evidence(folder, head=head)
    assert report.passed
    assert report.entries == 2
    assert not (folder / "originals").exists()
    assert sorted(path.name for path in folder.parent.glob("*evidence*")) == ["evidence"]


def test_nothing_is_left_of_evidence_that_could_not_be_written(
    claim: Claim, photos: Files, listings: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RealDamageError, match="No space left on device"):
        write_evidence(claim, photos, listings, tmp_path / "new")
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


def test_one_log_over_all_claims(
    claim: Claim, photos: Files, listings: Files, tmp_path: Path
) -> None:
    log = EvidenceLog(tmp_path / "all.jsonl")
    claims = [replace(claim, claim_id=f"C-{number}") for number in range(4)]

    def write(one: Claim) -> None:
        write_evidence(one, photos, listings, tmp_path / one.claim_id, log=log)

    writers = [threading.Thread(target=write, args=(one,)) for one in claims]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    report = verify_evidence(tmp_path / "C-2", log=log.path, head=log.head)
    assert report.passed
    assert (report.entries, report.head) == (4, log.head)
    change_page(tmp_path / "C-2")
    assert any(
        "all.jsonl" in problem
        for problem in verify_evidence(tmp_path / "C-2", log=log.path).problems
    )
    other = EvidenceLog(tmp_path / "other.jsonl")
    other.append({"event": "noted"})
    problems = verify_evidence(tmp_path / "C-1", log=other.path).problems
    assert "has no entry about this evidence (claim C-1)" in problems[0]
    with pytest.raises(UsageError, match="cannot lie in the evidence"):
        write_evidence(
            claim, photos, listings, tmp_path / "D", log=EvidenceLog(tmp_path / "D" / "log.jsonl")
        )


def test_evidence_goes_on_after_a_torn_entry_of_the_log_over_all_claims(
    claim: Claim, photos: Files, listings: Files, tmp_path: Path
) -> None:
    log = EvidenceLog(tmp_path / "all.jsonl")
    log.append({"event": "noted"})
    with log.path.open("ab") as file:
        file.write(b'{"event": "evid')
    folder = write_evidence(claim, photos, listings, tmp_path / "C-1", log=log).parent
    assert verify_evidence(folder, log=log.path).problems == ()
    assert [entry["event"] for entry in log.verify().entries] == [
        "noted",
        "recovered",
        "evidence_written",
    ]


def test_verify_notes_that_the_clock_ran_backwards(folder: Path) -> None:
    assert verify_evidence(folder).notes == ()
    log = EvidenceLog(folder / "log.jsonl")
    (before,) = log.verify().entries
    later = {key: value for key, value in before.items() if key != "hash"} | {
        "time": "2999-01-01T00:00:00.000+00:00"
    }
    log.path.write_text(canonical(later | {"hash": entry_hash(later)}) + "\n")
    log.append({"event": "noted"})
    report = verify_evidence(folder)
    assert report.passed
    (note,) = report.notes
    assert note.startswith(f"{log.path}, line 2: its time is before")


def test_photos_that_are_not_the_claims_are_refused(
    claim: Claim, photos: Files, listings: Files, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="not those that the claim was judged by"):
        write_evidence(claim, photos[::-1], listings, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_photo_of_an_earlier_claim_and_one_sent_twice(
    detector: Detector, claim_photo: Photo, tmp_path: Path
) -> None:
    with ClaimIndex.open(tmp_path / "claims.sqlite") as index:
        first = judge_claim(
            [("a.jpg", claim_photo(1))], detector=detector, claim_id="C-1", index=index
        )
        assert first.recommendation == "approve"
        again = judge_claim(
            [("a.jpg", claim_photo(1))], detector=detector, claim_id="C-1", index=index
        )
        assert again.recommendation == "approve"
        twice = [("a.jpg", claim_photo(4)), ("a.jpg", claim_photo(4, quality=50))]
        claim = judge_claim(twice, detector=detector, claim_id="C-2", index=index)
        assert claim.recommendation == "approve"
        assert [photo.name for photo in claim.photos] == ["a.jpg", "a.jpg (2)"]
        assert [(one.photo, one.of) for one in claim.photos[1].duplicates] == [
            ("a.jpg (2)", "a.jpg")
        ]
        assert claim.reasons[0].code == "repeated_in_claim"
        reused = [("b.jpg", claim_photo(5)), ("c.jpg", claim_photo(1, quality=60))]
        claim = judge_claim(reused, detector=detector, claim_id="C-3", index=index)
        assert claim.recommendation == "escalate"
        assert claim.photos[1].duplicates[0].claim_id == "C-1"
        assert claim.photos[0].duplicates == ()


def test_claims_that_cannot_be_judged(detector: Detector, claim_photo: Photo) -> None:
    photo = ("a.jpg", claim_photo(1))
    with pytest.raises(
        PhotoError, match=r"none of the claim's 2 photos could be read; the first: a\.jpg: "
    ):
        judge_claim([("a.jpg", b"no photo"), ("b.jpg", b"")], detector=detector)
    with pytest.raises(UsageError, match="at least one photo"):
        judge_claim([], detector=detector)
    with pytest.raises(
        UsageError, match=r"21 photos, the policy 'default' takes at most 20.*photos\.at_most"
    ):
        judge_claim([photo] * 21, detector=detector)
    with pytest.raises(UsageError, match=r"11 listing photos.*photos\.listings_at_most"):
        judge_claim([photo], detector=detector, listings=[photo] * 11)
    with pytest.raises(UsageError, match="20001 characters"):
        judge_claim([photo], detector=detector, text="x" * 20_001)
    for wrong in ("", " ", "a\nb", "x" * 121, "a\u202eb"):
        with pytest.raises(UsageError, match="claim_id"):
            judge_claim([photo], detector=detector, claim_id=wrong)


def test_a_listing_photo_that_cannot_be_read_is_left_out(
    detector: Detector, claim_photo: Photo
) -> None:
    listings = [("broken.jpg", b"\xff\xd8\xff"), ("whole.jpg", claim_photo(2))]
    claim = judge_claim([("a.jpg", claim_photo(1))], detector=detector, listings=listings)
    assert [name for name, _ in claim.photos[0].comparisons] == ["whole.jpg"]
    assert claim.listings[0].error.startswith("broken.jpg: ")
    assert "listing_unreadable" in [reason.code for reason in claim.reasons]


def test_another_way_of_judging_a_photo(detector: Detector, claim_photo: Photo) -> None:
    judged: list[str] = []

    def batched(photo: Any) -> Any:
        judged.append(photo.sha256)
        return replace(detector.predict_photo(photo), outcome="synthetic")

    claim = judge_claim(
        [("a.jpg", claim_photo(1))],
        detector=detector,
        verdicts=batched,
        policy=ClaimPolicy.default(),
    )
    assert judged == [claim.photos[0].sha256]
    assert claim.reasons[0].code == "verdict_synthetic"
    assert claim.claim_id.startswith("claim-20")


def test_names_that_would_mislead_are_cleaned(
    detector: Detector, claim_photo: Photo, tmp_path: Path
) -> None:
    names = ["a\u202egpj.exe", "line\nbreak.jpg", "\udc80.jpg", "", "x" * 300 + ".jpg"]
    photos = [(name, claim_photo(seed)) for seed, name in enumerate(names)]
    claim = judge_claim(photos, detector=detector)
    assert [photo.name for photo in claim.photos[:4]] == [
        "agpj.exe",
        "linebreak.jpg",
        ".jpg",
        "photo 4",
    ]
    assert len(claim.photos[4].name) == 120
    folder = write_evidence(claim, photos, (), tmp_path / "evidence").parent
    assert verify_evidence(folder).passed


def test_the_prior_that_probabilities_were_weighted_to_is_recorded(
    detector: Detector, claim: Claim, claim_photo: Photo, tmp_path: Path
) -> None:
    rare = Detector(
        detector._scorer, detector.metadata, graph_sha256=detector.graph_sha256, prior=0.01
    )
    files = [("red.jpg", claim_photo(2, red=True))]
    other = judge_claim(files, detector=rare)
    assert (claim.model["prior"], other.model["prior"]) == (None, 0.01)
    usual, weighted = claim.photos[1].verdict, other.photos[0].verdict
    assert usual is not None
    assert weighted is not None
    assert (weighted.score, weighted.outcome) == (usual.score, usual.outcome)
    assert (weighted.probability or 0) < (usual.probability or 0)
    page = write_evidence(other, files, [], tmp_path / "evidence").read_text(encoding="utf-8")
    jsonschema.validate(
        json.loads((tmp_path / "evidence" / "evidence.json").read_text(encoding="utf-8")), schema()
    )
    assert "0.01 of the photos synthetic" in page


def test_the_list_that_signers_were_checked_against_is_recorded(
    detector: Detector, claim_photo: Photo, signing: Any, tmp_path: Path
) -> None:
    (tmp_path / "anchors.pem").write_text(signing.authority)
    anchors = TrustAnchors.read(tmp_path / "anchors.pem")
    photos = [("signed.jpg", signing.sign("trainedAlgorithmicMedia", data=claim_photo(2)))]
    claim = judge_claim(photos, detector=detector, trust_anchors=anchors)
    (reason,) = [reason for reason in claim.reasons if reason.code == "declared_ai_generated"]
    assert "an authority on your list vouches for this name" in reason.sentence
    assert "no trusted signature vouches" not in reason.sentence
    page = write_evidence(claim, photos, [], tmp_path / "evidence")
    values = read(page.parent)
    assert values["photos"][0]["provenance"]["trust_anchors_sha256"] == anchors.sha256
    jsonschema.validate(values, schema())
    assert f"<dt>Trust list</dt><dd><code>{anchors.sha256}</code>" in page.read_text(
        encoding="utf-8"
    )
    claim = judge_claim(photos, detector=detector)
    (reason,) = [reason for reason in claim.reasons if reason.code == "declared_ai_generated"]
    assert "no trusted signature vouches for it" in reason.sentence
    page = write_evidence(claim, photos, [], tmp_path / "without")
    jsonschema.validate(read(page.parent), schema())
    assert "Trust list" not in page.read_text(encoding="utf-8")


def test_photos_of_another_product_are_not_approved(
    detector: Detector, claim_photo: Photo, tmp_path: Path
) -> None:
    box, jacket = [("box.jpg", claim_photo(7))], [("jacket.jpg", claim_photo(8, size=(640, 480)))]
    claim = judge_claim(box, detector=detector, listings=jacket)
    assert claim.recommendation == "ask_photo"
    assert [reason.code for reason in claim.reasons][:2] == [
        "no_photo_matches_listing",
        "listing_unrelated",
    ]
    page = write_evidence(claim, box, jacket, tmp_path / "evidence")
    jsonschema.validate(read(page.parent), schema())
    assert claim.message_to_buyer["zh"] in page.read_text(encoding="utf-8")
    assert claim.message_to_buyer["zh"] in format_claim(claim).replace("\n    ", "")


def test_a_signature_that_broke_goes_to_review(
    detector: Detector, claim_photo: Photo, signing: Any
) -> None:
    signed = bytearray(signing.sign("trainedAlgorithmicMedia", data=claim_photo(2)))
    signed[-40] ^= 1
    claim = judge_claim([("signed.jpg", bytes(signed))], detector=detector)
    assert (claim.recommendation, claim.reasons[0].code) == ("review", "credentials_broken")
    assert "assertion.dataHash.mismatch" in claim.reasons[0].sentence


def test_a_photo_with_too_many_pixels_fails_alone(detector: Detector, claim_photo: Photo) -> None:
    small, large = ("a.jpg", claim_photo(1)), ("b.jpg", claim_photo(2, size=(401, 360)))
    limit = 400 * 360
    claim = judge_claim(
        [small, large], detector=detector, listings=[large, small], max_pixels=limit
    )
    assert [bool(photo.error) for photo in claim.photos] == [False, True]
    assert "401x360 is 144360 pixels, at most 144000" in claim.photos[1].error
    assert [bool(listing.error) for listing in claim.listings] == [True, False]
    assert [name for name, _ in claim.photos[0].comparisons] == ["a.jpg"]
    with pytest.raises(PhotoError, match="none of the claim's 1 photos"):
        judge_claim([large], detector=detector, max_pixels=limit)
