"""Generators of every engine behind one face: what they are asked for, and what a recipe may say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realdamage.data.writer import TablePool
from realdamage.errors import SynthesisError
from realdamage.synthesis import inpaint, instruct
from realdamage.synthesis.engine import Edit
from realdamage.synthesis.generators import GeneratorSettings, load_generators
from realdamage.synthesis.group import Base, GroupMaker, group_photos


class Asked:
    """Stands for a diffusion pipeline: notes what it is asked for and darkens what it would paint."""

    calls: list[tuple[str, Any, float]]

    def __init__(self, settings: Any, generator: str, family: str, prompts: Any) -> None:
        self.settings = settings

    def regenerate(
        self, rgb: np.ndarray, region: np.ndarray, damage: str, rng: np.random.Generator
    ) -> Edit:
        Asked.calls.append(("region", damage, float(region.mean())))
        return Edit(
            np.where(region[..., None], rgb // 2, rgb),
            region,
            damage,
            {"model": self.settings.model},
        )

    def edit(self, rgb: np.ndarray, damage: str, rng: np.random.Generator) -> Edit:
        Asked.calls.append(("whole", damage, 1.0))
        return Edit(
            rgb // 2,
            np.ones(rgb.shape[:2], np.bool_),
            damage,
            {"model": self.settings.model, "seed": "7"},
        )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> type[Asked]:
    monkeypatch.setattr(inpaint, "Inpaint", Asked)
    monkeypatch.setattr(instruct, "Instruct", Asked)
    Asked.calls = []
    return Asked


@pytest.fixture(scope="module")
def prompts() -> dict[str, Any]:
    from realdamage.configuration import compose, plain

    return plain(compose("synthesize", ["+recipe=sample"]).prompts)


SETTINGS = (
    GeneratorSettings(
        "sd", "hub/sd-inpaint", "sd1", "inpaint", {"steps": 20, "languages": ["en", "zh"]}
    ),
    GeneratorSettings("kontext", "hub/kontext", "flux1", "edit"),
)


def test_diffusion_models_get_the_edits_they_can_make_and_their_details_reach_the_manifest(
    asked: type[Asked], prompts: dict[str, Any], tmp_path: Path
) -> None:
    maker = GroupMaker(
        load_generators(SETTINGS, prompts), TablePool.of_qualities(95, 95), ("cracked",)
    )
    shares = {"ai_region": 3.0, "ai_whole": 3.0}
    base = Base(studio_seed=3, condition="intact", shares=shares, paint_share=0.5)
    rows = group_photos(maker, base, 0, tmp_path, np.random.default_rng(1))
    assert [row["generator"] for row in rows] == ["", *["sd"] * 3, *["kontext"] * 3]
    assert {row["family"] for row in rows[1:]} == {"sd1", "flux1"}
    assert {row["model"] for row in rows[1:4]} == {"hub/sd-inpaint"}
    assert {row["seed"] for row in rows[4:]} == {"7"}
    assert {kind for kind, _, _ in asked.calls} == {"region", "whole"}
    assert {damage for _, damage, _ in asked.calls} == {"cracked", ""}
    assert [row["damage"] for row in rows[1:]] == [damage for _, damage, _ in asked.calls]
    regions = [share for kind, _, share in asked.calls if kind == "region"]
    assert len(set(regions)) == 3  # random blobs
    assert 0 < min(regions) <= max(regions) < 0.4


def test_options_of_a_diffusion_model_are_checked(
    asked: type[Asked], prompts: dict[str, Any]
) -> None:
    [made] = load_generators(SETTINGS[:1], prompts)
    assert made.engine.settings.steps == 20  # type: ignore[attr-defined]
    assert made.engine.settings.languages == ("en", "zh")  # type: ignore[attr-defined]
    with pytest.raises(
        SynthesisError, match=r"generators\.sd\.options\.stpes: unknown; known are blend, "
    ):
        load_generators([GeneratorSettings("sd", "x", "y", "inpaint", {"stpes": 3})], prompts)


def test_what_an_engine_cannot_do_is_refused(asked: type[Asked], prompts: dict[str, Any]) -> None:
    painter, editor = load_generators(SETTINGS, prompts)
    rgb, rng = np.zeros((32, 32, 3), np.uint8), np.random.default_rng(0)
    with pytest.raises(SynthesisError, match="sd: an inpainting model edits regions"):
        painter.whole(rgb, None, "", rng)
    with pytest.raises(SynthesisError, match="kontext: an instruction editor edits whole photos"):
        editor.region(rgb, None, "", rng)
    with pytest.raises(
        SynthesisError, match=r"generators\.x\.engine=paint: allowed are codec, inpaint, edit"
    ):
        GeneratorSettings("x", "y", "z", "paint")
    with pytest.raises(
        SynthesisError, match=r"generators\.x\.options: a codec takes none; found steps"
    ):
        GeneratorSettings("x", "y", "z", "codec", {"steps": 3})


def test_a_codec_paints_only_when_damage_is_asked_for(photo_factory: Any) -> None:
    [codec] = load_generators([GeneratorSettings("house", "house", "house")], {})
    rgb = photo_factory(128, 160, 0)
    plain = codec.whole(rgb, None, "", np.random.default_rng(0))
    torn = codec.whole(rgb, None, "torn", np.random.default_rng(0))
    assert (plain.damage, torn.damage) == ("", "torn")
    assert plain.mask.all()
    assert torn.mask.all()
    changed = np.abs(plain.rgb.astype(int) - torn.rgb).max(axis=2) > 8
    assert 0 < changed.mean() < 0.7
    region = codec.region(rgb, None, "torn", np.random.default_rng(0))
    assert 0 < region.mask.mean() < 1
    assert (region.rgb[~region.mask] == rgb[~region.mask]).mean() > 0.5
