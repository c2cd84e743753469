"""The prompt catalogue covers every damage in every language, and says what is missing where it is written."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from realdamage.configuration import compose
from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ConfigError
from realdamage.synthesis.prompts import GENERIC, SEVERITIES, PromptCatalogue


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    section = OmegaConf.to_container(
        compose("synthesize", ["out=unused", "recipe.name=unused"]).prompts
    )
    assert isinstance(section, dict)
    return section  # type: ignore[return-value]


@pytest.fixture(scope="module")
def catalogue(config: dict[str, Any]) -> PromptCatalogue:
    return PromptCatalogue.from_config(config)


def chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


@pytest.mark.parametrize("damage", [*DAMAGES, ""])
def test_every_damage_is_asked_for_in_english_and_chinese(
    catalogue: PromptCatalogue, damage: str
) -> None:
    rng = np.random.default_rng(0)
    for form in (catalogue.draw, catalogue.instruction):
        prompts = [form(damage, rng, ("en", "zh")) for _ in range(200)]
        assert {prompt.language for prompt in prompts} == {"en", "zh"}
        assert all(chinese(prompt.text) == (prompt.language == "zh") for prompt in prompts)
        assert all(chinese(prompt.negative) == (prompt.language == "zh") for prompt in prompts)
        assert not any("{" in prompt.text + prompt.negative for prompt in prompts)
        assert {prompt.severity for prompt in prompts} == (set(SEVERITIES) if damage else {""})
        assert len({prompt.text for prompt in prompts}) > (100 if damage else 20)


def test_materials_are_those_the_damage_happens_to(catalogue: PromptCatalogue) -> None:
    rng = np.random.default_rng(0)
    drawn = [catalogue.draw("torn", rng, ("en",)).material for _ in range(400)]
    assert set(drawn) == {GENERIC, *catalogue.fits["torn"]}
    assert 0.4 < drawn.count(GENERIC) / len(drawn) < 0.6
    chosen = {catalogue.draw("torn", rng, ("en",), ("paper", "glass")).material for _ in range(50)}
    assert chosen == {GENERIC, "paper"}, "nobody tears glass"


def test_edits_that_add_no_damage_leave_real_damage_alone(catalogue: PromptCatalogue) -> None:
    for language in catalogue.languages.values():
        plain = language.sentences["plain"]
        said = " ".join((*plain.descriptions, *plain.instructions, *plain.negatives))
        assert not any(
            word in said for word in ("damage", "crack", "scratch", "损", "裂", "划", "破", "污")
        )


def test_the_same_random_state_gives_the_same_prompt(catalogue: PromptCatalogue) -> None:
    first = [catalogue.draw("cracked", np.random.default_rng(7), ("en", "zh")) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0] != catalogue.draw("cracked", np.random.default_rng(8), ("en", "zh"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("languages.zh.damages.dented", None, r"languages\.zh\.damages: nothing for dented"),
        ("languages.en.damages.torn.seen.severe", None, r"damages\.torn\.seen: nothing for severe"),
        ("languages.en.damages.torn.seen.severe", [], r"damages\.torn\.seen\.severe has no phrase"),
        ("languages.en.damages.torn.states", None, r"damages\.torn\.states has no phrase"),
        (
            "languages.en.damages.brocken",
            {},
            r'"brocken" is not among prompts.*Did you mean "broken"\?',
        ),
        ("languages.en.materials.glass", None, r"languages\.en\.materials: nothing for glass"),
        (
            "languages.en.materials.glass",
            ["glass", " "],
            r"materials\.glass has no phrase, or an empty one",
        ),
        ("languages.en.degrees.clear", None, r"degrees: nothing for clear"),
        ("languages.en.sentences.plain", None, r"sentences: nothing for plain"),
        (
            "languages.en.sentences.damaged.instructions",
            ["Add {damge}"],
            r'"damge" is not among the placeholders.*Did you mean "damage"\?',
        ),
        (
            "languages.en.sentences.damaged.descriptions",
            ["a {material}"],
            r"does not say which damage",
        ),
        ("languages.en.sentences.damaged.descriptions", ["{damage} {"], r"lone brace"),
        (
            "languages.en.damages.torn.seen.clear",
            ["a {material}"],
            r'"material" is not among.*none is filled there',
        ),
        ("fits.cracked", None, r"prompts\.fits: nothing for cracked"),
        ("fits.cracked", ["stone"], r"materials: nothing for stone"),
        ("languages", {}, r"prompts\.languages is empty"),
        ("generic_share", 1.5, r"generic_share=1\.5"),
    ],
)
def test_what_is_wrong_with_a_catalogue_is_named(
    config: dict[str, Any], path: str, value: Any, message: str
) -> None:
    changed = copy.deepcopy(config)
    *parents, key = path.split(".")
    node = changed
    for parent in parents:
        node = node[parent]
    if value is None:
        del node[key]
    else:
        node[key] = value
    with pytest.raises(ConfigError, match=message):
        PromptCatalogue.from_config(changed)


def test_words_the_catalogue_does_not_have_are_named(catalogue: PromptCatalogue) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match=r'"crackd".*Did you mean "cracked"'):
        catalogue.draw("crackd", rng, ("en",))
    with pytest.raises(ConfigError, match=r'"de".*known: en, zh'):
        catalogue.instruction("cracked", rng, ("de",))
    with pytest.raises(ConfigError, match=r'"glas".*Did you mean "glass"'):
        catalogue.instruction("cracked", rng, ("en",), ("glas",))
    with pytest.raises(ConfigError, match="languages is empty"):
        catalogue.draw("cracked", rng, ())


def test_a_misspelt_key_stops_the_run() -> None:
    with pytest.raises(ConfigError, match=r"generic_share"):
        compose("synthesize", ["out=unused", "prompts.generic_shar=0"])
