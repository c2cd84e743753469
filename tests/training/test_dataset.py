"""Pairs stay aligned: the same crop, the same laundering, and a label that says what the crop
shows."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from realdamage.core.tiles import PixelSpec
from realdamage.data.degradations import Degradations, Jpeg, Webp
from realdamage.data.manifest import read_manifest, write_manifest
from realdamage.errors import ConfigError, PhotoError
from realdamage.schema import DataConfig
from realdamage.training.crops import read_view
from realdamage.training.dataset import (
    EpochSampler,
    PairDataset,
    WholePhotoDataset,
    WholePhotoSampler,
    collate_units,
    training_units,
    unit_chances,
)

SPEC = PixelSpec(tile=64, patch=16, overlap=16, max_side=256)
CLEAN = Degradations()
PARTS = {"photos": 0.5, "generated": 0.5}  # gives images without an original a partner
HARSH = Degradations(
    probability=1.0, resize=0.5, blur=0.5, noise=0.5, jpeg=0.6, webp=0.3, double=0.5
)
SHRUNK = Degradations(
    probability=1.0, resize=1.0, scale=(0.5, 0.95), blur=0, noise=0, jpeg=0, webp=0, double=0
)


def pair_dataset(manifest, degradations=CLEAN, *, seed=0, **data):
    return PairDataset(manifest, SPEC, DataConfig(degradations=degradations, **data), seed=seed)


def write_pair(root, original, edit, mask):
    root.mkdir(parents=True, exist_ok=True)
    Image.fromarray(original).save(root / "original.png")
    Image.fromarray(edit).save(root / "edit.png")
    rows = [{"file_name": "original.png", "label": "real"}]
    rows.append(
        {"file_name": "edit.png", "label": "synthetic", "kind": "ai_region", "pair": "original.png"}
    )
    if mask is not None:
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(root / "mask.png")
        rows[1]["mask_file_name"] = "mask.png"
    write_manifest(root, pd.DataFrame(rows))
    return read_manifest(root)


def pairs(manifest, degradations, *, crops=40, focus=0.5):
    """Crops of the manifest's only pair, originals and edits apart."""
    dataset = pair_dataset(manifest, degradations, tiles_per_photo=crops, focus=focus)
    unit = dataset[0, 0]
    return {
        name: unit[name].numpy().reshape(2, crops, *unit[name].shape[1:])
        for name in ("tiles", "patch_share")
    }


@pytest.mark.parametrize("shape", [(70, 200), (40, 50)])
def test_both_halves_get_the_same_crop_and_the_same_laundering(tmp_path, photo_factory, shape):
    """Where an edit changed no pixel at all, its crops are those of the original to the last bit,
    noise included."""
    photo = photo_factory(*shape, 0)
    mask = np.zeros(shape, np.bool_)
    mask[10:30, 10:30] = True
    original, edit = pairs(write_pair(tmp_path, photo, photo, mask), HARSH)["tiles"]
    np.testing.assert_array_equal(original, edit)
    assert len({tile.tobytes() for tile in original}) > 4  # and they are not all one crop


@pytest.mark.parametrize("degradations", [CLEAN, SHRUNK], ids=["clean", "shrunk"])
def test_the_label_of_a_patch_belongs_to_its_own_pixels(tmp_path, photo_factory, degradations):
    """Through crop, flip, turn and resize."""
    photo = photo_factory(160, 140, 2) // 2
    mask = np.zeros((160, 140), np.bool_)
    mask[37:110, 31:109] = True
    edit = np.where(mask[..., None], photo + 100, photo)
    found = pairs(write_pair(tmp_path, photo, edit, mask), degradations, crops=100)
    real, synthetic = (tiles.reshape(-1, 4, 16, 4, 16, 3).astype(int) for tiles in found["tiles"])
    changed = (np.abs(real - synthetic) > 50).any(axis=-1).mean(axis=(2, 4))
    share = found["patch_share"][1]
    assert (found["patch_share"][0] == 0.0).all()
    assert 0.1 < changed.mean() < 0.9
    if degradations is CLEAN:
        np.testing.assert_allclose(share, changed, atol=1e-6)
    # A filter smears the border by a pixel or two of 16.
    assert np.abs(share - changed).mean() < 0.01
    assert changed[share == 0.0].max() < 0.15
    assert changed[share == 1.0].min() > 0.85


def test_focus_places_crops_on_the_edit(tmp_path, photo_factory):
    photo = photo_factory(256, 256, 3)
    mask = np.zeros((256, 256), np.bool_)
    mask[:24, :24] = True  # a corner that random crops rarely meet
    manifest = write_pair(tmp_path, photo, photo, mask)
    hits = {
        focus: np.mean(
            pairs(manifest, CLEAN, crops=100, focus=focus)["patch_share"][1].max(axis=(1, 2)) > 0
        )
        for focus in (0.0, 1.0)
    }
    assert hits[0.0] < 0.4
    assert hits[1.0] > 0.9


def test_an_original_of_another_size_is_cropped_at_the_same_relative_place(tmp_path):
    """Re-synthesised frames may come back smaller; brightness tells where in the photo a crop
    lies. Without a mask, the edit labels no tile but the photo."""
    slope = np.linspace(0, 250, 240).astype(np.uint8)[:, None, None]
    ramp = np.broadcast_to(slope, (240, 200, 3)).copy()
    small = np.asarray(Image.fromarray(ramp).resize((100, 120), Image.Resampling.BOX))
    dataset = pair_dataset(write_pair(tmp_path, ramp, small, None), tiles_per_photo=30)
    unit = dataset[0, 0]
    tiles = unit["tiles"].numpy().reshape(2, 30, 64, 64, 3)
    large, shrunk = (tiles[half].mean(axis=(1, 2, 3)) for half in (0, 1))
    assert np.corrcoef(large, shrunk)[0, 1] > 0.8
    assert unit["photo_label"].tolist() == [0.0, 1.0]
    assert not unit["tile_label"][:30].any()
    assert torch.isnan(unit["tile_label"][30:]).all()
    assert torch.isnan(unit["patch_share"][30:]).all()


def test_crops_that_missed_the_edit_do_not_call_the_photo_synthetic(tmp_path, photo_factory):
    photo = photo_factory(160, 160, 5)
    mask = np.zeros((160, 160), np.bool_)
    mask[70:90, 70:90] = True
    manifest = write_pair(tmp_path, photo, photo, mask)
    dataset = pair_dataset(manifest, tiles_per_photo=1, focus=0.0)
    labels = Counter()
    for epoch in range(60):
        unit = dataset[epoch, 0]
        share, label = float(unit["patch_share"][1].max()), float(unit["photo_label"][1])
        labels[label if label == label else "unknown"] += 1
        assert label == (1.0 if share >= 0.5 else 0.0) or (np.isnan(label) and 0.0 < share < 0.5)
    assert min(labels[0.0], labels[1.0], labels["unknown"]) >= 3


def test_draws_depend_on_seed_epoch_and_index_alone(tiny_manifest):
    manifest = read_manifest(tiny_manifest).select(split="train")

    def tiles(seed, epoch, index):
        unit = pair_dataset(manifest, HARSH, seed=seed)[epoch, index]
        return unit["tiles"].numpy().tobytes()

    assert tiles(0, 1, 2) == tiles(0, 1, 2)
    assert len({tiles(0, 1, 2), tiles(1, 1, 2), tiles(0, 2, 2), tiles(0, 1, 3)}) == 4


def test_units_are_pairs_and_lone_photos(tiny_manifest):
    manifest = read_manifest(tiny_manifest).select(split="train")
    names = manifest.table["file_name"]
    units = [tuple(names[row] for row in unit) for unit in training_units(manifest)]
    assert len(units) == 14  # 8 regions, 2 whole, 2 annotated, 2 pasted: each with its original
    pairs = manifest.table["pair"]
    assert [original for original, _ in units] == pairs[pairs != ""].tolist()
    lone = replace(manifest, table=manifest.table.assign(pair=""))
    assert training_units(lone).tolist() == [[-1, row] for row in range(22)]


def test_a_broken_photo_is_named_or_replaced_by_another_never_by_zeros(write_set, tmp_path):
    root = write_set(tmp_path / "set", 8)
    (root / "photos/01_ai_region.png").write_bytes(b"not a photo")
    manifest = read_manifest(root)
    dataset = pair_dataset(manifest)
    with pytest.raises(PhotoError, match="01_ai_region"):
        collate_units([dataset[0, index] for index in range(len(dataset))])
    dataset = pair_dataset(manifest, on_error="skip")
    found = [dataset[0, index] for index in range(len(dataset))]
    skipped = [message for unit in found for message in unit["skipped"]]
    assert len(skipped) == 1
    assert "01_ai_region.png" in skipped[0]
    assert all(tile.any() for unit in found for tile in unit["tiles"])
    row = manifest.table["file_name"].tolist().index("photos/01_ai_region.png")
    filler = WholePhotoDataset(manifest, SPEC, "skip")[row]
    assert "01_ai_region.png" in filler["skipped"][0]
    assert torch.isnan(filler["photo_label"]).all()  # counts for nothing


def test_whole_photos_are_cut_as_the_wrapper_cuts_them(tmp_path, photo_factory):
    photo = photo_factory(300, 150, 6)  # beyond max_side=256
    mask = np.zeros((300, 150), np.bool_)
    mask[:150] = True
    whole = WholePhotoDataset(write_pair(tmp_path, photo, photo, mask), SPEC)[1]
    assert whole["photo_label"].item() == 1.0
    assert whole["tiles"].shape[1:] == (64, 64, 3)
    share = whole["patch_share"]
    assert share.shape == (len(whole["tiles"]), 4, 4)
    assert share[0].min() == 1.0  # the top left tile is painted
    assert share[-1].max() == 0.0  # the bottom right is not


class TestEpochSampler:
    def test_each_epoch_holds_every_unit_once_in_an_order_of_its_own(self):
        """The order depends on seed and epoch alone."""
        orders = set()
        for seed, epoch in ((0, 3), (0, 3), (1, 3), (0, 4)):
            sampler = EpochSampler(20, seed=seed)
            list(sampler)  # having been read before changes nothing
            sampler.set_epoch(epoch)
            order = list(sampler)
            assert {(seen, before) for seen, _, before in order} == {(epoch, 0)}
            assert sorted(index for _, index, _ in order) == list(range(20))
            orders.add(tuple(order))
        assert len(orders) == 3

    @pytest.mark.parametrize(("length", "processes"), [(20, 2), (21, 2), (1, 3)])
    def test_processes_share_the_units_and_take_as_many_steps(self, length, processes):
        samplers = [EpochSampler(length, 0, rank, processes) for rank in range(processes)]
        shares = [[index for _, index, _ in sampler] for sampler in samplers]
        assert {len(share) for share in shares} == {len(samplers[0])} == {-(-length // processes)}
        seen = Counter(index for share in shares for index in share)
        assert set(seen) == set(range(length))
        assert sum(seen.values()) - length < processes  # only the last round is filled up
        if length % processes == 0:
            assert set(seen.values()) == {1}

    def test_draws_follow_the_chances_and_number_their_repeats(self):
        chances = np.array([0.5, 0.25, 0.25, 0.0])
        sampler = EpochSampler(4, seed=0, chances=chances, draws=4000)
        drawn = list(sampler)
        counts = Counter(index for _, index, _ in drawn)
        assert len(sampler) == len(drawn) == 4000
        assert [counts[index] / 4000 for index in range(4)] == pytest.approx(chances, abs=0.03)
        assert len(set(drawn)) == 4000  # no unit is cut twice at the same place
        assert max(before for _, index, before in drawn if index == 1) == counts[1] - 1

    def test_few_shards_are_open_at_a_time_and_epochs_differ(self):
        shards = np.repeat(np.arange(8), 10)
        sampler = EpochSampler(80, seed=0, shards=shards, mixed=2)
        orders = []
        for epoch in (0, 0, 1):
            sampler.set_epoch(epoch)
            orders.append([index for _, index, _ in sampler])
            assert sorted(orders[-1]) == list(range(80))
            read = shards[orders[-1]]
            for place in range(80):
                opened = set(read[:place]) & set(read[place:])
                assert len(opened) <= 2
        assert orders[0] == orders[1] != orders[2]

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"chances": np.full(20, 0.05), "draws": 50},
            {"shards": np.repeat(np.arange(4), 5), "mixed": 2},
        ],
    )
    def test_a_resumed_epoch_has_the_rest_and_the_next_one_is_whole(self, options):
        for rank in range(2):
            straight, resumed = (EpochSampler(20, 3, rank, 2, **options) for _ in range(2))
            straight.set_epoch(1)
            resumed.resume(1, 4)
            assert len(resumed) == len(straight)  # Lightning counts on from the batches it has had
            assert list(resumed) == list(straight)[4:]
            for sampler in (straight, resumed):
                sampler.set_epoch(2)
            assert list(resumed) == list(straight)


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory, photo_factory):
    """Three real photos of source a, one of b, a pair of one family, and lone images of two
    others."""
    root = tmp_path_factory.mktemp("unpaired")
    real = {"label": "real", "source": "a", "part": "photos"}
    lone = {"label": "synthetic", "kind": "ai_whole", "source": "web", "part": "generated"}
    rows = [{**real, "file_name": f"a{i}.png"} for i in range(3)]
    rows += [{**real, "file_name": "b0.png", "source": "b", "part": "generated"}]
    rows += [{**lone, "file_name": f"g{i}.png", "family": "x"} for i in range(4)]
    rows += [{**lone, "file_name": "h0.png", "kind": "ai_region", "family": "y"}]
    edit = {**lone, "family": "codec", "source": "a", "part": "photos"}
    rows += [{**edit, "file_name": "e0.png", "pair": "a0.png"}]
    for number, row in enumerate(rows):
        Image.fromarray(photo_factory(120, 100, number)).save(root / row["file_name"])
    write_manifest(root, pd.DataFrame(rows).fillna(""))
    return read_manifest(root)


def place_of(dataset, name):
    """The unit of a photo without an original."""
    row = dataset.manifest.table["file_name"].tolist().index(name)
    return dataset.units.tolist().index([-1, row])


def test_parts_get_their_shares_and_families_the_square_roots(unpaired):
    units = training_units(unpaired)
    chances = unit_chances(unpaired, units, {"photos": 0.6, "generated": 0.4, "wild": 0.0})
    names = unpaired.table["file_name"]
    by_last = {names[unit[-1]]: chance for unit, chance in zip(units, chances, strict=True)}
    # One edit, and two photos without an edit.
    assert by_last["e0.png"] == pytest.approx(0.6 / (1 + 2**0.5))
    # Families of 4, 1 and 1 units weigh 2, 1 and 1.
    assert by_last["g0.png"] == pytest.approx(0.4 * 2 / 4 / 4)
    assert by_last["h0.png"] == by_last["b0.png"] == pytest.approx(0.4 / 4)
    assert chances.sum() == pytest.approx(1.0)
    for shares in ({"photos": 0.5, "generator": 0.5}, {"photos": 1.5, "generated": -0.5}):
        with pytest.raises(ConfigError, match=r"data\.part_shares"):
            unit_chances(unpaired, units, shares)


def test_an_image_without_an_original_gets_a_degraded_real_partner(unpaired, monkeypatch):
    monkeypatch.setattr("realdamage.training.dataset.FEW", 1)
    names = list(unpaired.table["file_name"])
    rising = replace(HARSH, probability=0.3, jpeg=0.5, webp=0.2, curriculum_epochs=5)
    dataset = pair_dataset(unpaired, rising, tiles_per_photo=1, part_shares=PARTS)
    place = place_of(dataset, "g0.png")
    read = []
    dataset._view = lambda row: (read.append(names[row]), read_view(unpaired, row, SPEC))[1]
    units = [dataset[0, place, before] for before in range(60)]
    partners = Counter(name for name in read if name != "g0.png")
    assert set(partners) == {"a0.png", "a1.png", "a2.png", "b0.png"}
    assert 20 < partners["b0.png"] < 40  # each source is drawn as often: half of 60
    # Every pixel of ai_whole is synthetic.
    assert all(unit["patch_share"][1].min() == 1.0 for unit in units)
    # They share a last save from the first epoch on.
    rng = np.random.default_rng(0)
    drawn = [dataset.always_degraded.draw(rng, epoch) for epoch in (0, 1, 5) for _ in range(50)]
    assert all(any(isinstance(step, Jpeg | Webp) for step in each.steps) for each in drawn)
    plain = pair_dataset(unpaired, tiles_per_photo=1)
    assert plain[0, place]["photo_label"].tolist() == [1.0]


def test_unpaired_photos_are_resized_each_by_its_own_factor(unpaired):
    options = {"tiles_per_photo": 2, "unpaired_scale": (0.5, 1.6)}
    dataset = pair_dataset(unpaired, Degradations(resize=0.0), part_shares=PARTS, **options)
    scales = []
    cut = dataset._cut
    dataset._cut = lambda views, degradation, rng: (
        scales.append(degradation.scale),
        cut(views, degradation, rng),
    )[1]
    units = [dataset[0, place_of(dataset, "g0.png"), before] for before in range(50)]
    assert len(scales) == len(set(scales)) == 200
    assert 0.5 <= min(scales) < 0.6
    assert 1.5 < max(scales) <= 1.6
    assert 0.8 < np.exp(np.mean(np.log(scales))) < 1.0  # sqrt(0.5 * 1.6) = 0.894
    assert all(unit["tiles"].shape[0] == 4 for unit in units)


@pytest.mark.parametrize(("length", "processes"), [(5, 2), (1, 3)])
def test_whole_photos_are_shared_once_each_and_filled_up_with_nothing(length, processes):
    shares = [list(WholePhotoSampler(length, rank, processes)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    seen = Counter(index for share in shares for index in share)
    del seen[-1]
    assert seen == dict.fromkeys(range(length), 1)
    # Manifests are sorted by source, and trainer.limit_val_batches takes the first photos.
    order = list(WholePhotoSampler(1000))
    assert order == list(WholePhotoSampler(1000))
    quarters = Counter(index // 250 for index in order[:100])
    assert all(10 <= quarters[quarter] <= 40 for quarter in range(4))


def test_a_cached_photo_is_read_once_and_a_full_cache_takes_no_more(tiny_manifest, monkeypatch):
    manifest = read_manifest(tiny_manifest).select(split="train")
    plain, cached = pair_dataset(manifest), pair_dataset(manifest, cache_gib=1.0)
    keys = [(epoch, index) for epoch in (0, 1) for index in range(len(plain))]
    expected = [plain[key] for key in keys]
    read = []
    monkeypatch.setattr(
        "realdamage.training.dataset.read_view",
        lambda m, row, spec: (read.append(row), read_view(m, row, spec))[1],
    )
    found = [cached[key] for key in keys]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["tiles"], theirs["tiles"])
        assert torch.equal(ours["patch_share"], theirs["patch_share"])
    assert sorted(read) == sorted(set(cached.units.ravel().tolist()))
    room = cached._cache[0].rgb.nbytes / 2**30  # a real photo's mask is one number
    full = pair_dataset(manifest, cache_gib=1.5 * room)
    for index in range(len(full)):
        full[0, index]
    assert len(full._cache) == 1
