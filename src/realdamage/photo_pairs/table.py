"""Writes comparisons for people, a line for each listing photo and what it means below."""

from __future__ import annotations

from collections.abc import Sequence

from realdamage.photo_pairs.decide import Comparison

_LINE = "{:<{width}}  {:<12}  {:>8}  {:>7}  {:>7}  {:>7}  {}"


def table(compared: Sequence[tuple[str, Comparison]]) -> list[str]:
    """Lines without line breaks; `compared`: the listing photos' names with their results, in
    order."""
    width = max([len(name) for name, _ in compared] + [len("listing photo")])
    titles = _LINE.format(
        "listing photo",
        "outcome",
        "features",
        "overlap",
        "changed",
        "areas",
        "reasons",
        width=width,
    )
    lines = [titles, "-" * len(titles)]
    for name, found in compared:
        aligned = found.outcome != "unrelated"
        same = found.outcome == "same_capture"
        lines.append(
            _LINE.format(
                name,
                found.outcome,
                found.inliers,
                f"{found.overlap:.0%}" if aligned else "-",
                f"{found.changed:.1%}" if same else "-",
                len(found.changes) if same else "-",
                ", ".join(reason.code for reason in found.reasons),
                width=width,
            )
        )
    for name, found in compared:
        lines.append("")
        lines.append(f"{name}:")
        lines += [f"  {reason.code}: {reason.sentence}" for reason in found.reasons]
        lines += [
            f"  changed: left {change.box[0]}, top {change.box[1]}, right {change.box[2]}, bottom "
            f"{change.box[3]}; "
            f"mean difference {change.difference:.0%}"
            for change in found.changes
        ]
    return lines
