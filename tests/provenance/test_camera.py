"""What EXIF says of the camera, and whether the small picture in the file still shows the photo."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from realdamage.provenance import read_provenance
from realdamage.provenance.exif import read_exif


def encode(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture
def photo(photo_factory: Any) -> Image.Image:
    return Image.fromarray(photo_factory(480, 640, 0))


def state(files: Any, shown: Image.Image, small: Image.Image, orientation: int = 1) -> str:
    structure = files.tiff({0x0112: bytes([orientation, 0])}, small=encode(small, 60))
    segment = files.exif_jpeg(structure)[2:][: len(structure) + 10]
    data = encode(shown, 90)
    return read_provenance(data[:2] + segment + data[2:]).camera.thumbnail


def test_a_thumbnail_of_the_photo_matches(files: Any, photo: Image.Image) -> None:
    small = photo.resize((160, 120), Image.Resampling.LANCZOS)
    assert state(files, photo, small) == "matches"
    assert state(files, photo, ImageEnhance.Sharpness(small).enhance(3)) == "matches"
    assert state(files, ImageEnhance.Brightness(photo).enhance(0.8), small) == "matches"
    assert state(files, photo, small, orientation=6) == "matches"
    assert state(files, photo.transpose(Image.Transpose.ROTATE_90), small) == "matches"


def test_bars_and_a_cut_thumbnail_match(files: Any, photo: Image.Image) -> None:
    wide = photo.crop((0, 60, 640, 420))
    assert state(files, wide, ImageOps.pad(wide, (160, 120), color="black")) == "matches"
    assert state(files, wide, ImageOps.fit(wide, (160, 120))) == "matches"
    assert state(files, wide, ImageOps.pad(wide, (160, 120), color="white")) == "differs"


def test_an_edited_photo_differs(files: Any, photo: Image.Image) -> None:
    small = photo.resize((160, 120), Image.Resampling.LANCZOS)
    rgb = np.asarray(photo).copy()
    rgb[200:290, 300:400] = 255 - rgb[200:290, 300:400] // 4
    rgb[200:290, 300:350] = 0
    assert state(files, Image.fromarray(rgb), small) == "differs"
    assert state(files, photo.crop((200, 150, 520, 390)), small) == "differs"
    assert state(files, ImageOps.mirror(photo), small) == "differs"
    found = state(files, photo, Image.new("RGB", (160, 120), "grey"))
    assert found == "differs"


def test_the_pixel_limit_holds_for_thumbnail_and_photo(files: Any) -> None:
    def found(thumbnail: bytes, max_pixels: int = 10**8) -> str:
        segment = files.exif_jpeg(files.tiff({}, small=thumbnail))[2 : -len(files.plain_jpeg) + 2]
        data = files.plain_jpeg[:2] + segment + files.plain_jpeg[2:]
        return read_provenance(data, max_pixels=max_pixels).camera.thumbnail

    assert found(files.plain_jpeg) == "matches"
    assert found(files.plain_jpeg, 48 * 32 - 1) == "none"
    assert found(files.picture("PNG")) == found(b"\xff\xd8\xff\xe0 no picture") == "none"
    larger = files.picture("JPEG", 96, 64)
    assert found(larger, 96 * 64) == "differs"
    assert found(larger, 96 * 64 - 1) == "none"


def test_facts_and_no_position(files: Any) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Apple", "iPhone 15\x1b[31m", "17.4"
    exif.get_ifd(0x8769).update({0x9003: "2026:01:31 12:30:00", 0x9011: "+02:00"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5), 3: "E", 4: (13.0, 24.0, 18.0)})
    found = read_provenance(files.jpeg((0xE1, exif.tobytes())))
    camera = found.camera
    assert (camera.make, camera.model, camera.software) == ("Apple", "iPhone 15 [31m", "17.4")
    assert (camera.taken, camera.gps) == ("2026-01-31T12:30:00+02:00", True)
    assert "52" not in str(found.to_dict()).replace(found.photo_sha256, "")


def test_empty_positions_times_and_both_byte_orders(files: Any) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({0: b"\x02\x03\x00\x00"})
    assert not read_provenance(files.jpeg((0xE1, exif.tobytes()))).camera.gps
    assert read_exif(files.tiff({}, {0x9003: b"0000:00:00 noon   \x00"})).taken == ""
    for order in "<>":
        comment = {0x9286: b"ASCII\x00\x00\x00hello"}
        found = read_exif(files.tiff({0x010F: b"Maker\x00"}, comment, order))
        assert found.texts == {"Make": "Maker", "UserComment": "hello"}
