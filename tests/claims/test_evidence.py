"""A claim from its photos to a folder of evidence, and what `verify` finds when somebody touches
it."""

import base64
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from PIL import Image

from realdamage.claims import (
    ClaimIndex,
    EvidenceLog,
    judge_claim,
    schema,
    verify_evidence,
    write_evidence,
)
from realdamage.core import tiles
from realdamage.core.detector import Detector
from realdamage.errors import PhotoError, RealDamageError, UsageError
from realdamage.provenance import TrustAnchors

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def painted(claim_photo):
    """The listing's photo with a dark blot, saved again, its file full of markup and with a
    position."""
    with Image.open(io.BytesIO(claim_photo(1, size=(640, 480), quality=92))) as image:
        rgb = np.asarray(image).copy()
    rgb[150:230, 250:350] = (20, 15, 10)
    exif = Image.Exif()
    exif[0x010F] = SCRIPT
    where = ("N", (31.0, 14.0, 15.93), "E", (121.0, 28.0, 24.71))
    exif.get_ifd(0x8825).update(enumerate(where, start=1))
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, format="JPEG", quality=85, exif=exif)
    return data.getvalue()


@pytest.fixture(scope="module")
def photos(claim_photo, painted):
    return [
        (f"{SCRIPT}.jpg", painted),
        ("red.jpg", claim_photo(2, red=True)),
        ("cut.jpg", claim_photo(3)[:3000]),
    ]


@pytest.fixture(scope="module")
def listings(claim_photo):
    return [("listing.jpg", claim_photo(1, size=(640, 480), quality=92))]


@pytest.fixture(scope="module")
def claim(detector, photos, listings):
    return judge_claim(
        photos, detector=detector, listings=listings, text=f"它裂了。{SCRIPT}", claim_id="C-1"
    )


@pytest.fixture(scope="module")
def written(claim, photos, listings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("claim") / "evidence"
    return write_evidence(claim, photos, listings, folder, keep_originals=True).parent


@pytest.fixture
def folder(written, tmp_path):
    """The evidence of the claim, to be touched."""
    return shutil.copytree(written, tmp_path / "evidence")


def read(folder):
    return json.loads((folder / "evidence.json").read_bytes())


def test_every_photo_is_looked_at_and_one_fails_alone(claim, photos):
    assert claim.recommendation == "escalate"
    assert [reason.code for reason in claim.reasons] == [
        "same_capture_changed",
        "verdict_synthetic",
        "photo_unreadable",
        "listing_unrelated",
        "no_promise",
    ]
    digests = [hashlib.sha256(data).hexdigest() for _, data in photos]
    assert [photo.sha256 for photo in claim.photos] == digests
    first, red, cut = claim.photos
    assert first.verdict is not None
    assert first.verdict.outcome == "real"
    ((name, compared),) = first.comparisons
    assert (name, compared.outcome) == ("listing.jpg", "same_capture")
    (change,) = compared.changes
    assert np.abs(np.subtract(change.box, (250, 150, 350, 230))).max() <= 16
    assert red.verdict is not None
    assert red.verdict.outcome == "synthetic"
    assert (cut.verdict, cut.provenance, cut.comparisons) == (None, None, ())
    assert claim.model["thresholds"]["t_synthetic"] == 1.0


def test_the_json_is_what_its_schema_says(folder, claim):
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    values, small = read(folder), claim.to_dict(heatmaps=False)
    validator.validate(values)
    validator.validate(small)
    assert small["photos"][0]["comparisons"][0]["change_map"] is None
    assert values["photos"][0]["verdict"]["heatmap"] is not None
    assert values["photos"][0]["provenance"]["camera"]["gps"] is True
    assert set(values) == set(schema()["properties"])
    for wrong in ({"recommendation": "refuse"}, {"schema_version": 2}, {"photos": []}):
        assert not validator.is_valid(values | wrong)
    del values["policy"]["rules"]["verdict_synthetic"]
    assert not validator.is_valid(values)


def test_the_page_runs_nothing_loads_nothing_and_keeps_no_metadata(folder, claim):
    page = (folder / "evidence.html").read_text(encoding="utf-8")
    elements = re.findall(r"<\w[^>]*>", re.sub('"[^"]*"', '""', page))
    assert not [one for one in elements if re.match(r"<(script|link|iframe|object|b|form)\b", one)]
    assert not [one for one in elements if re.search(r"\s(on\w+|href)\s*=", one)]
    assert not [loads for loads in ("url(", "@import") if loads in page]
    assert "default-src 'none'" in page
    # The file's name, its EXIF and the text, all escaped.
    assert page.count("&lt;script&gt;alert(1)") >= 3
    sources = re.findall('<img src="([^"]*)"', page)
    assert len(sources) == 5  # two photos, their heat maps, one comparison
    for source in sources:
        data = base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))
        with Image.open(io.BytesIO(data)) as picture:
            assert not picture.getexif()
            assert max(picture.size) <= 1440
    assert len(page) < 1_500_000
    for text in claim.message_to_buyer.values():
        assert text.replace("'", "&#39;") in page
    for name in ("evidence.json", "evidence.html", "log.jsonl"):
        text = re.sub(r"base64,[^\"]*", "", (folder / name).read_text(encoding="utf-8"))
        assert not [part for part in ("15.93", "24.71", "31.23") if part in text]


def test_verify_says_what_it_checked_and_proves(folder, photos, listings):
    kept = read(folder)["originals"]
    names = ["photo-01.jpg", "photo-02.jpg", "photo-03.jpg", "listing-01.jpg"]
    assert kept == [f"originals/{name}" for name in names]
    given = [data for _, data in [*photos, *listings]]
    assert [(folder / name).read_bytes() for name in kept] == given
    report = verify_evidence(folder)
    assert (report.problems, report.notes) == ((), ())
    assert len(report.checked) == 1 + 6 + 4  # the chain, six files, four originals of the claim
    anchored = verify_evidence(folder, head=report.head, photos=[("mine.jpg", photos[0][1])])
    assert anchored.passed
    assert anchored.proves != report.proves
    assert any(line.startswith("mine.jpg: ") for line in anchored.checked)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("evidence.json", b"{", "evidence.json: is not JSON"),
        ("evidence.html", b"other", "evidence.html: was changed"),
        ("originals/photo-02.jpg", b"other", "photo-02.jpg: is not a photo of the claim"),
        ("evidence.json", None, "evidence.json: is missing"),
        ("log.jsonl", None, "log.jsonl: is missing"),
        ("log.jsonl", b"", "log.jsonl: has no entry"),
    ],
)
def test_what_was_touched_is_named(folder, name, content, named):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    report = verify_evidence(folder)
    assert not report.passed
    assert any(named in problem for problem in report.problems), report.problems
    assert report.proves == ()


def test_evidence_that_replaced_older_evidence_is_found_by_a_head(folder, claim, photos, listings):
    head = verify_evidence(folder).head
    other = replace(claim, recommendation="approve", reasons=())
    write_evidence(other, photos, listings, folder, overwrite=True)
    assert not (folder / "originals").exists()
    report = verify_evidence(folder, head=head)
    assert (report.passed, report.entries, len(report.notes)) == (True, 2, 1)
    assert verify_evidence(folder, head=report.head).notes == ()
    shutil.rmtree(folder)
    write_evidence(other, photos, listings, folder)
    assert head[:16] in verify_evidence(folder, head=head).problems[0]
    assert [path.name for path in folder.parent.glob("*evidence*")] == ["evidence"]


def test_other_files_in_the_folder_and_forged_logs(folder, claim_photo, tmp_path):
    (folder / "more.txt").write_text("added later")
    report = verify_evidence(folder, photos=[("other.jpg", claim_photo(9))])
    assert len(report.notes) == 1
    assert "more.txt" in report.notes[0]
    assert report.problems[0].startswith("other.jpg: ")
    (tmp_path / "secret").write_text("x")
    (folder / "log.jsonl").unlink()
    forged = {"event": "evidence_written", "files": {"../secret": "0" * 64}}
    EvidenceLog(folder / "log.jsonl").append(forged)
    problems = verify_evidence(folder).problems
    assert any("does not cover ../secret" in problem for problem in problems)
    for place, wrong in (
        (folder, {"head": "z" * 64}),
        (folder, {"log": tmp_path / "none.jsonl"}),
        (tmp_path / "none", {}),
    ):
        with pytest.raises(UsageError):
            verify_evidence(place, **wrong)


def test_nothing_but_evidence_is_replaced(folder, claim, photos, listings, tmp_path, monkeypatch):
    def refused(where, *, overwrite=False, given=photos):
        with pytest.raises(RealDamageError) as caught:
            write_evidence(claim, given, listings, where, overwrite=overwrite)
        return caught.value.code

    before, file = (folder / "evidence.json").read_bytes(), folder / "evidence.html"
    assert refused(folder) == "not_empty"
    assert refused(folder / "originals", overwrite=True) == "not_evidence"
    assert refused(file) == "usage"
    (folder / "notes.txt").write_text("mine")
    assert refused(folder, overwrite=True) == "not_evidence"
    assert (folder / "evidence.json").read_bytes() == before
    assert refused(tmp_path / "new", given=photos[::-1]) == "other_photos"

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert refused(tmp_path / "new") == "cannot_write"
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


def test_one_log_over_all_claims(claim, photos, listings, tmp_path):
    log = EvidenceLog(tmp_path / "all.jsonl")
    log.append({"event": "noted"})
    with log.path.open("ab") as file:
        file.write(b'{"event": "evid')  # torn by a power loss
    for number in (1, 2):
        one = replace(claim, claim_id=f"C-{number}")
        write_evidence(one, photos, listings, tmp_path / one.claim_id, log=log)
    report = verify_evidence(tmp_path / "C-2", log=log.path, head=log.head)
    assert report.passed
    assert (report.entries, report.head) == (4, log.head)
    (tmp_path / "C-2" / "evidence.html").write_text("another page")
    problems = verify_evidence(tmp_path / "C-2", log=log.path).problems
    assert any("all.jsonl" in problem for problem in problems)
    other = EvidenceLog(tmp_path / "other.jsonl")
    other.append({"event": "noted"})
    problems = verify_evidence(tmp_path / "C-1", log=other.path).problems
    assert problems[0].endswith("(claim C-1)")
    inside = EvidenceLog(tmp_path / "D" / "log.jsonl")
    with pytest.raises(UsageError):
        write_evidence(claim, photos, listings, tmp_path / "D", log=inside)


def test_claims_that_cannot_be_judged(detector, claim_photo):
    photo = ("a.jpg", claim_photo(1))

    def refused(photos, **options):
        with pytest.raises(UsageError) as caught:
            judge_claim(photos, detector=detector, **options)
        return caught.value.code

    with pytest.raises(PhotoError):
        judge_claim([("a.jpg", b"no photo"), ("b.jpg", b"")], detector=detector)
    assert refused([]) == "no_photos"
    assert refused([photo] * 21) == refused([photo], listings=[photo] * 11) == "too_many_photos"
    assert refused([photo], text="x" * 20_001) == "text_too_long"
    for wrong in ("", "x" * 121, "a\u202eb"):
        assert refused([photo], claim_id=wrong) == "claim_id"


def test_a_claim_photo_is_decoded_once_and_names_are_cleaned(
    detector, claim_photo, tmp_path, monkeypatch
):
    opened = []
    decode = tiles.decode_contents
    monkeypatch.setattr(
        tiles, "decode_contents", lambda *given: opened.append(given[1]) or decode(*given)
    )
    names = ["a\u202egpj.exe", "line\nbreak.jpg", "linebreak.jpg", "", "x" * 300 + ".jpg"]
    photos = [(name, claim_photo(seed, size=(160, 120))) for seed, name in enumerate(names)]
    listings = [*photos[:2], ("cut.jpg", photos[0][1][:900])]
    with ClaimIndex.open(tmp_path / "claims.sqlite") as index:
        claim = judge_claim(photos, detector=detector, listings=listings, index=index)
    shown = [photo.name for photo in claim.photos]
    assert shown[:4] == ["agpj.exe", "linebreak.jpg", "linebreak.jpg (2)", "photo 4"]
    assert len(shown[4]) == 120
    assert opened == [*shown, *["listing photo"] * 3]
    assert [bool(listing.error) for listing in claim.listings] == [False, False, True]
    assert claim.claim_id.startswith("claim-20")
    folder = write_evidence(claim, photos, listings, tmp_path / "evidence").parent
    assert verify_evidence(folder).passed


def test_the_prior_and_the_trust_list_are_recorded(detector, claim_photo, signing, tmp_path):
    (tmp_path / "anchors.pem").write_text(signing.authority)
    anchors = TrustAnchors.read(tmp_path / "anchors.pem")
    rare = Detector(detector._scorer, detector.metadata, prior=0.01)
    signed = signing.sign("trainedAlgorithmicMedia", data=claim_photo(2, red=True))
    for prior, judge, listed in ((None, detector, None), (0.01, rare, anchors)):
        photos = [("signed.jpg", signed)]
        claim = judge_claim(photos, detector=judge, trust_anchors=listed)
        assert claim.model["prior"] == prior
        (reason,) = [one for one in claim.reasons if one.code == "declared_ai_generated"]
        templates = {one.template for one in reason.phrases}
        assert ("nobody_vouches" in templates) == (listed is None)
        page = write_evidence(claim, photos, [], tmp_path / f"evidence-{prior}")
        provenance = read(page.parent)["photos"][0]["provenance"]
        assert provenance["trust_anchors_sha256"] == (anchors.sha256 if listed else "")
        assert (anchors.sha256 in page.read_text(encoding="utf-8")) == (listed is not None)
    broken = bytearray(signed)
    broken[-40] ^= 1
    claim = judge_claim([("signed.jpg", bytes(broken))], detector=detector)
    assert "credentials_broken" in [reason.code for reason in claim.reasons]
