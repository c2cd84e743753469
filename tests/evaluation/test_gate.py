"""The gate's limits are found where a made-up model breaks, and not where it does not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from realdamage.core.model_file import read_model_file
from realdamage.core.policy import Policy
from realdamage.errors import RealDamageError
from realdamage.evaluation.gate import derive_gate, gate_model
from realdamage.evaluation.predictions import predictions_table

POLICY = Policy(
    t_synthetic=1.0, t_real=-1.0, fpr=0.01, miss=0.05, negatives="real", photos={"real": 300}
)
CLEAN = {"compression": (85, 100), "short_side": (600, 900)}
WORSE = {"compression": (10, 95), "short_side": (60, 800)}


def photos(n=400, *, accuse="", **breaks):
    """`n` photos, clean and under two perturbations, each of which worsens one number evenly.

    breaks: below this value of a number the model finds nothing, or with `accuse` accuses honest
    photos.
    """
    rng = np.random.default_rng(0)
    synthetic = np.arange(n) % 2 == 1
    own = {name: rng.uniform(*limits, n) for name, limits in CLEAN.items()}
    tables = []
    for worse in ("", *WORSE):
        values = own | ({worse: rng.uniform(*WORSE[worse], n)} if worse else {})
        broken = np.any(
            [values[name] < limit for name, limit in breaks.items()] or [[False]], axis=0
        )
        found = rng.random(n) < np.where(broken & (accuse == ""), 0.02, 0.9)
        found = np.where(synthetic, found, broken & (accuse != ""))
        columns = {
            "file_name": [f"{i}.jpg" for i in range(n)],
            "label": np.where(synthetic, "synthetic", "real"),
            "kind": np.where(synthetic, "ai_region", "damaged"),
            "score": np.where(found, 2.0, -2.0),
            "width": np.round(values["short_side"]) + 200,
            "height": np.round(values["short_side"]),
            "compression": np.round(values["compression"]),
        }
        constants = {"perturbation": worse, "hot_share": 0.1, "fine_detail": 0.1}
        tables.append(predictions_table(pd.DataFrame({**columns, **constants})))
    return pd.concat(tables, ignore_index=True)


def limits(summary):
    return summary.gate.min_side, summary.gate.min_quality


def test_a_model_that_never_breaks_gets_no_gate():
    summary = derive_gate(photos(), POLICY)
    assert limits(summary) == (None, None)
    assert summary.gated == (0.0, 0.0)
    assert summary.tpr_floor == pytest.approx(0.45, abs=0.03)
    assert all(curve.bins["trusted"].all() for curve in summary.curves)


@pytest.mark.parametrize(
    ("column", "where", "within", "accuse"),
    [("compression", 45, 12, ""), ("short_side", 300, 90, "honest")],
)
def test_the_point_where_a_model_breaks_is_found_and_only_that(column, where, within, accuse):
    """Whether it stops finding synthetic photos, or starts to accuse honest ones."""
    summary = derive_gate(photos(1200, accuse=accuse, **{column: where}), POLICY)
    names = ("short_side", "compression")
    for name, limit in zip(names, limits(summary), strict=True):
        if name == column:
            assert limit == pytest.approx(where, abs=within)
        else:
            assert limit is None
    curve = next(curve for curve in summary.curves if curve.column == column)
    assert ("accuses" if accuse else "finds") in curve.reason


SOURCES = {
    "shop": np.linspace(0.1, 0.2, 100),
    "cameras": np.linspace(0.03, 0.3, 50),
    "few": np.full(19, 0.001),
}


def of_sources(soft=0.02):
    """Photos of `SOURCES` with these clean values of `fine_detail`; every second one is honest."""
    names = [name for name, values in SOURCES.items() for _ in values for _ in "rs"]
    table = photos(len(names)).assign(source=names * 3)
    table["fine_detail"] = np.tile(np.repeat(np.concatenate(list(SOURCES.values())), 2), 3)
    table.loc[table["perturbation"] == "short_side", "fine_detail"] = soft
    return table


def test_the_blur_limit_keeps_its_share_in_each_source():
    """The softest source with at least 20 photos decides; smaller ones do not count."""
    summary = derive_gate(of_sources(), POLICY, max_gated=0.2)
    assert summary.gate.min_fine_detail == summary.blur[0] == pytest.approx(SOURCES["cameras"][1])
    assert "the softest: cameras" in summary.blur[1]
    assert limits(summary) == (None, None)
    assert summary.per_perturbation["short_side"] == 1.0
    assert summary.gated[0] == pytest.approx(20 / 169)
    with pytest.raises(RealDamageError, match=r"fine_detail 0\.0355") as error:
        derive_gate(of_sources(), POLICY)
    assert error.value.code == "too_many_gated"


def test_only_the_negatives_that_the_policy_names_count_as_accused():
    table = photos(accuse="honest", compression=45)
    intact = (table["kind"] == "damaged") & (np.arange(len(table)) % 4 == 0)
    table = table.assign(kind=table["kind"].mask(intact, "original"))
    table.loc[table["kind"] == "damaged", "score"] = -2.0
    assert derive_gate(table, POLICY).gate.min_quality is not None
    damaged = derive_gate(table, replace(POLICY, negatives="damaged"))
    assert (damaged.gate.min_quality, damaged.negatives) == (None, "damaged")


def test_the_gate_goes_into_the_model_file(save_red_model, tmp_path):
    calibrated = save_red_model(tmp_path / "red.onnx", policy=POLICY)
    output = tmp_path / "gated.onnx"
    before = read_model_file(calibrated)
    table = photos(compression=45).assign(graph_sha256=before[2])
    summary = gate_model(calibrated, table, output=output)
    _, metadata, digest = read_model_file(output)
    assert metadata.policy is not None
    assert metadata.policy.gate == summary.gate
    assert replace(metadata.policy, gate=None) == POLICY
    assert digest == before[2]
    assert read_model_file(calibrated) == before
    with pytest.raises(RealDamageError) as error:
        gate_model(calibrated, table.assign(graph_sha256="abc" * 10))
    assert error.value.code == "other_network"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: t[t["perturbation"] == ""], "no_perturbations"),
        (lambda t: t.assign(compression=np.nan), "no_quality"),
        (lambda t: t[t["label"] == "real"], "too_few_photos"),
        (lambda t: t.assign(score=-2.0), "never_trusted"),
    ],
)
def test_tables_that_make_no_curve_are_refused(change, code):
    with pytest.raises(RealDamageError) as error:
        derive_gate(change(photos()), POLICY, tpr_floor=0.5)
    assert error.value.code == code
