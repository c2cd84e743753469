"""The prompt catalogue covers every damage in every language, and says what is missing where it is
written."""

import copy

import numpy as np
import pytest

from realdamage.data.vocabulary import DAMAGES
from realdamage.errors import ConfigError
from realdamage.synthesis.prompts import FORMS, PromptCatalogue


@pytest.fixture(scope="module")
def catalogue(prompts):
    return PromptCatalogue(**prompts)


def chinese(text):
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


@pytest.mark.parametrize("damage", [*DAMAGES, ""])
def test_damage_is_asked_for_in_both_languages(catalogue, damage):
    rng = np.random.default_rng(0)
    for form in FORMS:
        prompts = [catalogue.draw(form, damage, rng, ("en", "zh")) for _ in range(120)]
        assert {chinese(prompt.text) for prompt in prompts} == {True, False}
        assert all(chinese(prompt.text) == chinese(prompt.negative) for prompt in prompts)
        assert not any("{" in prompt.text + prompt.negative for prompt in prompts)
        assert len({prompt.text for prompt in prompts}) > (60 if damage else 20)


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("languages.zh.damages.dented", None, "languages.zh.damages.dented"),
        ("languages.en.damages.torn.seen.severe", [], "damages.torn.seen.severe"),
        ("languages.en.materials.glass", ["glass", " "], "materials.glass"),
        ("languages.en.sentences.damaged.instructions", ["Add {damge}"], "damge"),
        ("fits.cracked", ["stone"], "materials.stone"),
        ("generic_share", 1.5, "generic_share=1.5"),
    ],
)
def test_what_is_wrong_with_a_catalogue_is_named(prompts, path, value, key):
    changed = copy.deepcopy(prompts)
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node[parent]
    if value is None:
        del node[last]
    else:
        node[last] = value
    with pytest.raises(ConfigError, match=key):
        PromptCatalogue(**changed)
