"""Many claims in one request: which photos belong together, and archives made to harm."""

import io
import random
import struct
import zipfile

import pytest

from realdamage.claims.policy import PhotoRules
from realdamage.service.batches import read_batch
from realdamage.service.schemas import BatchForm, Refusal, Upload
from realdamage.service.settings import Settings

SIZE = (320, 240)
SETTINGS = Settings(max_batch_photos=20, max_batch_bytes=100_000, max_photo_bytes=50_000)


def packed(files, method=zipfile.ZIP_DEFLATED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return data.getvalue()


def claims_in(form):
    """The names of the photos and of the listing photos of each claim, by its order."""
    batch = read_batch(form, SETTINGS, PhotoRules(at_most=18))
    found = {
        form.order_id: tuple([one.name for one in kind] for kind in (form.photos, form.listings))
        for form in batch.forms
    }
    assert len(found) == batch.count
    return found


def of_zip(data):
    return claims_in(BatchForm(archive=[Upload("a.zip", data)]))


NAMES = (
    *("set/A-1/2.jpg", "set/A-1/1.jpg", "set/A-1/listing/s.jpg", "set/订单2/listing_1.png"),
    *("set/订单2/x.png", "B_1.jpg", "B_2.jpg", "B_listing1.jpg", "single.webp"),
)


def test_a_folder_is_a_claim_and_so_is_a_group_of_names():
    unseen = ("__MACOSX/set/A-1/._1.jpg", "set/.DS_Store", "set/A-1/")
    zipped = of_zip(packed(dict.fromkeys([*NAMES, *unseen, "set/notes.txt"], b"x")))
    photos = BatchForm(photos=[Upload(name, b"x") for name in (*NAMES, unseen[1])])
    assert zipped == claims_in(photos)
    assert zipped == {
        "A-1": (["1.jpg", "2.jpg"], ["s.jpg"]),
        "订单2": (["x.png"], ["listing_1.png"]),
        "B": (["B_1.jpg", "B_2.jpg"], ["B_listing1.jpg"]),
        "single": (["single.webp"], []),
    }
    gbk = "订单/照片.jpg".encode("gbk")  # as Chinese Windows writes it
    data = packed({"d" * len(gbk): b"x"}).replace(b"d" * len(gbk), gbk)
    assert of_zip(data) == {"订单": (["照片.jpg"], [])}


def test_an_id_is_the_folders_name_or_made_of_it():
    files = [Upload("A-1/1.jpg", b"x"), Upload("订单2/1.jpg", b"x"), Upload("=x/1.jpg", b"x")]

    def ids():
        return [
            one.claim_id
            for one in read_batch(BatchForm(photos=files), SETTINGS, PhotoRules()).forms
        ]

    first = ids()
    assert first[1] == "A-1"
    assert len(set(first)) == 3
    assert first == ids(), "so that a batch that is sent again makes no second claims"


def encrypted(data):
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data = data[:at] + bytes([data[at] | 1]) + data[at + 1 :]
    return data


def link():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        info = zipfile.ZipInfo("A/1.jpg")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return data.getvalue()


def spoilt(data):
    at = data.index(b"content")
    return data[:at] + b"CONTENT" + data[at + 7 :]


def understated():
    """A bomb that says it holds 9 bytes."""
    size = 40_000
    data = packed({f"A/{number}.jpg": bytes(size) for number in range(8)})
    return data.replace(struct.pack("<I", size), struct.pack("<I", 9))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"no zip at all", "archive_unreadable"),
        (packed({}), "batch_empty"),
        (packed({"A\\..\\..\\1.jpg": b"x"}), "batch_path"),
        (link(), "batch_path"),
        (encrypted(packed({"A/1.jpg": b"x"})), "archive_encrypted"),
        (packed({"A/1.jpg": b"x", "A/more.zip": packed({"1.jpg": b"x"})}), "batch_nested"),
        (packed({"A/1.jpg": packed({"1.jpg": b"x"})}), "batch_nested"),
        (packed({"A/1.jpg": bytes(60_000)}), "too_large"),
        (packed({f"A/{number}.jpg": bytes(40_000) for number in range(8)}), "archive_too_large"),
        (understated(), "archive_damaged"),
        (packed({f"{number}/1.jpg": b"" for number in range(21)}), "batch_too_many"),
        (packed({"A/listing/1.jpg": b"x"}), "batch_without_photos"),
        (packed({"x/A/1.jpg": b"x", "y/A/1.jpg": b"x"}), "batch_same_name"),
        (packed({"A/1.jpg": b"x"}, zipfile.ZIP_LZMA), "archive_unreadable"),
        (spoilt(packed({"A/1.jpg": b"content"}, zipfile.ZIP_STORED)), "archive_damaged"),
        (packed({f"A/{number}.jpg": b"x" for number in range(19)}), "too_many_photos"),
    ],
)
def test_an_archive_made_to_harm_is_refused(data, code):
    with pytest.raises(Refusal) as caught:
        of_zip(data)
    assert caught.value.code == code
    assert caught.value.status_code in (413, 422)


def test_mutants_of_a_zip_are_read_or_refused():
    draw = random.Random(7)
    data = packed({"A/1.jpg": b"x" * 300, "A/listing/2.jpg": b"y", "B_1.png": b"z"})
    counts = {"read": 0, "refused": 0}
    for _ in range(600):
        mutant = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        try:
            of_zip(bytes(mutant))
            counts["read"] += 1
        except Refusal:
            counts["refused"] += 1
    assert min(counts.values()) > 0


def test_a_batch_becomes_cases(serve, encode, tmp_path, wait_until):
    client = serve(store=tmp_path / "store")
    photos = {name: encode(size=SIZE, seed=seed) for seed, name in enumerate(("A/1.jpg", "B.jpg"))}
    zipped = packed({**photos, "C/1.jpg": b"no photo", "read.me": b""})

    def send(**fields):
        sent = [("archive", ("claims.zip", zipped))]
        answer = client.post("/v1/batches", files=sent, data=fields)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def jobs(batch):
        found = [client.get(one["url"]).json() for one in batch["claims"]]
        return {one["claim_id"]: one for one in found}

    damaged = packed({"A/1.jpg": encode(), "B/1.jpg": b"content"}, zipfile.ZIP_STORED)
    refused = client.post("/v1/batches", files=[("archive", ("a.zip", spoilt(damaged)))])
    assert refused.json()["error"]["code"] == "archive_damaged"
    assert client.get("/v1/claims").json()["total"] == 0, "all or nothing"
    assert list((tmp_path / "store" / "jobs").iterdir()) == []
    batch = send(merchant="North Shop")
    assert batch["ignored"] == ["read.me"]
    wait_until(lambda: all(one["status"] != "running" for one in jobs(batch).values()))
    found = jobs(batch)
    assert [found[name]["status"] for name in "ABC"] == ["done", "done", "failed"]
    assert found["C"]["error"]["code"] == "unreadable_photo"
    cases = {one["claim_id"]: one for one in client.get("/v1/claims").json()["cases"]}
    assert set(cases) == {"A", "B"}
    assert (cases["A"]["order_id"], cases["A"]["merchant"]) == ("A", "North Shop")
    again = jobs(send())
    assert [again[name]["error"]["code"] for name in "AB"] == ["claim_exists"] * 2
    assert list((tmp_path / "store" / "jobs").glob(".*")) == []
    empty = client.post("/v1/batches", files=[("merchant", (None, "x"))])
    assert (empty.status_code, empty.json()["error"]["code"]) == (422, "missing_field")
    too_long = client.post("/v1/batches", content=b"", headers={"Content-Length": "9999999999"})
    assert too_long.status_code == 413
