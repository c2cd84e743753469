"""Every kind of file that phones, apps and scanners write becomes the same upright pixels, or a
clear error."""

import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from realdamage.core.decode import decode
from realdamage.errors import PhotoError

# How a camera held that way stores the upright picture: the inverse of what orientation k asks a
# viewer to do.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.fixture
def picture():
    """Smooth and without any symmetry, so that JPEG keeps it and every wrong turn shows; uint8 [48,
    64, 3]."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([4 * x, 5 * y, 2 * x + y], axis=2).clip(0, 255).astype(np.uint8)


def encode(image, form, **options):
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        buffer, form, **options
    )
    return buffer.getvalue()


def refusal(source, **options):
    """The code of the error with which `decode` refuses the photo."""
    with pytest.raises(PhotoError) as caught:
        decode(source, **options)
    return caught.value.code


def png_header(width, height):
    def chunk(name, data):
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_all_eight_orientations_decode_to_upright_pixels(picture, form):
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    for orientation, turn in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        upright = decode(encode(np.ascontiguousarray(turn(picture)), form, exif=exif, **options))
        assert upright.shape == picture.shape
        assert np.abs(upright.astype(int) - picture).max() <= (6 if form == "JPEG" else 0)
    if form == "PNG":  # a broken block is no reason to refuse a photo
        data = encode(picture, form, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
        assert np.array_equal(decode(data), picture)


def test_sixteen_bit_png_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 40 * 40).round().astype(np.uint16).reshape(40, 40)
    data = encode(Image.fromarray(values), "PNG")
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "I;16"
    assert np.array_equal(
        decode(data), np.round(values / 257).astype(np.uint8)[..., None].repeat(3, 2)
    )


def palette():
    """Black on the left, (10, 200, 30) on the right."""
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.paste(0, (0, 0, 20, 40))
    return image


def with_alpha():
    """Half transparent black on the left, nothing on the right."""
    image = Image.new("RGBA", (40, 40), (200, 0, 0, 0))
    image.paste((0, 0, 0, 128), (0, 0, 20, 40))
    return image


FRAMES = [Image.new("RGB", (40, 40), colour) for colour in ((250, 0, 0), (0, 250, 0))]
ANIMATION = {"save_all": True, "append_images": FRAMES[1:], "duration": 50}
RED, WHITE, GREEN, KEY = (250, 0, 0), (255, 255, 255), (10, 200, 30), (1, 2, 3)


@pytest.mark.parametrize(
    ("form", "image", "options", "left", "right"),
    [
        ("PNG", Image.new("1", (40, 40), 255), {}, WHITE, WHITE),
        ("PNG", Image.new("LA", (40, 40), (100, 128)), {}, (177, 177, 177), (177, 177, 177)),
        ("PNG", Image.new("RGB", (40, 40), KEY), {"transparency": KEY}, WHITE, WHITE),
        ("PNG", with_alpha(), {}, (127, 127, 127), WHITE),
        ("PNG", palette(), {}, (0, 0, 0), GREEN),
        ("PNG", palette(), {"transparency": 0}, WHITE, GREEN),
        ("JPEG", Image.new("CMYK", (40, 40), (0, 255, 255, 0)), {}, (255, 0, 0), (255, 0, 0)),
        ("GIF", FRAMES[0], ANIMATION, RED, RED),
        ("MPO", FRAMES[0], ANIMATION, RED, RED),
    ],
)
def test_modes_and_first_frames(form, image, options, left, right):
    rgb = decode(encode(image, form, **options)).astype(int)
    tolerance = 4 if form in ("JPEG", "MPO") else 0
    assert np.abs(rgb[2, 2] - left).max() <= tolerance
    assert np.abs(rgb[2, 39] - right).max() <= tolerance


def test_an_icc_profile_is_applied_and_srgb_left_alone(picture):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(encode(picture, "PNG", icc_profile=srgb)), picture)
    # A profile with the red and blue primaries exchanged, under a name of its own.
    exchanged = srgb.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    exchanged = exchanged.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    assert exchanged != srgb
    rgb = decode(encode(picture, "PNG", icc_profile=exchanged))
    assert np.abs(rgb.astype(int) - picture[..., ::-1]).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_photo_is_an_error_and_not_half_grey(form):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    data = encode(noise, form)
    for share in (0.004, 0.95):
        assert refusal(data[: int(share * len(data))]) in ("damaged_file", "damaged_header")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_wrong_size_is_refused_from_the_header(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    assert refusal(png_header(20000, 20000)) == "too_many_pixels_told"  # by Pillow
    assert refusal(png_header(10001, 10000)) == "too_many_pixels"
    assert refusal(png_header(4000, 31)) == "side_too_small"


def many_scans(scans, form="JPEG"):
    """A progressive JPEG whose last scan is repeated until it has that many; as an MPO with a
    second picture of 10."""
    image = Image.new("RGB", (48, 48), (90, 120, 60))
    options = {"save_all": True, "append_images": [image]} if form == "MPO" else {}
    data = encode(image, form, progressive=True, **options)
    end = data.index(b"\xff\xd9")
    assert data.count(b"\xff\xda", 0, end) == 10
    last = data.rindex(b"\xff\xda", 0, end)
    return data[:end] + data[last:end] * (scans - 10) + data[end:]


@pytest.fixture
def nothing_is_opened(monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))


@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_more_than_64_scans_are_refused_before_the_photo_is_opened(form, request):
    assert decode(many_scans(64, form)).shape == (48, 48, 3)
    request.getfixturevalue("nothing_is_opened")
    assert refusal(many_scans(65, form)) == "too_many_scans"


def test_what_only_looks_like_scans_or_padding_is_not_counted():
    """Scans of a thumbnail or behind the picture, restart markers and stuffed bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    data = encode(noise, "JPEG", quality=95, restart_marker_blocks=1)
    assert data.count(b"\xff\xd3") > 50
    assert data.count(b"\xff\0") > 100
    bomb = many_scans(300)
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(bomb) + 8) + b"Exif\0\0" + bomb
    found = decode(data[:2] + thumbnail + data[2:] + bomb + b"\xff" * 200_000)
    assert found.shape == noise.shape


SEGMENT = b"\xff\xe5\x00\x06abcd"


@pytest.mark.parametrize(
    ("in_header", "in_scan", "template"),
    [
        (b"\xff" * 65_537, b"", "too_much_padding"),
        (b"\xff\xd9" + b"\0" * 65_537, b"", "too_much_padding"),
        (b"", b"\xff" * 65_537, "too_much_padding"),
        (SEGMENT * 1001, b"", "too_many_jpeg_segments"),
        (b"", SEGMENT * 1001, "too_many_jpeg_segments"),
    ],
)
@pytest.mark.usefixtures("nothing_is_opened")
def test_padding_is_refused_before_the_photo_is_opened(in_header, in_scan, template):
    data = many_scans(10).replace(b"\xff\xd8", b"\xff\xd8" + in_header)
    assert refusal(data[:-2] + in_scan + b"\xff\xd9") == template


@pytest.mark.skipif(os.name != "posix", reason="needs pipes and devices")
@pytest.mark.timeout(60)  # a pipe that is read blocks for ever
def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == refusal("/dev/null") == "photo"
    (tmp_path / "photo.png").write_bytes(encode(Image.new("RGB", (40, 40)), "PNG"))
    (tmp_path / "link.png").symlink_to(tmp_path / "photo.png")
    assert decode(tmp_path / "link.png").shape == (40, 40, 3)


def test_what_is_not_a_photo_is_refused(picture, tmp_path, monkeypatch):
    (tmp_path / "notes.jpg").write_text("dear support,")
    assert refusal(tmp_path / "notes.jpg") == "unknown_format"
    assert refusal(b"") == "empty_file"
    # PostScript would be run by an interpreter.
    assert refusal(encode(Image.new("RGB", (40, 40)), "EPS")) == "unknown_format"
    floats = Image.fromarray(np.ones((40, 40), np.float32))
    assert refusal(encode(floats, "TIFF")) == "no_known_white"
    assert refusal(picture, max_pixels=3071) == "too_many_pixels"
    assert decode(picture, max_pixels=3072).shape == picture.shape
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
    assert refusal(heic) == "heic_needs_extra"
    assert refusal("https://example.org/a.jpg") == "url"
    others = [
        (np.zeros((40, 40, 4), np.uint8), r"uint8 \[40, 40, 4\]"),
        (np.zeros((40, 40, 3), np.float32), r"float32 \[40, 40, 3\]"),
        (7, "a int"),
        ("nowhere/photo.jpg", "nowhere/photo.jpg: no such photo"),
        (tmp_path, "is a folder"),
    ]
    for source, found in others:
        with pytest.raises(PhotoError, match=found):
            decode(source)
