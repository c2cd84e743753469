"""`realdamage compare-listing`: a claim photo beside the photos of the listing. Heavy imports wait inside."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

from realdamage.commands.cli_data import extra
from realdamage.errors import PhotoError, UsageError
from realdamage.files import write_atomically
from realdamage.phrases import printable


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parser; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "compare-listing",
        parents=[common],
        help="is a claim photo the merchant's own, painted on?",
        description=compare_listing.__doc__,
    )
    command.add_argument(
        "claim", metavar="CLAIM", help="the buyer's photo, or one of another claim"
    )
    command.add_argument(
        "listings", nargs="+", metavar="LISTING", help="the listing's photos, folders or globs"
    )
    command.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="draw each listing photo beside the claim photo with what changed",
    )
    command.add_argument(
        "--format",
        choices=("table", "json"),
        help="default: by the ending of --output, else a table",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write there instead of to the terminal"
    )
    command.set_defaults(run=compare_listing)


def compare_listing(arguments: argparse.Namespace) -> int:
    """Compare a claim photo with the listing's photos: the same shot with something painted on (same_capture), the same
    product in another shot (same_object), or unrelated. Cropped, resized, turned, mirrored and recompressed copies are
    recognised; changed areas are listed in pixels of the claim photo. Unreadable listing photos are named on the error
    stream (exit code 1), the others are still compared."""
    with extra("claims", "realdamage compare-listing"):
        import cv2  # noqa: F401
    from realdamage.core.decode import decode
    from realdamage.files import find_photos
    from realdamage.photo_pairs import Comparison, compare, draw_comparison, prepare
    from realdamage.rendering.terminal import format_pairs

    form = arguments.format or (
        "json" if arguments.output and arguments.output.suffix.lower() == ".json" else "table"
    )
    claims = find_photos([arguments.claim])
    if len(claims) > 1:
        raise UsageError(
            f"{arguments.claim}: {len(claims)} photos; give one claim photo, then the listing's photos"
        )
    claimed = prepare(claims[0], "claim")
    paths = find_photos(arguments.listings)
    results: list[dict[str, Any]] = []
    compared: list[tuple[str, Comparison]] = []
    for number, path in enumerate(paths, start=1):
        try:
            found = compare(claimed, path)
        except PhotoError as error:
            print(printable(f"realdamage: {error}"), file=sys.stderr)
            results.append(
                {"name": str(path), "error": {"code": "unreadable", "message": str(error)}}
            )
            continue
        results.append({"name": str(path), "comparison": found.to_dict()})
        compared.append((printable(str(path)), found))
        if arguments.overlay:
            picture = io.BytesIO()
            draw_comparison(claimed.photo.rgb, decode(path), found).save(picture, format="PNG")
            name = f"{claims[0].stem}-{number}-{path.stem}.comparison.png"
            write_atomically(arguments.overlay / name, picture.getvalue())
    text = (
        json.dumps({"claim": str(claims[0]), "results": results}, indent=2)
        if form == "json"
        else ""
    )
    if form == "table" and compared:
        text = format_pairs(compared)
    if arguments.output and text:
        write_atomically(arguments.output, f"{text}\n".encode(errors="surrogateescape"))
    elif text:
        print(text)
    if not compared:
        raise PhotoError(f"none of the {len(paths)} listing photos could be read")
    return 1 if len(compared) < len(paths) else 0
