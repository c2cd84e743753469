"""Scenes made from numbers, shot, laundered and painted on: what is said of two photos, and where
they differ."""

import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageEnhance

from realdamage.commands.cli import main
from realdamage.core.tiles import PixelSpec, read_photo
from realdamage.errors import PhotoError
from realdamage.photo_pairs import compare, draw_comparison, features, prepare
from realdamage.photo_pairs.persist import compare_regions, find_differing_damage

RGB = npt.NDArray[np.uint8]
# A tear in the middle of the scene: (left, top, right, bottom).
DAMAGE = (140, 90, 200, 130)


def scene(seed, width=320, height=240):
    """Shapes of all sizes over a textured ground: what a label, a carton, a shelf have."""
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 190, (height // 4, width // 4, 3), dtype=np.uint8)
    picture = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(width * height // 900):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        w, h = rng.uniform(4, 40, 2)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape((x, y, x + w, y + h), fill=colour)
    return picture


def shot(picture, seed, noise=3.0):
    """One exposure of the scene, with its own sensor noise."""
    pixels = np.asarray(picture, np.float64)
    pixels = pixels + np.random.default_rng(seed).normal(0, noise, pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def painted(picture):
    copy = picture.copy()
    ImageDraw.Draw(copy).ellipse(DAMAGE, fill=(35, 20, 15))
    return copy


def saved(picture, quality=85, **options):
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=quality, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def listing():
    return shot(scene(1), seed=100)


@pytest.fixture(scope="module")
def shop(listing):
    """The listing photo, whose features are searched once."""
    return prepare(saved(listing, 92), "listing")


@pytest.fixture(scope="module")
def painted_copy(listing, shop):
    return compare(saved(painted(listing)), shop)


def covers(found, box):
    """Share of `box`, in pixels of the claim photo, inside the change boxes."""
    inside = np.zeros((found.height, found.width), bool)
    for change in found.changes:
        inside[change.box[1] : change.box[3], change.box[0] : change.box[2]] = True
    left, top, right, bottom = (round(side) for side in box)
    return float(inside[top:bottom, left:right].mean())


BICUBIC = Image.Resampling.BICUBIC


def brighter(picture):
    return ImageEnhance.Contrast(ImageEnhance.Brightness(picture).enhance(1.2)).enhance(0.85)


def smaller_and_turned(picture):
    return picture.resize((192, 144), BICUBIC).transpose(Image.Transpose.ROTATE_90)


LAUNDERED = {
    "quality 40": (lambda p: p, DAMAGE),
    "cropped": (lambda p: p.crop((70, 40, 300, 220)), (70, 50, 130, 90)),
    "smaller and turned": (smaller_and_turned, (54, 72, 78, 108)),
    "mirrored": (lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (120, 90, 180, 130)),
    "brighter": (brighter, DAMAGE),
}
"""What happens to the claim photo, and the box of the damage afterwards."""


@pytest.mark.parametrize("name", LAUNDERED)
def test_a_painted_copy_is_the_same_capture_and_its_damage_is_boxed(listing, shop, name):
    launder, (left, top, right, bottom) = LAUNDERED[name]
    quality = 40 if name == "quality 40" else 85
    found = compare(saved(launder(painted(listing)), quality), shop)
    assert found.outcome == "same_capture", found.reasons
    assert covers(found, (left, top, right, bottom)) > 0.9
    boxed = sum((c.box[2] - c.box[0]) * (c.box[3] - c.box[1]) for c in found.changes)
    assert boxed < 3 * (right - left) * (bottom - top)
    assert found.agreement > 0.95
    assert found.overlap > 0.97
    assert 0 < found.changed < 0.2
    codes = [reason.code for reason in found.reasons]
    assert codes[:2] == ["same_capture", "changed_areas"]
    assert ("mirrored" in codes) == (name == "mirrored")


def test_an_unedited_copy_has_no_changes_and_its_homography_is_exact(listing, shop):
    cropped = listing.crop((40, 20, 280, 220)).resize((480, 400), BICUBIC)
    found = compare(saved(cropped), shop)
    assert (found.outcome, found.changes, found.changed) == ("same_capture", (), 0)
    assert found.reasons[1].code == "no_change"
    x, y, depth = np.array(found.homography) @ [150, 120, 1]
    # Pixel centres lie half a pixel from the edge, at either size.
    assert x / depth == pytest.approx(2 * (150.5 - 40) - 0.5, abs=0.3)
    assert y / depth == pytest.approx(2 * (120.5 - 20) - 0.5, abs=0.3)


def test_another_shot_of_the_same_thing_is_not_the_same_capture():
    # A step to the side: things at different depths move by different amounts.
    front = scene(5)
    moved, rng = front.copy(), np.random.default_rng(0)
    for x in range(0, 320, 80):
        for y in range(0, 240, 60):
            right, down = (int(shift) for shift in rng.integers(-4, 5, 2))
            moved.paste(front.crop((x, y, x + 80, y + 60)), (x + right, y + down))
    found = compare(saved(shot(moved, seed=2)), saved(shot(front, seed=1)))
    assert (found.outcome, found.changes) == ("same_object", ())
    assert found.homography is not None
    assert found.reasons[0].code == "another_shot"


def test_the_same_view_under_other_noise_is_not_the_same_capture():
    # Before a smooth wall, noise is all there is: shot twice from a tripod.
    wall = Image.fromarray(
        np.tile(np.linspace(120, 200, 320)[None, :, None], (240, 1, 3)).astype(np.uint8)
    )
    wall.paste(scene(7).crop((0, 0, 180, 130)), (70, 55))
    first, second = (shot(wall, seed, noise=2.5) for seed in (1, 2))
    listed = prepare(saved(first, 95), "listing")
    other = compare(saved(second, 95), listed)
    assert (other.outcome, other.reasons[0].code) == ("same_object", "noise_differs")
    assert compare(saved(painted(first), 90), listed).outcome == "same_capture"


def test_a_plain_copy_with_a_blot_is_still_looked_at_frame_by_frame():
    wall = shot(Image.new("RGB", (300, 200), (200, 200, 196)), 1, noise=9)
    blotted = wall.copy()
    ImageDraw.Draw(blotted).ellipse((120, 60, 190, 120), fill=(40, 30, 25))
    found = compare(saved(blotted, 95), saved(wall, 95))
    assert found.outcome == "same_capture", found.reasons
    assert covers(found, (135, 75, 175, 105)) > 0.9


def test_where_half_differs_what_agrees_may_be_a_thing_held_alike(listing, shop):
    claim = listing.copy()
    claim.paste(shot(scene(99), 7).crop((0, 0, claim.width // 2, claim.height)), (0, 0))
    found = compare(saved(claim, 92), shop)
    assert found.outcome == "same_object"
    assert 0.3 < found.changed < 0.6


def test_the_change_map_and_the_drawing_are_warm_on_the_damage_only(listing, painted_copy):
    heat = painted_copy.change_map
    assert heat is not None
    assert (heat.shape, heat.dtype) == ((240, 320), np.float32)
    assert heat.min() >= 0
    assert heat.max() <= 1
    assert heat[100:120, 155:185].mean() > 0.9
    outside = heat.copy()
    outside[75:145, 125:215] = 0
    assert (outside > 0.5).mean() < 0.001
    values = painted_copy.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert painted_copy.to_dict(change_map=False)["change_map"] is None
    claim, listed = np.asarray(painted(listing)), np.asarray(listing)
    picture = draw_comparison(claim, listed, painted_copy)
    assert picture.width == 2 * 320 + 12
    drawn = np.asarray(picture)
    assert np.array_equal(drawn[80:160, 110:200], listed[80:160, 110:200])
    assert int(drawn[110, 332 + 160, 0]) - claim[110, 160, 0] > 80


def test_unrelated_plain_and_identical_photos(listing, painted_copy, monkeypatch):
    searched = []
    find = features.find_features
    monkeypatch.setattr(
        features, "find_features", lambda grey: searched.append(grey.shape) or find(grey)
    )
    ready = prepare(saved(listing, 92), "listing")
    photos = [
        read_photo(saved(one), PixelSpec(max_side=128)) for one in (painted(listing), scene(2))
    ]
    same, other = [compare(prepare(photo, "claim"), ready) for photo in photos]
    # Two claim photos, the listing photo, and its mirror image for the unrelated one.
    assert len(searched) == 4
    assert same.to_dict() == painted_copy.to_dict()
    assert (other.outcome, other.homography, other.change_map) == ("unrelated", None, None)
    assert (other.overlap, other.changed, other.changes) == (0, 0, ())
    plain = saved(shot(Image.new("RGB", (300, 200), (240, 240, 240)), 1, noise=0.5))
    found, identical = compare(plain, ready), compare(plain, plain)
    codes = [[reason.code for reason in one.reasons] for one in (other, found, identical)]
    assert codes == [["no_alignment"], ["too_little_texture"], ["identical"]]
    assert (found.outcome, identical.outcome) == ("unrelated", "same_capture")


def test_a_large_rotated_photo():
    large = shot(scene(3, 1100, 300), 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = painted(large).transpose(Image.Transpose.ROTATE_90)
    found = compare(saved(lying, exif=exif), saved(large))
    assert (found.outcome, found.width, found.height) == ("same_capture", 1100, 300)
    assert covers(found, DAMAGE) > 0.9
    assert found.change_map is not None
    assert found.change_map.shape == (140, 512)


def scratched(picture):
    """With a field of dark and bright lines in DAMAGE."""
    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    left, top, right, bottom = DAMAGE
    draw.rectangle((left, top, right - 1, bottom - 1), fill=(60, 60, 60))
    for step in range(0, right - left, 5):
        line = (right - 1 - step, top, left + step, bottom - 1)
        draw.line(line, fill=(230, 225, 220), width=2)
    return copy


def second_shot(picture):
    """The same object a little lower and further right, brighter, under other noise."""
    moved = Image.fromarray(np.roll(np.asarray(picture), (12, 7), axis=(1, 0)))
    return shot(ImageEnhance.Brightness(moved).enhance(1.08), seed=9)


@pytest.fixture(scope="module")
def damaged():
    return prepare(saved(scratched(scene(1)), 95), "claim")


def test_damage_in_one_photo_only_differs_and_damage_in_both_persists(damaged):
    intact, too = (
        prepare(saved(second_shot(one), 95), "listing") for one in (scene(1), scratched(scene(1)))
    )
    (found,) = find_differing_damage(damaged, intact, [DAMAGE])
    assert found.box == DAMAGE
    assert found.inside < 0.4
    assert found.around > 0.7
    moved = np.add(DAMAGE, (12, 7, 12, 7))
    assert np.abs(np.subtract(found.other_box, moved)).max() <= 2
    assert found.to_dict()["other_box"] == list(found.other_box)
    (compared,) = compare_regions(damaged, too, [DAMAGE])
    assert compared.inside > 0.7
    assert not compared.is_different


def test_nothing_is_said_of_damage_where_nothing_can_be_compared(damaged):
    shown = second_shot(scene(1))
    for other, boxes in (
        (scene(2), [DAMAGE]),
        (shown, []),
        (shown.crop((200, 0, 320, 240)), [DAMAGE]),
    ):
        assert compare_regions(damaged, prepare(saved(other, 95), "listing"), boxes) == ()


@pytest.mark.parametrize("bad", [b"<html>not found</html>", b"\xff\xd8\xff"])
def test_errors_name_the_photo(bad):
    good = saved(Image.new("RGB", (300, 200)))
    with pytest.raises(PhotoError, match=r"^claim photo: "):
        compare(bad, good)
    with pytest.raises(PhotoError, match=r"^listing photo: "):
        compare(good, bad)
    with pytest.raises(PhotoError, match=r"^listing photo: "):
        prepare(good, "listing", max_pixels=59_999)


def test_the_command(listing, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("claim.jpg").write_bytes(saved(painted(listing)))
    Path("listing.jpg").write_bytes(saved(listing, 92))
    Path("cut.jpg").write_bytes(saved(listing)[:3000])
    written = ["--output", "out.json", "--overlay", "overlay"]
    assert main(["compare-listing", "claim.jpg", "listing.jpg", "cut.jpg", *written]) == 1
    assert "cut.jpg: " in capsys.readouterr().err
    results = json.loads(Path("out.json").read_text())["results"]
    outcomes = [result["comparison"]["outcome"] for result in results if "comparison" in result]
    assert outcomes == ["same_capture"]
    assert [path.name for path in Path("overlay").iterdir()] == ["claim-1-listing.comparison.png"]
    assert main(["compare-listing", "claim.jpg", "claim.jpg"]) == 0
    assert "same_capture" in capsys.readouterr().out
    for given, code in (
        (("claim.jpg", "cut.jpg"), 3),
        (("cut.jpg", "listing.jpg"), 3),
        (("claim.jpg", "nowhere.jpg"), 2),
        (("*.jpg", "listing.jpg"), 2),
    ):
        assert main(["compare-listing", *given]) == code
