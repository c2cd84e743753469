"""The rules that a fraud team edits: the file shows the defaults, and a slip of the pen is told with what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from realdamage.claims.policy import ClaimPolicy, default_yaml
from realdamage.errors import ConfigError


def test_the_file_to_edit_is_the_default_with_a_comment_on_every_key(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(default_yaml(), encoding="utf-8")
    assert ClaimPolicy.from_yaml(path) == ClaimPolicy.default()
    assert (
        yaml.safe_load(default_yaml()) == ClaimPolicy.default().to_dict()
    )  # no key is missing from the file


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "name: ours\nrules: {verdict_synthetic: escalate}\nescalate_up_to: null\nphotos: {at_least: 2}\n"
    )
    policy = ClaimPolicy.from_yaml(path)
    assert (policy.name, policy.rules.verdict_synthetic, policy.escalate_up_to) == (
        "ours",
        "escalate",
        None,
    )
    assert (policy.photos.at_least, policy.photos.at_most) == (
        2,
        ClaimPolicy.default().photos.at_most,
    )
    assert policy.rules.verdict_review == ClaimPolicy.default().rules.verdict_review


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "rules: {verdict_sinthetic: review}",
            r"unknown key rules\.verdict_sinthetic; did you mean rules\.verdict_synthetic\?",
        ),
        ("rule: {}", r"unknown key rule; did you mean rules\?"),
        ("zzz: 1", "unknown key zzz; known are name, photos"),
        (
            "rules: {verdict_synthetic: escalat}",
            r"rules\.verdict_synthetic: 'escalat' is no recommendation .*; did you mean escalate\?",
        ),
        (
            "rules: {verdict_synthetic: [review]}",
            r"rules\.verdict_synthetic: \['review'\] is no recommendation",
        ),
        (
            "rules: {verdict_synthetic: true}",
            r"rules\.verdict_synthetic: True is no recommendation",
        ),
        ("photos: {at_most: many}", r"photos\.at_most: expected int, found 'many'"),
        ("photos: {at_most: 2.5}", r"photos\.at_most: expected int, found 2\.5"),
        ("photos: {at_most: true}", r"photos\.at_most: expected int, found True"),
        ("photos: {at_least: 0}", r"photos\.at_least: 0, but it must be at least 1"),
        ("photos: {at_least: 5, at_most: 4}", r"photos\.at_least: 5 is above photos\.at_most: 4"),
        ("photos: 3", r"photos: expected `key: value` lines, found 3"),
        (
            "comparison: {min_changed: 5}",
            r"comparison\.min_changed: 5\.0, but it must be in 0\.\.1",
        ),
        ("comparison: {min_changed: .nan}", r"comparison\.min_changed: nan"),
        ("escalate_up_to: -1", r"escalate_up_to: -1\.0"),
        ("name: null", "name: expected str, found None"),
        ("- a\n- b", "the file: expected"),
        ("rules: {", "not YAML"),
    ],
)
def test_a_wrong_file_is_told_with_its_name_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"ours\.yaml: {says}"):
        ClaimPolicy.from_yaml(path)


def test_no_such_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: .*No such file.*--write-policy"):
        ClaimPolicy.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"Is a directory$"):
        ClaimPolicy.from_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match="not YAML"):
        ClaimPolicy.from_yaml(tmp_path / "latin.yaml")


def test_yaml_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="not YAML"):
        ClaimPolicy.from_yaml(path)
