"""What EXIF says of the camera, and whether the small picture in the file still shows the photo."""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from realdamage.provenance import read_provenance
from realdamage.provenance.exif import read_exif


def encode(image, quality):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def state(files, shown, small, **options):
    """What is said of this thumbnail in this JPEG. orientation: in its EXIF."""
    orientation = {0x0112: bytes([options.pop("orientation", 1), 0])}
    structure = files.tiff(orientation, small=small)
    segment = files.exif_jpeg(structure)[2:][: len(structure) + 10]
    return read_provenance(shown[:2] + segment + shown[2:], **options).camera.thumbnail


def test_a_thumbnail_matches_until_the_photo_is_edited(files, photo_factory):
    photo = Image.fromarray(photo_factory(240, 320, 0))
    small = photo.resize((160, 120), Image.Resampling.LANCZOS)
    wide = photo.crop((0, 30, 320, 210))
    edited = np.asarray(photo).copy()
    edited[100:145, 150:200] = 255 - edited[100:145, 150:200] // 4
    edited[100:145, 150:175] = 0
    cases = {
        "matches": [
            (photo, small),
            (photo, ImageEnhance.Sharpness(small).enhance(3)),
            (ImageEnhance.Brightness(photo).enhance(0.8), small),
            (photo.transpose(Image.Transpose.ROTATE_90), small),
            (wide, ImageOps.pad(wide, (160, 120), color="black")),
            (wide, ImageOps.fit(wide, (160, 120))),
        ],
        "differs": [
            (wide, ImageOps.pad(wide, (160, 120), color="white")),
            (Image.fromarray(edited), small),
            (photo.crop((100, 75, 260, 195)), small),
            (ImageOps.mirror(photo), small),
            (photo, Image.new("RGB", (160, 120), "grey")),
        ],
    }
    for expected, pairs in cases.items():
        for number, (shown, preview) in enumerate(pairs):
            found = state(files, encode(shown, 90), encode(preview, 60))
            assert (found, number) == (expected, number)
    assert state(files, encode(photo, 90), encode(small, 60), orientation=6) == "matches"


def test_the_pixel_limit_holds_for_thumbnail_and_photo(files):
    plain, larger = files.plain_jpeg, files.picture("JPEG", 96, 64)
    assert state(files, plain, plain) == "matches"
    assert state(files, plain, plain, max_pixels=48 * 32 - 1) == "none"
    for other in (files.picture("PNG"), b"\xff\xd8\xff\xe0 no picture"):
        assert state(files, plain, other) == "none"
    assert state(files, plain, larger, max_pixels=96 * 64) == "differs"
    assert state(files, plain, larger, max_pixels=96 * 64 - 1) == "none"


def test_facts_and_no_position(files):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Apple", "iPhone 15\x1b[31m", "17.4"
    exif.get_ifd(0x8769).update({0x9003: "2026:01:31 12:30:00", 0x9011: "+02:00"})
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.5), 3: "E", 4: (13.0, 24.0, 18.0)})
    found = read_provenance(files.jpeg((0xE1, exif.tobytes())))
    camera = found.camera
    assert (camera.make, camera.model, camera.software) == ("Apple", "iPhone 15 [31m", "17.4")
    assert (camera.taken, camera.gps) == ("2026-01-31T12:30:00+02:00", True)
    assert "52" not in str(found.to_dict()).replace(found.photo_sha256, "")
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({0: b"\x02\x03\x00\x00"})
    assert not read_provenance(files.jpeg((0xE1, exif.tobytes()))).camera.gps


def test_broken_times_and_both_byte_orders(files):
    assert read_exif(files.tiff({}, {0x9003: b"0000:00:00 noon   \x00"})).taken == ""
    for order in "<>":
        comment = {0x9286: b"ASCII\x00\x00\x00hello"}
        found = read_exif(files.tiff({0x010F: b"Maker\x00"}, comment, order))
        assert found.texts == {"Make": "Maker", "UserComment": "hello"}
