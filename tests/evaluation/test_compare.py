"""Two models on the same photos: the difference and what to conclude from it, and what cannot be
compared at all."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from realdamage.commands.cli import main
from realdamage.errors import RealDamageError
from realdamage.evaluation.compare import FIGURES, compare_models
from realdamage.evaluation.figures import tpr_at_fpr
from realdamage.evaluation.predictions import predictions_table, write_predictions

T_REAL, T_SYNTHETIC = 0.0, 2.0


def judged(table, score):
    outcome = np.select([score >= T_SYNTHETIC, score <= T_REAL], ["synthetic", "real"], "review")
    return table.assign(score=score, probability=1 / (1 + np.exp(1 - score)), outcome=outcome)


def model(strength, seed=0, n=120):
    """A model whose scores of edits lie `strength` above those of real photos: n each of really
    damaged photos, other real ones, and edits of the damaged ones; three to a group."""
    kind = np.repeat(["damaged", "original", "ai_region"], n)
    names = [f"{sort}{i}.jpg" for sort in ("damaged", "original", "edit") for i in range(n)]
    columns = {
        **{"file_name": names, "kind": kind, "group": [f"g{i}" for i in range(n)] * 3},
        **{"label": np.repeat(["real", "real", "synthetic"], n), "pair": [""] * 2 * n + names[:n]},
    }
    table = predictions_table(pd.DataFrame(columns))
    noise = np.random.default_rng(seed).normal(0, 1, len(table))
    return judged(table, noise + strength * (table["label"] == "synthetic").to_numpy())


def compared(a, b):
    return {row.figure: row for row in compare_models(a, b, n_boot=200).figures}


def test_the_figures_are_those_of_the_libraries():
    a, b = model(0.5, seed=1), model(1.5, seed=2)
    found = compared(a, b)
    damaged = (a["kind"] == "damaged").to_numpy()
    synthetic = (a["label"] == "synthetic").to_numpy()
    for side, table in (("a", a), ("b", b)):
        score, called = table["score"].to_numpy(), (table["outcome"] == "synthetic").to_numpy()
        expected = {
            "auroc": roc_auc_score(synthetic, score),
            "tpr_at_fpr_1": tpr_at_fpr(score[damaged], score[synthetic], 0.01),
            "tpr_at_fpr_5": tpr_at_fpr(score[damaged], score[synthetic], 0.05),
            "balanced_at_thresholds": (called[synthetic].mean() + (~called[~synthetic]).mean()) / 2,
            "false_alarms": called[damaged].mean(),
            "missed": (table["outcome"] == "real").to_numpy()[synthetic].mean(),
            "review": (table["outcome"] == "review").mean(),
            "brier": ((table["probability"] - synthetic) ** 2).mean(),
            "pairs": (score[synthetic] > score[damaged]).mean(),
        }
        for figure, value in expected.items():
            assert getattr(found[figure], side) == pytest.approx(value, abs=1e-9), (side, figure)


def test_a_much_better_model_is_recognised_and_the_other_way_round_a_worse_one():
    found = compared(model(0.5), model(2.5))
    for figure in ("auroc", "tpr_at_fpr_1", "balanced_at_thresholds", "missed", "brier", "pairs"):
        assert found[figure].standing == "better", figure
    assert found["missed"].high < 0
    assert found["false_alarms"].standing == "no clear difference"  # its real photos score the same
    swapped = compared(model(2.5), model(0.5))
    assert swapped["auroc"].standing == swapped["missed"].standing == "worse"
    few = compared(model(0.0, n=10), model(4.0, n=10))["auroc"]
    assert (few.low, few.standing) == (None, "no clear difference")


def test_only_the_same_photos_under_the_same_perturbation_are_compared():
    a, b = model(1.0), model(1.2, seed=3)
    perturbed = a.assign(perturbation="jpeg_50")
    alone = b.assign(perturbation="blur")
    unscored = b.copy()
    unscored.loc[0, "score"] = np.nan
    left = pd.concat([a.iloc[:-2], perturbed], ignore_index=True)
    right = pd.concat([unscored, perturbed, alone], ignore_index=True)
    found = compare_models(left, right)
    assert (found.n, found.only_a, found.only_b, found.unscored) == (357, 0, 2 + 360, 1)
    assert (found.n_real, found.n_damaged, found.n_groups) == (239, 119, 120)
    assert list(found.perturbed) == ["jpeg_50"]
    # There, each is compared with itself.
    assert [row.figure for row in found.perturbed["jpeg_50"]] == list(FIGURES)
    for row in found.perturbed["jpeg_50"]:
        assert (row.difference, row.low, row.high) == (0.0, 0.0, 0.0)
        assert row.standing == "no clear difference"


def test_what_the_photos_cannot_carry_is_left_out_with_the_reason():
    a, b = model(1.0, n=30), model(1.5, n=30)
    b = b.assign(reasons="not_calibrated", outcome="review", probability=np.nan)
    found = compared(a.assign(pair=""), b)
    assert found["auroc"].standing != "not measured"
    assert "30 really damaged photos" in found["tpr_at_fpr_1"].reason
    assert found["false_alarms"].reason.startswith("B: the model has no thresholds")
    assert found["brier"].reason.startswith("B: 90 of 90 photos lack a probability")
    assert found["pairs"].standing == "not measured"
    assert (found["pairs"].a, found["pairs"].low) == (None, None)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("no_common_photo", lambda a: a.assign(file_name="else/" + a["file_name"], pair="")),
        ("labels_differ", lambda a: a.assign(label=["synthetic", *a["label"][1:]])),
        ("photos_differ", lambda a: a.assign(photo_sha256=["b" * 64, *["a" * 64] * 59])),
        ("one_class", lambda a: a[a["label"] == "real"]),
    ],
)
def test_input_that_cannot_be_compared_is_refused(code, change):
    a = model(1.0, n=20).assign(photo_sha256="a" * 64)
    with pytest.raises(RealDamageError) as caught:
        compare_models(a, change(a))
    assert caught.value.code == code


def test_the_command_fails_where_b_is_worse(tmp_path, capsys):
    write_predictions(tmp_path / "a" / "predictions.csv", model(2.5, n=40))
    write_predictions(tmp_path / "b" / "predictions.parquet", model(1.0, n=40))
    command = ["compare", *(str(tmp_path / name) for name in ("a", "b"))]
    assert main(command) == 0
    assert "B is worse at 95%" in capsys.readouterr().out
    assert main([*command, "--fail-if-worse"]) == 1
    assert main(["compare", command[1], command[1], "--fail-if-worse"]) == 0
    assert main(["compare", str(tmp_path), command[1]]) == 2
