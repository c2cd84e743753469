"""What a model cannot do, taken from its figures: slices that it hardly tells apart, photos that make it accuse more
honest buyers than it may, and what no test has looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from realdamage.core.policy import Policy
from realdamage.data.vocabulary import DAMAGES
from realdamage.evaluation.figures import has_thresholds
from realdamage.rendering.card_figures import Evaluated, cell, share
from realdamage.rendering.card_markdown import Markdown, table

Row = Mapping[str, Any]

LEAST_AUROC, LEAST_TPR = 0.7, 0.1
"""Below either, a slice stands among what the model cannot do. Without any skill they are 0.5 and 0.01."""
_KEYS = (
    "perturbation",
    "kind",
    "generator",
    "family",
    "damage",
    "mask_area",
    "source",
    "condition",
)
_FEW_SOURCE = 5  # real photos in training that make a source worth its name


def weak_slices(evaluations: Sequence[Evaluated]) -> Markdown:
    """Every value of one column whose AUROC is below `LEAST_AUROC` or whose TPR at 1% FPR is below `LEAST_TPR`, the
    worst of each evaluation first; "" when there is none. Values that hold the very same photos share a line."""
    rows = []
    for evaluated in evaluations:
        names: dict[tuple[Any, ...], list[str]] = {}
        found: dict[tuple[Any, ...], Row] = {}
        for key, value, row in _measured(evaluated):
            if row["auroc"] < LEAST_AUROC or (
                row.get("tpr_at_fpr_1") is not None and row["tpr_at_fpr_1"] < LEAST_TPR
            ):
                same = (row["n"], row["auroc"], row.get("tpr_at_fpr_1"), row.get("called_real"))
                names.setdefault(same, []).append(f"{key.replace('_', ' ')} {value}")
                found.setdefault(same, row)
        for same in sorted(found, key=lambda each: float(each[1])):
            row = found[same]
            told = " = ".join(names[same])
            rows.append(
                (
                    evaluated.name,
                    told,
                    f"{row['n']:,}",
                    cell(row, "auroc"),
                    cell(row, "tpr_at_fpr_1"),
                )
            )
    return table(("evaluation", "slice", "photos", "AUROC", "TPR at 1% FPR"), rows)


def unmeasured(evaluations: Sequence[Evaluated]) -> Iterator[str]:
    """A sentence for each evaluation that holds values with too few photos for a figure."""
    for evaluated in evaluations:
        parts = []
        for key in _KEYS:
            rows = evaluated.report.slices.get(key, ())
            few = sum(row.get("auroc") is None for row in rows)
            if few:
                parts.append(f"{few:,} of {len(rows):,} values of {key.replace('_', ' ')}")
        if parts:
            yield f"“{evaluated.name}” has too few photos for a figure of {', '.join(parts)}: they may be as weak."


def accusations(evaluations: Sequence[Evaluated], policy: Policy | None) -> list[str]:
    """Where honest photos, those of real damage and all real ones, were called synthetic more often than the policy
    allows, and what nobody has measured of it."""
    if policy is None:
        return [
            "The model has no thresholds, so how often it would accuse an honest buyer is not known."
        ]
    alpha = policy.guarantee.alpha if policy.guarantee else None
    allowed = policy.fpr if alpha is None else alpha
    most = f"{100 * allowed:g}% that the {'thresholds were chosen at' if alpha is None else 'promise allows'}"
    sentences = []
    for evaluated in evaluations:
        titles = {row["perturbation"]: row.get("title") for row in evaluated.report.robustness}
        judged = evaluated.scored[has_thresholds(evaluated.scored)]
        for name, photos in judged[judged["label"] == "real"].groupby("perturbation", sort=False):
            after = f"after “{titles.get(name) or str(name)}”, " if name else ""
            damaged = photos[photos["kind"] == "damaged"]
            accused = int((damaged["outcome"] == "synthetic").sum())
            if accused > allowed * len(damaged):
                sentences.append(
                    f"In “{evaluated.name}”, {after}{accused:,} of {len(damaged):,} honest photos of real damage were "
                    f"called synthetic, {share(accused, len(damaged))}: more than the {most}."
                )
            of_all = int((photos["outcome"] == "synthetic").sum())
            if len(photos) > len(damaged) and of_all > allowed * len(photos):
                sentences.append(
                    f"In “{evaluated.name}”, {after}{of_all:,} of all {len(photos):,} real photos were called "
                    f"synthetic, {of_all / len(photos):.1%}, {_of_these(accused, len(damaged))}: "
                    f"more than {100 * allowed:g}%."
                )
    perturbed = [evaluated for evaluated in evaluations if evaluated.report.robustness]
    if not perturbed:
        sentences.append(
            "No test has changed its photos as a chat app, a screenshot or another save would, so what that does to "
            "honest buyers and to the share found is not known (realdamage-evaluate … robustness=twelve)."
        )
    elif not sentences:
        sentences.append(
            f"No test or perturbation accused more honest photos, of real damage or any, than the {most}."
        )
    return sentences


def _of_these(accused: int, damaged: int) -> str:
    if not damaged:
        return "none of them a photo of real damage"
    return f"of the {damaged:,} really damaged among them {accused:,}"


def sources(evaluations: Sequence[Evaluated], training: pd.DataFrame | None) -> list[str]:
    """Which sources of real photos the model knows, and what it did on real photos of others."""
    if training is None:
        return [
            "Which sources its real photos came from is not known here; on any other source, expect more errors."
        ]
    known = (
        training[training["label"] == "real"]["source"].replace("", "(not named)").value_counts()
    )
    large = [f"{name} {count:,}" for name, count in known.items() if count >= _FEW_SOURCE]
    rest = int((known < _FEW_SOURCE).sum())
    more = f" and {rest:,} more of under {_FEW_SOURCE} photos" if rest else ""
    sentences = [
        f"Its real photos came from {', '.join(large) or 'no source of any size'}{more}. On your own shop's photos and "
        "your buyers' phones expect other figures, until you have measured them."
    ]
    strange = []
    for evaluated in evaluations:
        photos = evaluated.photos[evaluated.photos["label"] == "real"]
        for name, own in photos[~photos["source"].isin([*known.index, ""])].groupby("source"):
            called = share(int((own["outcome"] == "synthetic").sum()), len(own))
            strange.append(
                f"{name} in “{evaluated.name}” ({len(own):,} photos, {called} called synthetic)"
            )
    if strange:
        return [*sentences, f"Real photos of sources never trained on: {'; '.join(strange)}."]
    return [
        *sentences,
        "No test has a real photo of a source never trained on, so its false alarms on another shop's photos are not "
        "known.",
    ]


def damage_types(evaluations: Sequence[Evaluated]) -> list[str]:
    """Which sorts of real damage no test has."""
    damaged = [
        evaluated.photos[evaluated.photos["kind"] == "damaged"]["damage"]
        for evaluated in evaluations
    ]
    there = set(pd.concat(damaged)) if damaged else set()
    missing = [name for name in DAMAGES if name not in there and name != "other"]
    if not missing:
        return []
    return [
        f"No test has a photo of a product that is really {', '.join(missing)}: false alarms on those are unknown."
    ]


def _measured(evaluated: Evaluated) -> Iterator[tuple[str, str, Row]]:
    """(column, value, row) of all slices by one column that have a figure."""
    titles = {row["perturbation"]: row.get("title") for row in evaluated.report.robustness}
    robustness = {row["perturbation"]: row for row in evaluated.report.robustness}
    for key in _KEYS:
        for row in evaluated.report.slices.get(key, ()):
            value = str(row[key])
            # Its TPR is over really damaged photos, where there are enough of them.
            told = {**row, **robustness.get(value, {})} if key == "perturbation" else row
            # Photos of no named source, condition, … are no slice that anybody could act on; unnamed generators are.
            if told.get("auroc") is not None and (
                key in ("generator", "perturbation") or not value.startswith("(")
            ):
                yield key, str(titles.get(value) or value) if key == "perturbation" else value, told
