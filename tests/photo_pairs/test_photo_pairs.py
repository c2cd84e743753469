"""Scenes made from numbers, shot, laundered and painted on: what is said of two photos, and where
they differ."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from realdamage.commands.cli import main
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import PhotoError
from realdamage.photo_pairs import (
    Comparison,
    Prepared,
    compare,
    draw_comparison,
    features,
    prepare,
)

RGB = npt.NDArray[np.uint8]
# A tear in the middle of the scene: (left, top, right, bottom).
DAMAGE = (170, 120, 240, 170)


def scene(seed: int, width: int = 400, height: int = 300) -> Image.Image:
    """Shapes of all sizes over a textured ground: what a label, a carton, a shelf have."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 190, (height // 4, width // 4, 3), dtype=np.uint8)
    picture = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(140):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        w, h = rng.uniform(4, 40, 2)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((x, y, x + w, y + h), fill=colour)
    return picture


def shot(picture: Image.Image, seed: int, noise: float = 3.0) -> Image.Image:
    """One exposure of the scene, with its own sensor noise."""
    pixels = np.asarray(picture, np.float64)
    pixels = pixels + np.random.default_rng(seed).normal(0, noise, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def painted(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    draw.ellipse(DAMAGE, fill=(35, 20, 15))
    return copy


def saved(picture: Image.Image, quality: int = 85, **options: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=quality, **options)  # type: ignore[arg-type]
    return data.getvalue()


@pytest.fixture(scope="module")
def listing() -> Image.Image:
    return shot(scene(1), seed=100)


@pytest.fixture(scope="module")
def shop(listing: Image.Image) -> Prepared:
    """The listing photo, whose features are searched once."""
    return prepare(saved(listing, 92), "listing")


@pytest.fixture(scope="module")
def painted_copy(listing: Image.Image, shop: Prepared) -> Comparison:
    return compare(saved(painted(listing)), shop)


def covers(found: Comparison, box: tuple[float, float, float, float]) -> float:
    """Share of `box`, in pixels of the claim photo, inside the change boxes."""
    inside = np.zeros((found.height, found.width), bool)
    for change in found.changes:
        inside[change.box[1] : change.box[3], change.box[0] : change.box[2]] = True
    left, top, right, bottom = (round(side) for side in box)
    return float(inside[top:bottom, left:right].mean())


BICUBIC = Image.Resampling.BICUBIC


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(1.2)).enhance(0.85)


# What happens to the claim photo, and where a point (x, y) of it is afterwards.
LAUNDERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "quality 40": lambda p: p,
    "cropped": lambda p: p.crop((90, 60, 370, 280)),
    "smaller": lambda p: p.resize((160, 120), BICUBIC),
    "turned by a quarter": lambda p: p.transpose(Image.Transpose.ROTATE_90),
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "brighter": brighter,
}
PLACES: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "cropped": lambda x, y: (x - 90, y - 60),
    "smaller": lambda x, y: (0.4 * x, 0.4 * y),
    "turned by a quarter": lambda x, y: (y, 400 - x),
    "mirrored": lambda x, y: (400 - x, y),
}


def laundered(picture: Image.Image, name: str) -> bytes:
    return saved(LAUNDERED[name](picture), 40 if name == "quality 40" else 85)


def box_after(name: str) -> list[float]:
    """The box of the damage in the laundered photo."""
    place = PLACES.get(name, lambda x, y: (x, y))
    xs, ys = zip(place(*DAMAGE[:2]), place(*DAMAGE[2:]), strict=True)
    return [min(xs), min(ys), max(xs), max(ys)]


@pytest.mark.parametrize("name", LAUNDERED)
def test_a_painted_copy_is_the_same_capture_and_its_damage_is_boxed(
    listing: Image.Image, shop: Prepared, name: str
) -> None:
    found = compare(laundered(painted(listing), name), shop)
    assert found.outcome == "same_capture", found.reasons
    left, top, right, bottom = box_after(name)
    assert covers(found, (left, top, right, bottom)) > 0.9
    boxed = sum((c.box[2] - c.box[0]) * (c.box[3] - c.box[1]) for c in found.changes)
    assert boxed < 3 * (right - left) * (bottom - top)
    assert found.agreement > 0.95
    assert found.overlap > 0.97
    assert 0 < found.changed < 0.2
    assert [reason.code for reason in found.reasons[:2]] == ["same_capture", "changed_areas"]
    assert ("mirrored" in {reason.code for reason in found.reasons}) == (name == "mirrored")


@pytest.mark.parametrize("name", ["quality 40", "cropped"])
def test_an_unedited_copy_has_no_changes(listing: Image.Image, shop: Prepared, name: str) -> None:
    found = compare(laundered(listing, name), shop)
    assert found.outcome == "same_capture", found.reasons
    assert found.changes == ()
    assert found.changed == 0
    assert found.reasons[1].code == "no_change"


def test_the_homography_takes_listing_pixels_to_claim_pixels(
    listing: Image.Image, shop: Prepared
) -> None:
    cropped = listing.crop((50, 30, 350, 270)).resize((600, 480), Image.Resampling.BICUBIC)
    found = compare(saved(cropped), shop)
    x, y, depth = np.array(found.homography) @ [200, 150, 1]
    # Pixel centres lie half a pixel from the edge, at either size.
    assert x / depth == pytest.approx(2 * (200.5 - 50) - 0.5, abs=0.3)
    assert y / depth == pytest.approx(2 * (150.5 - 30) - 0.5, abs=0.3)


def test_another_shot_of_the_same_thing_is_not_the_same_capture() -> None:
    # A step to the side: things at different depths move by different amounts.
    front = scene(5)
    moved, rng = front.copy(), np.random.default_rng(0)
    for x in range(0, 400, 80):
        for y in range(0, 300, 75):
            right, down = (int(shift) for shift in rng.integers(-4, 5, 2))
            moved.paste(front.crop((x, y, x + 80, y + 75)), (x + right, y + down))
    found = compare(saved(shot(moved, seed=2)), saved(shot(front, seed=1)))
    assert found.outcome == "same_object"
    assert found.changes == ()
    assert found.homography is not None
    assert found.reasons[0].code == "another_shot"


def test_the_same_view_under_other_noise_is_not_the_same_capture() -> None:
    # Before a smooth wall, noise is all there is: shot twice from a tripod.
    wall = Image.fromarray(
        np.tile(np.linspace(120, 200, 400)[None, :, None], (300, 1, 3)).astype(np.uint8)
    )
    wall.paste(scene(7).crop((0, 0, 220, 160)), (90, 70))
    first, second = (shot(wall, seed, noise=2.5) for seed in (1, 2))
    other = compare(saved(second, 95), saved(first, 95))
    assert other.outcome == "same_object"
    assert other.reasons[0].code == "noise_differs"
    same = compare(saved(painted(first), 90), saved(first, 95))
    assert same.outcome == "same_capture"


def test_a_plain_copy_with_a_blot_is_still_looked_at_frame_by_frame() -> None:
    wall = shot(Image.new("RGB", (300, 200), (200, 200, 196)), 1, noise=9)
    blotted = wall.copy()
    ImageDraw.Draw(blotted).ellipse((120, 60, 190, 120), fill=(40, 30, 25))
    found = compare(saved(blotted, 95), saved(wall, 95))
    assert found.outcome == "same_capture", found.reasons
    assert covers(found, (135, 75, 175, 105)) > 0.9


def test_where_half_differs_what_agrees_may_be_a_thing_held_alike(
    listing: Image.Image, shop: Prepared
) -> None:
    claim = listing.copy()
    claim.paste(shot(scene(99), 7).crop((0, 0, claim.width // 2, claim.height)), (0, 0))
    found = compare(saved(claim, 92), shop)
    assert found.outcome == "same_object"
    assert found.changed == pytest.approx(0.5, abs=0.1)


def test_the_drawing_shows_both_photos_side_by_side(
    listing: Image.Image, painted_copy: Comparison
) -> None:
    claim = painted(listing)
    picture = draw_comparison(np.asarray(claim), np.asarray(listing), painted_copy)
    assert picture.width == 2 * 400 + 12
    assert picture.height > 300
    left = np.asarray(picture)[100:200, 150:260].astype(int) - np.asarray(listing)[100:200, 150:260]
    assert np.abs(left).max() == 0
    red = np.asarray(picture)[145, 412 + 205].astype(int) - np.asarray(claim)[145, 205]
    assert red[0] > 80


@pytest.fixture
def photos(tmp_path: Path, listing: Image.Image) -> Path:
    (tmp_path / "claim.jpg").write_bytes(saved(painted(listing)))
    (tmp_path / "listing.jpg").write_bytes(saved(listing, 92))
    (tmp_path / "other.jpg").write_bytes(saved(shot(scene(9), 9)))
    (tmp_path / "cut.jpg").write_bytes(saved(listing)[:3000])
    return tmp_path


def test_unrelated_plain_and_identical_photos(shop: Prepared) -> None:
    other = compare(saved(shot(scene(2), 2)), shop)
    assert (other.outcome, other.homography, other.change_map) == ("unrelated", None, None)
    assert (other.overlap, other.changed, other.changes) == (0, 0, ())
    plain = shot(Image.new("RGB", (300, 200), (240, 240, 240)), 1, noise=0.5)
    found = compare(saved(plain), shop)
    same = compare(saved(plain), saved(plain))
    codes = [[reason.code for reason in one.reasons] for one in (other, found, same)]
    assert codes == [["no_alignment"], ["too_little_texture"], ["identical"]]
    assert (found.outcome, same.outcome) == ("unrelated", "same_capture")


def test_the_change_map_is_warm_on_the_damage_only(painted_copy: Comparison) -> None:
    heat = painted_copy.change_map
    assert heat is not None
    assert (heat.shape, heat.dtype) == ((300, 400), np.float32)
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert heat[135:155, 190:220].mean() > 0.9
    outside = heat.copy()
    outside[105:185, 155:255] = 0
    assert outside.max() < 0.5
    values = painted_copy.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert painted_copy.to_dict(change_map=False)["change_map"] is None


def test_a_large_rotated_photo() -> None:
    large = shot(scene(3, 1200, 900), 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = painted(large).transpose(Image.Transpose.ROTATE_90)
    found = compare(saved(lying, exif=exif), saved(large))
    assert (found.outcome, found.width, found.height) == ("same_capture", 1200, 900)
    assert covers(found, DAMAGE) > 0.9
    assert found.change_map is not None
    assert found.change_map.shape == (384, 512)


def test_prepared_photos_are_searched_once_and_give_the_same(
    listing: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    find = features.find_features
    monkeypatch.setattr(
        features, "find_features", lambda grey: calls.append(grey.shape) or find(grey)
    )
    claims = [saved(painted(listing)), saved(shot(scene(2), 2))]
    ready = prepare(saved(listing, 92), "listing")
    decoded = [read_photo(claim, PixelSpec(max_side=128)) for claim in claims]
    found = [compare(prepare(photo, "claim"), ready) for photo in decoded]
    # Two claim photos, the listing photo, and its mirror image for the unrelated one.
    assert len(calls) == 4
    for claim, one in zip(claims, found, strict=True):
        assert one.to_dict() == compare(claim, saved(listing, 92)).to_dict()


@pytest.mark.parametrize("bad", [b"<html>not found</html>", b"\xff\xd8\xff", None])
def test_errors_name_the_photo(bad: bytes | None) -> None:
    small, large = saved(Image.new("RGB", (300, 200))), saved(Image.new("RGB", (300, 201)))
    with pytest.raises(PhotoError, match=r"^claim photo: "):
        compare(bad or large, small, max_pixels=60_000)
    with pytest.raises(PhotoError, match=r"^listing photo: "):
        compare(small, bad or large, max_pixels=60_000)
    assert compare(small, small, max_pixels=60_000).outcome == "same_capture"


def test_the_command(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, folder = photos / "out.json", photos / "overlay"
    names = ("claim.jpg", "listing.jpg", "other.jpg", "cut.jpg")
    arguments = ["compare-listing", *(str(photos / name) for name in names)]
    assert main([*arguments, "--output", str(output), "--overlay", str(folder)]) == 1
    assert "cut.jpg: " in capsys.readouterr().err
    results = json.loads(output.read_text())["results"]
    outcomes = [result["comparison"]["outcome"] for result in results if "comparison" in result]
    assert outcomes == ["same_capture", "unrelated"]
    pictures = ["claim-1-listing.comparison.png", "claim-2-other.comparison.png"]
    assert sorted(path.name for path in folder.iterdir()) == pictures
    assert main(arguments[:-1]) == 0
    assert "same_capture" in capsys.readouterr().out
    for claim, listing_photo, code in (
        ("claim.jpg", "cut.jpg", 3),
        ("cut.jpg", "listing.jpg", 3),
        ("claim.jpg", "nowhere.jpg", 2),
        ("*.jpg", "listing.jpg", 2),
    ):
        given = [str(photos / claim), str(photos / listing_photo)]
        assert main(["compare-listing", *given]) == code
