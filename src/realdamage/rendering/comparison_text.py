"""Says a comparison of two models in words, lines for a terminal and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from realdamage.evaluation.compare import Comparison, Difference
from realdamage.files import write_atomically
from realdamage.rendering.pages import figure, render, signed

_LISTED = 10  # flipped photos in a terminal
_LISTED_PAGE = 100
# What a line of a perturbation tells; the page has all figures.
_IN_SHORT = ("auroc", "tpr_at_fpr_1", "false_alarms")


def format_comparison(comparison: Comparison) -> str:
    """The comparison as lines for a terminal."""
    return "\n".join(_lines(comparison))


def write_comparison(
    comparison: Comparison, *, html: Path | None = None, json_file: Path | None = None
) -> None:
    """Writes the page and the same as JSON, where asked for. Raises RealDamageError: cannot write."""
    if html:
        write_atomically(html, comparison_page(comparison).encode())
    if json_file:
        write_atomically(
            json_file, (json.dumps(comparison.to_dict(), indent=2, allow_nan=False) + "\n").encode()
        )


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one self-contained HTML page."""
    ends = [
        abs(end) for row in comparison.figures for end in (row.low, row.high) if end is not None
    ]
    standings = {row.standing for row in comparison.figures}
    tone = "down" if "worse" in standings else "up" if "better" in standings else ""
    return render(
        "comparison.html.j2",
        comparison=comparison,
        conclusion=conclusion(comparison.figures),
        counts=counts(comparison),
        flips=flips(comparison),
        shown=_shown(comparison),
        tone=tone,
        width=max([*ends, 1e-9]),
        listed=_LISTED_PAGE,
    )


def conclusion(figures: Sequence[Difference]) -> str:
    """One sentence over all figures: in which B is better, in which worse."""
    by_standing: dict[str, list[str]] = {}
    for row in figures:
        by_standing.setdefault(row.standing, []).append(row.title)
    parts = [
        f"B is {standing} in {_and(by_standing[standing])}"
        for standing in ("worse", "better")
        if standing in by_standing
    ]
    measured = len(figures) - len(by_standing.get("not measured", ()))
    if not measured:
        return "Nothing could be measured on these photos."
    return (
        "; ".join(parts)
        if parts
        else f"A and B are not told apart at 95% in any of {measured} figures"
    ) + "."


def counts(comparison: Comparison) -> str:
    """How many photos were compared, and how many were left out."""
    left_out = [
        f"{count:,} {what}"
        for count, what in (
            (comparison.only_a, "rows that only A has"),
            (comparison.only_b, "rows that only B has"),
            (comparison.unscored, "rows that one of them could not judge"),
        )
        if count
    ]
    return (
        f"{comparison.n:,} photos in {comparison.n_groups:,} groups that both have judged: {comparison.n_real:,} real "
        f"({comparison.n_damaged:,} really damaged), {comparison.n - comparison.n_real:,} synthetic. "
        f"Left out: {', '.join(left_out) or 'none'}."
    )


def flips(comparison: Comparison) -> str:
    """How many photos changed their outcome, and the ones that hurt most."""
    if not comparison.flips:
        return "None: both call every photo the same."
    gains = sum(flip.gain for flip in comparison.flips)
    accused = sum(
        flip.b_outcome == "synthetic" and flip.kind == "damaged" for flip in comparison.flips
    )
    cleared = sum(
        flip.a_outcome == "synthetic" and flip.kind == "damaged" for flip in comparison.flips
    )
    return (
        f"{len(comparison.flips):,} photos: B is nearer to the truth on {gains:,}, further from it on "
        f"{len(comparison.flips) - gains:,}. Really damaged ones: {accused:,} newly called synthetic, {cleared:,} no "
        "longer."
    )


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"A  {comparison.a}"
    yield f"B  {comparison.b}"
    yield counts(comparison)
    yield ""
    yield f"{'':<38}{'A':>8}{'B':>8}{'B − A':>9}   {'95% interval':<18}"
    for row in comparison.figures:
        interval = "" if row.low is None else f"{signed(row.low)} to {signed(row.high)}"
        numbers = f"{figure(row.a):>8}{figure(row.b):>8}{signed(row.difference):>9}"
        yield f"{row.title:<38}{numbers}   {interval:<18}  {row.sentence}"
    if comparison.perturbed:
        yield ""
        width = max(len("B − A after"), *(len(name) for name in comparison.perturbed))
        titles = [row.title for row in comparison.figures if row.figure in _IN_SHORT]
        yield f"{'B − A after':<{width}}" + "".join(f"  {title:<36}" for title in titles)
        for name, rows in comparison.perturbed.items():
            yield f"{name:<{width}}" + "".join(
                f"  {_short(row):<36}" for row in rows if row.figure in _IN_SHORT
            )
    yield ""
    yield f"called differently: {flips(comparison)}"
    for flip in comparison.flips[:_LISTED]:
        sort = flip.kind or flip.label
        change = f"{flip.a_outcome} → {flip.b_outcome}"
        yield f"  {'better' if flip.gain else 'worse':<7} {sort:<10} {change:<22} {flip.file_name}"
    if len(comparison.flips) > _LISTED:
        yield f"  … and {len(comparison.flips) - _LISTED:,} more (--json FILE lists all)"
    yield ""
    yield conclusion(comparison.figures)


def _shown(comparison: Comparison) -> list[str]:
    """The columns of the table of perturbations: what was measured after any of them, the rate at 5% only where that at
    1% was not."""
    rows = [row for figures in comparison.perturbed.values() for row in figures]
    measured = {row.figure for row in rows if row.difference is not None}
    if "tpr_at_fpr_1" in measured:
        measured.discard("tpr_at_fpr_5")
    return [row.figure for row in comparison.figures if row.figure in measured]


def _short(row: Difference) -> str:
    if row.difference is None:
        return figure(None)
    if row.low is None:
        return f"{signed(row.difference)}, too few groups"
    verdict = row.standing if row.standing in ("better", "worse") else "="
    return f"{signed(row.difference)} ({signed(row.low)} to {signed(row.high)}) {verdict}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
