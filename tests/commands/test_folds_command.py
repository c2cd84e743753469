"""realdamage-folds:

folds are dealt and checked before anything is trained, and finished ones are not run again.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from realdamage.commands import folds
from realdamage.configuration import compose, plain
from realdamage.core.model_file import read_model_file, write_model_file
from realdamage.core.policy import Calibration, Policy
from realdamage.data.manifest import Manifest, read_manifest, with_known_columns
from realdamage.errors import ConfigError, RealDamageError
from realdamage.evaluation.predictions import read_predictions

# Without one generator, the source gives the label away: the audit may only warn.
EXPERIMENT = """# @package _global_
data: {batch_units: 7, tiles_per_photo: 1, audit: warn}
model: {backbone: test_vit, pretrained: false, tile: 64, overlap: 16}
trainer: {max_epochs: 1, limit_train_batches: 1}
callbacks: {pictures: null}
"""


def set_of(photos):
    """So many synthetic photos of each family, and a real one."""
    rows = [{"file_name": "real.png", "label": "real", "split": "test"}]
    for family, count in photos.items():
        about = {"label": "synthetic", "family": family, "split": "test"}
        rows += [{"file_name": f"{family}_{index}.png", **about} for index in range(count)]
    return Manifest(Path("photos"), with_known_columns(pd.DataFrame(rows).fillna("")))


def test_the_most_frequent_value_goes_first_into_the_smallest_fold():
    manifest = set_of({"a": 3, "b": 9, "c": 3, "d": 5, "e": 1})
    # 9 | 5; 3 (a) to the second: 8; 3 (c) to the second: 11; 1 to the first.
    dealt = {"fold1": ["b", "e"], "fold2": ["d", "a", "c"]}
    assert folds.deal_folds(manifest, "family", 2) == dealt
    turned = replace(manifest, table=manifest.table.iloc[::-1].reset_index(drop=True))
    assert folds.deal_folds(turned, "family", 2) == dealt
    for photos, count in (({"a": 2}, 6), ({"a": 2, "b": 1}, 1)):
        with pytest.raises(ConfigError) as caught:
            folds.deal_folds(set_of(photos), "family", count)
        assert caught.value.code == "too_few_folds"


def test_any_word_reaches_the_training_as_it_is(tmp_path):
    words = ["it's", "a,b", "x=y", "\\'", 'Magic "Brush"', "[1]", "2024", "null", "#1", "für"]
    values = ",".join(folds.quoted(word) for word in words)
    run = f"paths.run={folds.quoted(str(tmp_path / 'a b'))}"
    config = plain(compose("train", [f"+data.exclude.family=[{values}]", run]))
    assert config["data"]["exclude"] == {"family": words}
    assert config["paths"]["run"] == str(tmp_path / "a b")


@pytest.fixture
def typed(run_command, tiny_manifest, tmp_path):
    """Runs the command on 16 groups, with an experiment of the user's own."""
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text(EXPERIMENT)

    def run(*arguments):
        shared = (f"data.root={tiny_manifest}", "column=generator", "train_experiment=own")
        return run_command("folds", "--config-dir", "mine", *shared, *arguments)

    return run


@pytest.mark.slow
def test_photos_in_table_out_and_again(typed, tiny_manifest, tmp_path):
    perturbation = "+robustness.perturbations.soft={steps: [{step: blur, sigma: 2}]}"
    arguments = ("folds={nothing_even: [even]}", perturbation)
    done = typed(*arguments)
    assert done.code == 0, done.out + done.err
    root = tmp_path / "out/folds"
    fold = root / "nothing_even"
    assert (fold / "own/best.ckpt").is_file()
    _, metadata, _ = read_model_file(fold / "model.onnx")
    assert metadata.training["excluded"] == {"generator": ["even"]}
    assert metadata.training["generators"] == ["odd"]

    table = pd.read_csv(root / "folds.csv")
    own = table[table["fold"] == "nothing_even"]
    assert list(zip(own["left_out"], own["perturbation"], strict=True)) == [
        (part, name) for part in ("all", "even") for name in ("none", "soft")
    ]
    photos = read_manifest(tiny_manifest).table
    test = photos[photos["split"] == "test"]
    even = test[test["generator"] == "even"]
    assert set(own["n_real"]) == {(test["label"] == "real").sum()}
    assert set(own["n_synthetic"]) == {len(even)}
    assert table.loc[0, "command"].startswith("realdamage-folds ")
    assert (root / "folds.md").read_text() in done.out

    again = typed(*arguments)
    assert again.code == 0, again.err
    assert "$ realdamage-train" in done.out
    assert "$ realdamage-" not in again.out, "a finished fold was run again"
    assert pd.read_csv(root / "folds.csv")[own.columns[:-3]].equals(table[own.columns[:-3]])
    changed = typed(*arguments, "overrides=['model.lr=0.5']")
    assert changed.code == 2
    assert "model.lr was 0.001, now 0.5" in changed.err


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("column=family", "family"),  # only one family is there
        ("folds={f: [evn]}", "'even'"),
        ("folds={mean: [even]}", "folds.mean"),
        ("folds=[even,odd]", "{NAME:"),
        ("folds={f: {generator: [even], source: [shop9]}}", "'shop9'"),
        ("train_experiment=ovn", "experiment=own"),
    ],
)
def test_a_bad_call_ends_before_anything_is_trained(argument, named, typed, tmp_path):
    done = typed(argument)
    assert done.code == 2
    assert named in done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "out").rglob("*.ckpt"))


@pytest.fixture
def launched(tiny_onnx, monkeypatch):
    """Stands for the commands' processes: leaves what they leave, and remembers what was called."""
    calls = []

    def run(command, *arguments):
        given = dict(each.replace("'", "").split("=", 1) for each in arguments)
        fold = given["name"].split("/")[1]
        calls.append(f"{fold} {command}")
        if fold == "broken":
            raise RealDamageError("no luck")
        folder = Path(given["paths.out"]) / given["name"]
        folder.mkdir(parents=True, exist_ok=True)
        if command == "train":
            assert given["resume"] == "last"
            (folder / "best.ckpt").touch()
            return
        data, metadata, _ = read_model_file(tiny_onnx)
        metadata = replace(metadata, training={"excluded": {"generator": ["even"]}})
        write_model_file(given["output"], data, metadata)

    monkeypatch.setattr(folds, "typed", run)
    return calls


def test_what_is_missing_is_made_and_a_failed_fold_does_not_stop_the_others(
    typed, launched, tmp_path
):
    names = "folds={broken: [odd], good: [even]}"
    done = typed(names)
    assert done.code == 1
    assert "error: broken: no luck" in done.err
    assert launched == ["broken train", "good train", "good export"]
    root = tmp_path / "out/folds"
    scored = read_predictions(root / "good/test/predictions.csv")
    assert set(scored.loc[scored["label"] == "synthetic", "generator"]) == {"even"}
    assert set(scored["split"]) == {"test"}
    assert (scored["label"] == "real").sum() == 5  # groups 12 to 15, and one annotated photo
    assert "broken" in (root / "folds.md").read_text()

    launched.clear()
    blurred = "+robustness.perturbations.soft={steps: [{step: blur, sigma: 2}]}"
    assert typed("folds={good: [even]}", blurred).code == 0
    assert launched == []  # scored again, but not trained again
    scored = read_predictions(root / "good/test/predictions.csv")
    assert set(scored["perturbation"]) == {"", "soft"}
    mine = root / "good/notes.txt"
    mine.touch()
    assert typed("folds={good: [even]}", "overwrite=true").code == 0
    assert launched == ["good train", "good export"]
    assert mine.is_file()


def test_a_fold_that_leaves_a_source_out_too_is_judged_without_it(
    typed, launched, tiny_manifest, tmp_path, monkeypatch
):
    def calibrate(path, known, targets, **_):
        """The network of a few steps separates nothing, which the real one refuses."""
        assert (targets.fpr, targets.miss) == (0.4, 0.3)  # no split `policy`, so no guarantee
        assert set(known.table["source"]) == {"shop1"}
        assert "even" not in set(known.table["generator"])
        data, metadata, _ = read_model_file(path)
        policy = Policy(0.5, -0.5, fpr=0.4, miss=0.3, negatives="real", photos={})
        calibration = Calibration(slope=1.0, intercept=0.0, prior=0.5)
        write_model_file(path, data, replace(metadata, policy=policy, calibration=calibration))

    monkeypatch.setattr(folds, "calibrate_model", calibrate)
    both = "folds={good: {generator: [even], source: [shop0]}}"
    done = typed(both, "alpha=0.4", "beta=0.3")
    assert done.code == 0, done.err
    assert launched == ["good train", "good export"]
    root = tmp_path / "out/folds"
    table = pd.read_csv(root / "folds.csv")
    own = table[table["fold"] == "good"].set_index(["column", "left_out"])
    assert list(own.index) == [("generator", "all"), ("generator", "even"), ("source", "shop0")]
    photos = read_manifest(tiny_manifest).table
    new = (photos["label"] == "real") & (photos["source"] == "shop0")
    assert set(own["n_real"]) == {new.sum()}  # from all splits
    scored = read_predictions(root / "good/test/predictions.csv")
    honest = scored[(scored["label"] == "real") & (scored["source"] == "shop0")]
    assert set(own["honest_review"]) == {(honest["outcome"] == "review").sum()}
    assert set(honest["split"]) == {"train", "val", "test"}
