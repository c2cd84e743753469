"""The rules that a fraud team edits: the file shows the defaults, and a mistake is named with its
key."""

import json

import pytest
import yaml

from realdamage.claims.policy import ClaimPolicy, default_yaml
from realdamage.errors import ConfigError


def read(tmp_path, text):
    path = tmp_path / "ours.yaml"
    path.write_text(text, encoding="utf-8")
    return ClaimPolicy.from_yaml(path)


def test_the_file_to_edit_has_every_key_with_its_default(tmp_path):
    assert read(tmp_path, default_yaml()) == ClaimPolicy()
    stored = json.loads(json.dumps(ClaimPolicy().to_dict()))
    assert yaml.safe_load(default_yaml()) == stored
    policy = read(tmp_path, "rules: {verdict_synthetic: escalate}\nescalate_up_to: null\n")
    assert (policy.name, policy.rules.verdict_synthetic) == ("default", "escalate")
    assert policy.escalate_up_to is None
    assert policy.photos == ClaimPolicy().photos


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: {verdict_sinthetic: review}", "rules: .*did you mean verdict_synthetic"),
        ("photos: {at_most: many}", r"photos\.at_most: .*'many'"),
        ("photos: {at_least: 5, at_most: 4}", r"photos\.at_least: 5 .*photos\.at_most: 4"),
        ("comparison: {min_changed: .nan}", r"comparison\.min_changed: nan"),
        ("cases: {second_person: [refuze]}", "refuze"),
        ("- a\n- b", r"\['a', 'b'\]"),
        ("name: !!python/object/apply:os.getcwd []", "YAML"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(tmp_path, text, says):
    with pytest.raises(ConfigError, match=rf"ours\.yaml: .*{says}"):
        read(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            ClaimPolicy.from_yaml(path)
