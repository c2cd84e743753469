"""What a report says in words: which generators the test contains, what the thresholds promise, what the model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from realdamage.core.model_file import ModelMetadata
from realdamage.core.policy import Policy
from realdamage.data.vocabulary import CODECS
from realdamage.rendering.pages import signed

Sort = Literal["deployed", "codec", "control", "not named"]
Fact = tuple[str, str]

NOT_NAMED = "(not named)"
_DEMO = (
    "This is a demonstration model, not to be trusted on real claims. It says synthetic only with --allow-demo; these "
    "figures are with it."
)
_NOTHING_NEW = "The model was trained on each of them: what it does on generators new to it, this test does not tell."
_CODEC_NAMES = {name for names in CODECS.values() for name in names}


@dataclass(frozen=True)
class GeneratorCount:
    """One generator of the test. trained_on, family_trained_on: whether the model's training split had photos of it, or
    of its family; None where that is not known."""

    name: str
    family: str
    sort: Sort
    photos: int
    trained_on: bool | None
    family_trained_on: bool | None


def generator_counts(
    predictions: pd.DataFrame, training: Mapping[str, Any], families: Mapping[str, str]
) -> tuple[GeneratorCount, ...]:
    """The generators of the synthetic photos, deployed ones first, then by photos.

    What counts as what is a rule, not a judgement: kind `pasted` is a control, whatever made it; a family or name of
    `vocabulary.CODECS` is a codec; every other name is a deployed generator. `training`: `ModelMetadata.training`, or
    {}. `families`: generator → family, "" where it has none, of as many generators as are known.
    """
    synthetic = predictions[predictions["label"] == "synthetic"]
    names: Sequence[str] | None = training.get("generators")
    excluded = set((training.get("excluded") or {}).get("family", ()))
    seen = {families.get(name, "") for name in names or ()} - {"", *excluded}
    # Only then is a family that is not among them one that the model never saw.
    complete = names is not None and set(names) <= set(families)
    columns = zip(
        synthetic["generator"], synthetic["family"], synthetic["kind"] == "pasted", strict=True
    )
    rows = []
    for (name, family, control), photos in Counter(columns).items():
        trained_on = None if names is None or not name else name in names
        knows = (
            True
            if trained_on or family in seen
            else False
            if family in excluded or (family and complete)
            else None
        )
        sort = _sort(name, family, control)
        rows.append(GeneratorCount(name or NOT_NAMED, family, sort, photos, trained_on, knows))
    order = ("deployed", "not named", "codec", "control")
    return tuple(sorted(rows, key=lambda row: (order.index(row.sort), -row.photos, row.name)))


def _sort(name: str, family: str, control: bool) -> Sort:
    if control:
        return "control"
    if family in CODECS or (not family and name in _CODEC_NAMES):
        return "codec"
    return "deployed" if name else "not named"


def demo_note(demo: bool) -> tuple[str, ...]:
    """What every page says once, at its top, about a demonstration model; () for any other."""
    return (_DEMO,) if demo else ()


def first_line(generators: Sequence[GeneratorCount]) -> list[str]:
    """What has to be known before any figure is read: which deployed generators are in the test, and what else is."""
    deployed = [row for row in generators if row.sort == "deployed"]
    others = list(_others(generators))
    if not deployed:
        return [
            "No deployed generator is in this test: its figures say nothing about the tools that a fraudster would "
            "use.",
            f"Its synthetic photos: {'; '.join(others) or 'none'}.",
        ]
    photos = sum(row.photos for row in deployed)
    lines = [
        f"{_count(photos, 'photo')} of this test {_are(photos)} by {_count(len(deployed), 'deployed generator')}."
    ]
    if all(row.trained_on is None for row in deployed):
        lines.append(
            "Which of them the model was trained on is not known: the file of the model was not given."
        )
    else:
        new = [row for row in deployed if row.trained_on is False]
        lines.append(_new_to_the_model(new) if new else _NOTHING_NEW)
    if others:
        rest = sum(row.photos for row in generators) - photos
        more = "so the figures over all photos mostly measure those; deployed generators have figures of their own"
        lines.append(f"The rest: {'; '.join(others)}{f' – {more}' if rest > photos else ''}.")
    return lines


def _new_to_the_model(new: Sequence[GeneratorCount]) -> str:
    count, strange = (
        sum(row.photos for row in new),
        [row for row in new if row.family_trained_on is False],
    )
    told = f"{count:,} of them {_are(count)} by {_count(len(new), 'generator')} that the model was never trained on"
    if strange:
        told += f"; {sum(row.photos for row in strange):,} of these by families that it never saw"
    elif all(row.family_trained_on for row in new):
        told += "; it knows their families from others"
    return f"{told}."


def _others(generators: Sequence[GeneratorCount]) -> Iterator[str]:
    told = {
        "not named": "{photos} of no named generator",
        "codec": "{photos} through {count} of this project's recipes",
        "control": "{photos} pasted without any network (control)",
    }
    for sort, text in told.items():
        rows = [row for row in generators if row.sort == sort]
        if rows:
            photos = _count(sum(row.photos for row in rows), "photo")
            yield text.format(photos=photos, count=_count(len(rows), "codec"))


def policy_words(policy: Policy | None, calibration: Any) -> list[Fact]:
    """What the thresholds do and promise, as (term, sentence)."""
    if policy is None:
        return [
            (
                "no thresholds",
                "The model is not calibrated: its scores have no meaning and every photo is for review. Run "
                "`realdamage calibrate`, then evaluate again.",
            )
        ]
    used = ", ".join(f"{count:,} {sort}" for sort, count in policy.photos.items())
    negatives = {"damaged": "really damaged photos", "real": "real photos"}.get(
        policy.negatives, policy.negatives
    )
    facts = [
        ("synthetic", f"score at or above {signed(policy.t_synthetic)}"),
        ("real", f"score at or below {signed(policy.t_real)}"),
        ("review", "everything between: a person looks at it"),
    ]
    if policy.whole_photo_share is not None:
        share = f"{100 * policy.whole_photo_share:g}%"
        facts.append(
            (
                "whole photo",
                f"from {share} synthetic patches on to review: an honest phone's AI enhancement can do that",
            )
        )
    gate = getattr(policy, "gate", None)
    if gate is not None:
        limits = {
            "shorter side at least {} pixels": gate.min_side,
            "sharpness at least {:.3f}": gate.min_sharpness,
            "fine detail at least {:.4f}": gate.min_fine_detail,
            "compressed no worse than JPEG quality {:.0f}": gate.min_quality,
        }
        told = ", ".join(text.format(value) for text, value in limits.items() if value is not None)
        facts.append(
            (
                "photo quality",
                f"judged only when {told}; other photos go to review" if told else "no limit",
            )
        )
    if policy.guarantee is not None:
        bounds = (("accused", policy.guarantee.accused), ("passed", policy.guarantee.passed))
        facts.append(("promise", policy.guarantee.statement))
        facts += [
            (
                f"behind it: {name}",
                f"{bound.errors:,} errors among {bound.photos:,} independent calibration photos; {bound.allowed:,} "
                f"were allowed for a share of {100 * bound.share:g}%",
            )
            for name, bound in bounds
            if bound is not None
        ]
    else:
        facts.append(
            (
                "promise",
                f"None. The thresholds were chosen so that of the calibration photos ({used}) at most "
                f"{100 * policy.fpr:g}% of the {negatives} were called synthetic and at most {100 * policy.miss:g}% of "
                "the synthetic ones real; about other photos nothing is promised.",
            )
        )
    if policy.worst_source is not None:
        facts.append(("sources", policy.worst_source.statement))
    if calibration is not None:
        method = {"platt": "Platt scaling", "isotonic": "isotonic regression"}.get(
            calibration.method, calibration.method
        )
        facts.append(
            (
                "probability",
                f"{method} of the score, where {100 * calibration.prior:.1f}% of the photos are synthetic",
            )
        )
    return facts


def model_card(metadata: ModelMetadata | None, run: Mapping[str, Any]) -> list[Fact]:
    """Where model and figures come from, as (term, value)."""
    facts: list[Fact] = []
    if metadata is not None:
        training, spec = metadata.training, metadata.pixel_spec
        photos = training.get("photos") or {}
        excluded = training.get("excluded") or {}
        told = "; ".join(
            f"{column} {', '.join(map(str, values))}"
            for column, values in excluded.items()
            if values
        )
        facts += [
            ("model", metadata.model_version),
            ("backbone", metadata.backbone),
            (
                "pixels",
                f"tiles of {spec.tile}, overlap {spec.overlap}, patches of {spec.patch}; longest side {spec.max_side}",
            ),
            ("photo score", f"{metadata.pooling.name} over tiles and patches"),
            ("trained on", ", ".join(f"{count:,} {label}" for label, count in photos.items())),
            (
                "generators",
                _count(len(training["generators"]), "generator")
                if "generators" in training
                else "",
            ),
            ("left out of training", told),
            ("training manifest", str(training.get("manifest_sha256", ""))[:12]),
            ("training experiment", str(training.get("experiment", ""))),
            ("trained", str(training.get("created", ""))[:10]),
            ("trained at commit", str(training.get("git_commit", ""))[:12]),
            ("realdamage", str(training.get("realdamage", ""))),
        ]
    else:
        facts.append(
            ("model", str(run.get("model_version") or run.get("checkpoint") or "not known"))
        )
    facts += [
        ("network", str(run.get("graph_sha256") or "")[:12]),
        (
            "evaluated photos",
            " ".join(str(run[key]) for key in ("data_root", "split") if run.get(key)),
        ),
        ("their manifest", str(run.get("manifest_sha256") or "")[:12]),
        ("evaluated", str(run.get("date") or "")[:10]),
        ("evaluated at commit", str(run.get("git_commit") or "")[:12]),
        ("command", str(run.get("command") or "")),
    ]
    return [(term, value) for term, value in facts if value]


@dataclass(frozen=True)
class Audit:
    """What the audit before training said. passed: None when it was not run, or nothing is known or measured. tests:
    name, then AUROC with its 95% interval where it was measured. exceptions: sentences."""

    passed: bool | None
    sentence: str
    tests: tuple[tuple[str, float | None, float | None, float | None], ...]
    exceptions: tuple[str, ...]


def audit_words(metadata: ModelMetadata | None) -> Audit:
    """The audit's verdict on the training set, as the model file tells it."""
    if metadata is None:
        return Audit(None, "Not known: the file of the model was not given.", (), ())
    found = metadata.training.get("audit")
    if not isinstance(found, Mapping):
        return Audit(None, f"The audit of the training set was {found or 'not run'}.", (), ())
    tests = tuple((name, *_three(figures)) for name, figures in (found.get("tests") or {}).items())
    exceptions = tuple(
        f"{each.get('part', '')}, {each.get('test', '')}: {each.get('reason', '')}"
        for each in found.get("exceptions") or ()
    )
    if found.get("verdict") == "not measured":
        return Audit(
            None,
            "The training set had too few photos for the audit to measure anything.",
            tests,
            exceptions,
        )
    passed = found.get("verdict") == "passed"
    sentence = (
        "The training set passed the audit: what its files and columns alone tell does not tell the labels apart."
        if passed
        else "The training set FAILED the audit: the labels can be told without looking at the damage, so the figures "
        "of this page may measure that instead."
    )
    return Audit(passed, sentence, tests, exceptions)


def _three(figures: Any) -> tuple[float | None, float | None, float | None]:
    if isinstance(figures, Sequence) and not isinstance(figures, str) and len(figures) == 3:
        return tuple(None if value is None else float(value) for value in figures)  # type: ignore[return-value]
    return None, None, None


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
