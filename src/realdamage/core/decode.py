"""Turns a photo's bytes into upright sRGB pixels, or says what is wrong with the file."""

from __future__ import annotations

import importlib
import io
import re
import stat
import warnings
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from realdamage.errors import PhotoError
from realdamage.files import is_url, no_such_photo
from realdamage.phrases import Phrase, phrase

UInt8Array: TypeAlias = NDArray[np.uint8]
Float32Array: TypeAlias = NDArray[np.float32]
PhotoSource: TypeAlias = "bytes | str | Path | IO[bytes] | Image.Image | UInt8Array"

MAX_PIXELS = 100_000_000
MIN_SIDE = 32

# A 64 KB EXIF block can make Pillow print thousands of warnings; broken metadata do not affect the
# pixels. Set once, for that module only: a filter set during a call would not be thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin$")

# Only formats that photos come in: Pillow would also start an interpreter for PostScript.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "JPEG2000")
HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8")
_EXIF_ORIENTATION = 0x0112
_MAX_SCANS, _MAX_SEGMENTS, _MAX_PADDING = 64, 1000, 64 * 1024
# JPEG markers that start a segment, and the end marker. The others have no length or end the
# decoding with an error.
_MARKER = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe])")
_END, _START_OF_SCAN = b"\xd9", b"\xda"
_ROWS_AT_ONCE = 256
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(source: PhotoSource, *, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """Decode a photo to uint8 [h, w, 3]: upright, sRGB, alpha on white, first frame, not resized.

    source: bytes, a path, an open binary file, a PIL image, or a uint8 [h, w, 3] RGB array.
    max_pixels: larger photos are refused by their header, before decoding.

    Raises PhotoError when the photo is damaged, too large, or has a side below 32 pixels.
    """
    return decode_contents(contents_of(source), name_of(source), max_pixels)


def name_of(source: PhotoSource) -> str:
    """What error messages call a source: its path, or "photo"."""
    return str(source) if isinstance(source, str | Path) else "photo"


def contents_of(source: PhotoSource) -> bytes | Image.Image | UInt8Array:
    """The bytes of a path or an open file; anything else is returned as is."""
    if isinstance(source, str) and is_url(source):
        raise PhotoError(no_such_photo(source), code="url")
    if isinstance(source, str | Path):
        return read_file(Path(source))
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    file: Any = source
    contents: bytes | Image.Image | UInt8Array = file.read() if hasattr(file, "read") else file
    return contents


def read_file(path: Path) -> bytes:
    """The bytes of a photo's file. Raises PhotoError unless it is a readable regular file."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise PhotoError(f"{path}: is a folder; give one of the photos in it")
        if not stat.S_ISREG(mode):
            raise PhotoError(f"{path}: is a pipe or a device; save the photo to a file first")
        return path.read_bytes()
    except FileNotFoundError:
        raise PhotoError(no_such_photo(str(path)), code="no_such_photo") from None
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read: {error.strerror}") from error


def decode_contents(
    contents: bytes | Image.Image | UInt8Array, name: str, max_pixels: int
) -> UInt8Array:
    """`decode` for the result of `contents_of`; errors begin with `name`."""
    if isinstance(contents, np.ndarray):
        if contents.dtype != np.uint8 or contents.ndim != 3 or contents.shape[2] != 3:
            raise PhotoError(
                f"{name}: an array must be uint8 [height, width, 3] RGB; "
                f"found {contents.dtype} {list(contents.shape)}"
            )
        _check_size(contents.shape[1], contents.shape[0], name, max_pixels)
        return contents
    if isinstance(contents, bytes):
        contents = open_photo(contents, name, max_pixels)
    elif isinstance(contents, Image.Image):
        _check_size(contents.width, contents.height, name, max_pixels)
    else:
        raise PhotoError(
            f"{name}: cannot read a {type(contents).__name__}; "
            "give bytes, a path, a file, a PIL image or a uint8 array"
        )
    try:
        return _upright_rgb(contents)
    except PhotoError as error:
        raise PhotoError(f"{name}: {error}", error.phrases, code=error.code) from error
    except Exception as error:  # decoders raise all kinds of errors on a broken file
        raise _unreadable(name, _damaged(error)) from error


def open_photo(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Open a file without decoding it. Raises PhotoError as `decode`."""
    if data.startswith(b"\xff\xd8\xff"):
        _check_jpeg(data, name)
    image = _open(data, name, max_pixels)
    _check_size(image.width, image.height, name, max_pixels)
    return image


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    if not data:
        raise _unreadable(name, phrase("empty_file"))
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))
        why = phrase("too_many_pixels_told", pixels=found[0] if found else "?", limit=max_pixels)
        raise _unreadable(name, why) from error
    except Exception as error:  # decoders raise all kinds of errors on a broken header
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            return _open_heic(data, name)
        if data.startswith(_SIGNATURES):
            raise _unreadable(name, _damaged(error)) from error
        raise _unreadable(name, phrase("unknown_format", start=repr(data[:12]))) from error


def _open_heic(data: bytes, name: str) -> Image.Image:
    try:
        pillow_heif = importlib.import_module("pillow_heif")
    except ImportError:
        raise _unreadable(name, phrase("heic_needs_extra")) from None
    pillow_heif.register_heif_opener()
    try:
        return Image.open(io.BytesIO(data), formats=("HEIF",))
    except Exception as error:
        raise _unreadable(name, _damaged(error)) from error


def _check_jpeg(data: bytes, name: str) -> None:
    """Refuse a JPEG made to decode slowly: many scans (each visits all pixels), many segments, or
    much padding. Walks from marker to marker as libjpeg does, to the end of the first picture."""
    position, scans, segments, padding = 2, 0, 0, 0
    while (found := _MARKER.search(data, position)) and found[1] != _END:
        padding += 0 if scans else found.start() - position
        position = found.end() + max(2, int.from_bytes(data[found.end() : found.end() + 2], "big"))
        segments += 1
        scans += found[1] == _START_OF_SCAN
        if scans > _MAX_SCANS:
            raise _unreadable(name, phrase("too_many_scans", limit=_MAX_SCANS))
        if segments > _MAX_SEGMENTS:
            raise _unreadable(name, phrase("too_many_jpeg_segments", limit=_MAX_SEGMENTS))
    end = found.start() if found else len(data)
    padding += 0 if scans else len(data) - position  # Pillow looks for a scan after the end too
    if padding > _MAX_PADDING or data.find(b"\xff" * (_MAX_PADDING + 1), 0, end) >= 0:
        raise _unreadable(name, phrase("too_much_padding", limit=_MAX_PADDING))


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    size = {"width": width, "height": height}
    if width * height > max_pixels:
        why = phrase("too_many_pixels", **size, pixels=width * height, limit=max_pixels)
        raise _unreadable(name, why)
    if min(width, height) < MIN_SIDE:
        raise _unreadable(name, phrase("side_too_small", **size, least=MIN_SIDE))


def _damaged(error: Exception) -> Phrase:
    # Pillow's message contains a memory address, which differs with every run.
    if isinstance(error, UnidentifiedImageError):
        return phrase("damaged_header")
    return phrase("damaged_file", details=str(error))


def _unreadable(name: str, why: Phrase) -> PhotoError:
    return PhotoError(f"{name}: {why.english}", [why], code=why.template)


def _upright_rgb(image: Image.Image) -> UInt8Array:
    image.load()  # before the orientation is read: loading a TIFF already turns it
    orientation = orientation_of(image)
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    elif image.mode in ("1", "P"):
        image = image.convert("RGB")
    rgb = _to_srgb(image if alpha is None else image.convert("RGB"), profile)
    if alpha is not None:
        white = Image.new("RGB", rgb.size, "white")
        white.paste(rgb, mask=alpha)
        rgb = white
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return _pixels(rgb)


def _pixels(image: Image.Image) -> UInt8Array:
    """The pixels of an RGB image, a few rows at a time: Pillow copies twice what it hands over."""
    rgb = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, _ROWS_AT_ONCE):
        rows = rgb[top : top + _ROWS_AT_ONCE]
        rows[:] = np.asarray(image.crop((0, top, image.width, top + len(rows))))
    return rgb


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 without one."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # a broken EXIF block does not affect the pixels
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        found = {"low": str(values.min()), "high": str(values.max())}
        why = phrase("no_known_white", mode=image.mode, **found)
        raise PhotoError(why.english, [why], code=why.template)
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB; an sRGB profile, or one that cannot be applied, changes nothing."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in (source.profile.profile_description or ""):
                converted = ImageCms.profileToProfile(
                    image,
                    source,
                    ImageCms.createProfile("sRGB"),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                )
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it
