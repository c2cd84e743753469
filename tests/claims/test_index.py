"""The index of earlier claims: what counts as the same photo, and what is kept of it."""

import hashlib
import io
import sqlite3

import numpy as np
import pytest
from PIL import Image

from realdamage.claims import index as index_module
from realdamage.claims.database import BANDS, Database
from realdamage.claims.index import FINE_RADIUS, ClaimIndex, Fingerprint, _near, take_fingerprint
from realdamage.core.fingerprint import PhotoHash
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import RealDamageError, UsageError

SEEN = "2026-01-02T03:04:05+00:00"


class Index(ClaimIndex):
    """The index over the bytes of photos."""

    def add(self, claim_id, *photos, seen=None):
        return self.add_fingerprints(claim_id, map(taken, photos), seen=seen)

    def find(self, photo, **options):
        return self.find_fingerprint(taken(photo), **options)


def taken(data):
    photo = read_photo(data, PixelSpec())
    return take_fingerprint(photo.rgb, photo.sha256)


@pytest.fixture
def index(tmp_path, database_url):
    return Index(Database(database_url or tmp_path / "claims.sqlite"))


@pytest.fixture(scope="module")
def known(claim_photo):
    """An index of six photos of C-1; tests must not change it."""
    found = Index(Database(None))
    found.add("C-1", *map(claim_photo, range(1, 7)), seen=SEEN)
    return found


def changed(data, change, **save):
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        change(image).save(out, **({"format": "JPEG", "quality": 85} | save))
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "save", "mirrored"),
    [
        (lambda image: image, {"quality": 30}, False),
        (lambda image: image, {"format": "PNG"}, False),
        (lambda image: image.resize((200, 180)), {}, False),
        (lambda image: image.point(lambda value: min(255, int(value * 1.15))), {}, False),
        (lambda image: image.crop((4, 4, 396, 356)), {}, False),
        (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), {}, True),
    ],
    ids=["quality", "format", "half", "brighter", "crop", "mirrored"],
)
def test_a_photo_is_found_again_after(known, claim_photo, change, save, mirrored):
    (found,) = known.find(changed(claim_photo(2), change, **save), name="mine.jpg")
    assert (found.photo, found.of, found.claim_id) == ("mine.jpg", "photo 2", "C-1")
    assert (found.exact, found.mirrored, found.seen) == (False, mirrored, SEEN)
    assert 0 <= found.distance <= 32


def test_other_photos_are_not_found(known, claim_photo):
    assert [known.find(claim_photo(seed)) for seed in range(100, 106)] == [()] * 6


def test_plain_surfaces_match_by_their_bytes_only(index):
    def wall(seed):
        rgb = np.full((360, 400, 3), (90, 120, 170)) + np.random.default_rng(seed).normal(
            0, 0.6 * seed, (360, 400, 3)
        )
        out = io.BytesIO()
        Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(out, format="JPEG", quality=80)
        return out.getvalue()

    index.add("C-1", wall(0), wall(1))
    assert index.find(changed(wall(0), lambda image: image, quality=70)) == ()
    assert index.find(wall(2)) == ()
    assert [found.exact for found in index.find(wall(1))] == [True]


@pytest.mark.databases
def test_a_claim_is_put_in_once_does_not_find_itself_and_is_forgotten(index, claim_photo):
    first, second = claim_photo(1), claim_photo(2)
    assert index.add("C-1", first, seen=SEEN) == 1
    assert index.add("C-1", first, second) == 1
    assert len(index) == 2
    assert index.find(first, other_than="C-1") == ()
    index.add("C-2", first)
    (found,) = index.find(first, other_than="C-2")
    assert (found.claim_id, found.seen, found.exact, found.distance) == ("C-1", SEEN, True, 0)
    assert [found.of for found in index.find(second)] == ["photo 2"]
    assert index.delete("C-1") == 2
    assert index.delete("C-1") == 0
    assert [found.claim_id for found in index.find(first)] == ["C-2"]
    index.add("C-3", first, seen="2020-01-01T00:00:00+00:00")
    assert index.purge(older_than_days=365) == 1
    assert [found.claim_id for found in index.find(first)] == ["C-2"]


def test_a_purge_lets_others_write_in_between(index, monkeypatch):
    for number in range(5):
        seen = SEEN if number == 4 else "2020-01-01T00:00:00+00:00"
        index.add_fingerprints(f"C-{number}", [hashed(bytes([number]) * 32, number)], seen=seen)
    left = []
    transaction = Database.transaction

    def watched(database):
        left.append(len(index))
        return transaction(database)

    monkeypatch.setattr(Database, "transaction", watched)
    monkeypatch.setattr(index_module, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(index_module, "_CHUNK_S", 1e-9)
    assert index.purge(1000) == 4
    assert left == [5, 4, 3, 2, 1]


def test_pixels_are_not_kept(index, claim_photo):
    data = claim_photo(1)
    index.add("C-1", data)
    index.close()
    folder = index.database.path.parent
    stored = b"".join(path.read_bytes() for path in folder.glob("claims.sqlite*"))
    assert b"C-1" in stored
    assert data[200:232] not in stored
    query = "SELECT length(thumbnail) + length(fine) FROM photos"
    assert sqlite3.connect(index.database.path).execute(query).fetchall() == [(800,)]


def hashed(fine, coarse):
    """A photo of these hashes; its mirror is far away."""
    small = np.full(768, 768**-0.5, np.float32)
    found = PhotoHash(np.uint64(coarse), np.frombuffer(fine, "<u8").astype(np.uint64), small)
    mirror = found._replace(coarse=~found.coarse, fine=~found.fine)
    return Fingerprint(hashlib.sha256(fine + b"%d" % coarse).hexdigest(), found, mirror)


def flipped(fine, bits):
    changed = bytearray(fine)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.databases
def test_every_photo_within_the_radius_is_found_and_none_beyond(index):
    """The worst cases first: the bits that differ are spread over all bands."""
    rng = np.random.default_rng(0)
    fine, coarse = rng.bytes(32), int(rng.integers(2**63))
    starts = [8 * (start - 1) for start, _, _ in BANDS]
    spread = [start + bit for bit in range(16) for start in starts]
    sets = [spread[:count] for count in (0, 1, 11, 31, 32, 33)]
    sets += [[*spread[:22], *(start + 7 for start in starts[:10])]]
    sets += [rng.permutation(256)[:count].tolist() for count in (32, 33, 40) for _ in range(40)]
    others = [hashed(flipped(fine, bits), coarse) for bits in sets]
    others += [hashed(fine, coarse ^ bits) for bits in (0xFFF, 0x1FFF)]
    index.add_fingerprints("C-1", others)
    mine = hashed(fine, coarse)
    with index.database.reading() as session:
        found = _near(session, (mine.seen, mine.mirror))
    assert sum(most + 1 for _, _, most in BANDS) > FINE_RADIUS, "pigeonhole"
    expected = {number + 1 for number, bits in enumerate(sets) if len(bits) <= 32}
    assert found == expected | {len(sets) + 1}
    assert len(expected) == 6 + 40


def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be looked at" * 50)
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE orders (id INTEGER)")
    for name, code in (
        ("text.sqlite", "database_unusable"),
        ("other.sqlite", "not_an_index"),
        ("none/claims.sqlite", "usage"),
    ):
        with pytest.raises(RealDamageError) as caught:
            ClaimIndex.open(tmp_path / name)
        assert caught.value.code == code
    with pytest.raises(UsageError):
        ClaimIndex.open(tmp_path / "new.sqlite").purge(float("nan"))
