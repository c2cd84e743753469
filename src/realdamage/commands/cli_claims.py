"""The commands of `realdamage` that look at a claim rather than at pixels alone: what a file says of itself, all photos
of a claim with the evidence file. Heavy imports wait inside them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realdamage.commands.cli_data import extra
from realdamage.errors import PhotoError, UsageError
from realdamage.files import write_atomically
from realdamage.phrases import printable

if TYPE_CHECKING:
    from realdamage.provenance import TrustAnchors

_ANCHORS = (
    "PEM of authorities whose signers of content credentials are trusted, such as C2PA's published list; without, no "
    "signer is. It says who signed, not that a photo is true"
)


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the parsers; `commands`: what `add_subparsers` returned; `common`: the options that all commands have."""
    command = commands.add_parser(
        "claim",
        parents=[common],
        help="judge all photos of a claim, with evidence",
        description=claim.__doc__,
    )
    command.add_argument(
        "--photo",
        action="extend",
        nargs="+",
        default=[],
        metavar="PHOTO",
        help="the buyer's: photos, folders or globs",
    )
    command.add_argument(
        "--listing",
        action="extend",
        nargs="+",
        default=[],
        metavar="PHOTO",
        help="the listing's, to compare with",
    )
    words = command.add_mutually_exclusive_group()
    words.add_argument(
        "--text", metavar="TEXT", help="what the buyer wrote; kept, and decides nothing"
    )
    words.add_argument(
        "--text-file", type=Path, metavar="FILE", help="the same from a file in UTF-8"
    )
    command.add_argument("--claim-id", metavar="ID", help="yours; without it, one is made up")
    command.add_argument(
        "--policy", type=Path, metavar="FILE", help="your rules in YAML; see --write-policy"
    )
    command.add_argument(
        "--index",
        type=Path,
        metavar="FILE",
        help="SQLite file of earlier claims' hashes; made if new",
    )
    command.add_argument("--trust-anchors", type=Path, metavar="FILE", help=_ANCHORS)
    command.add_argument(
        "--model", type=Path, metavar="FILE", help="the .onnx file; default: the one in the package"
    )
    command.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads; default: those available, at most 4"
    )
    command.add_argument(
        "--prior", type=float, metavar="P", help="share of synthetic photos among yours, in 0..1"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write evidence.html, evidence.json and log.jsonl there",
    )
    command.add_argument(
        "--keep-originals",
        action="store_true",
        help="the photos too, as they came: with place and time in them",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace evidence in DIR; its log goes on"
    )
    command.add_argument(
        "--log", type=Path, metavar="FILE", help="one log over all claims, which gets the entry too"
    )
    command.add_argument(
        "--write-policy", type=Path, metavar="FILE", help="write the default rules there, and stop"
    )
    command.add_argument(
        "--schema", action="store_true", help="print the JSON schema of evidence.json, and stop"
    )
    command.set_defaults(run=claim)
    command = commands.add_parser(
        "verify", parents=[common], help="check the evidence of a claim", description=verify.__doc__
    )
    command.add_argument(
        "folder", type=Path, metavar="DIR", help="what `realdamage claim --out` wrote"
    )
    command.add_argument(
        "--head", metavar="HASH", help="of the log, noted or published earlier, 64 hex digits"
    )
    command.add_argument(
        "--log", type=Path, metavar="FILE", help="the log over all claims; --head is then its head"
    )
    command.add_argument(
        "--photo",
        action="extend",
        nargs="+",
        default=[],
        metavar="PHOTO",
        help="originals, to be found in the claim",
    )
    command.set_defaults(run=verify)
    command = commands.add_parser(
        "claim-index",
        parents=[common],
        help="what is remembered of earlier claims",
        description=claim_index.__doc__,
    )
    command.add_argument(
        "index", type=Path, metavar="FILE", help="what `realdamage claim --index` made"
    )
    command.add_argument("--delete", metavar="ID", help="forget this claim")
    command.add_argument(
        "--purge", type=float, metavar="DAYS", help="forget photos seen longer ago than this"
    )
    command.set_defaults(run=claim_index)
    command = commands.add_parser(
        "provenance",
        parents=[common],
        help="what a photo's file says of itself",
        description=provenance.__doc__,
    )
    command.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="photos, folders (with all below) or globs"
    )
    command.add_argument("--trust-anchors", type=Path, metavar="FILE", help=_ANCHORS)
    command.add_argument(
        "--format",
        choices=("table", "json"),
        help="default: by the ending of --output, else a table",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="write there instead of to the terminal"
    )
    command.set_defaults(run=provenance)


def provenance(arguments: argparse.Namespace) -> int:
    """Read what files say of themselves: content credentials (C2PA), AI labels (IPTC, GB 45438-2025), parameters and
    names of generators, and the camera. Absence proves nothing. Missing and unreadable files are named on the error
    stream (exit code 1), the others are still read."""
    from realdamage.files import find_photos
    from realdamage.provenance import Provenance, read_provenance
    from realdamage.rendering.terminal import provenance_footer, provenance_lines

    form = arguments.format or (
        "json" if arguments.output and arguments.output.suffix.lower() == ".json" else "table"
    )
    results: list[dict[str, Any]] = []
    read: list[tuple[str, Provenance]] = []
    anchors = _read_anchors(arguments.trust_anchors)
    paths = find_photos(arguments.photos, keep_missing=True)
    for path in paths:
        try:
            found = read_provenance(path, trust_anchors=anchors)
            if problem := next(
                (note.sentence for note in found.notes if note.code == "not_a_photo"), ""
            ):
                raise PhotoError(f"{path}: {problem}")
        except PhotoError as error:
            print(printable(f"realdamage: {error}"), file=sys.stderr)
            results.append(
                {"name": str(path), "error": {"code": "unreadable", "message": str(error)}}
            )
            continue
        results.append({"name": str(path), "provenance": found.to_dict()})
        read.append((printable(str(path)), found))
    if form == "json":
        text = json.dumps({"results": results}, indent=2)
    else:
        text = "\n".join(line for name, found in read for line in provenance_lines(name, found))
        text += f"\n{provenance_footer([found for _, found in read])}" if read else ""
    if arguments.output:
        write_atomically(arguments.output, f"{text}\n".encode(errors="surrogateescape"))
    elif text:
        print(text)
    if not read:
        raise PhotoError(f"none of the {len(paths)} photos could be read")
    return 1 if len(read) < len(paths) else 0


def claim(arguments: argparse.Namespace) -> int:
    """Judge a claim: every photo's pixels and file, beside the photos of the listing, beside one another and beside
    earlier claims. Prints one recommendation (approve, ask_photo, review, escalate) with its reasons and a text for the
    buyer; --out keeps it as evidence. A recommendation is about photos: a person decides. The exit code is 1 when a
    photo among others could not be read."""
    from realdamage.claims import (
        ClaimIndex,
        ClaimPolicy,
        EvidenceLog,
        judge_claim,
        new_claim_id,
        schema,
        write_evidence,
    )
    from realdamage.claims.evidence import check_free
    from realdamage.claims.policy import default_yaml
    from realdamage.core.detector import Detector
    from realdamage.rendering.terminal import format_claim

    if arguments.schema:
        print(json.dumps(schema(), indent=2))
        return 0
    if arguments.write_policy:
        if arguments.write_policy.exists():
            raise UsageError(
                f"{arguments.write_policy}: is there already; name another file, or remove it first"
            )
        write_atomically(arguments.write_policy, default_yaml().encode())
        print(f"{arguments.write_policy}: the default rules; edit them and judge with --policy")
        return 0
    if not arguments.photo:
        raise UsageError("a claim needs photos: realdamage claim --photo PHOTO… --out DIR")
    if (arguments.keep_originals or arguments.overwrite or arguments.log) and not arguments.out:
        raise UsageError(
            "--keep-originals, --overwrite and --log belong to evidence: name its folder with --out"
        )
    with extra("claims", "realdamage claim"):
        import cv2  # noqa: F401
        import imagehash  # noqa: F401
        import jinja2  # noqa: F401
        import yaml  # noqa: F401
    policy = ClaimPolicy.from_yaml(arguments.policy) if arguments.policy else ClaimPolicy.default()
    anchors = _read_anchors(arguments.trust_anchors)
    photos, listings = _read_files(arguments.photo), _read_files(arguments.listing)
    text = _read_text(arguments.text_file) if arguments.text_file else arguments.text or ""
    if arguments.out:
        check_free(arguments.out, arguments.overwrite)
    detector = Detector.load(arguments.model, threads=arguments.threads, prior=arguments.prior)
    claim_id = new_claim_id() if arguments.claim_id is None else arguments.claim_id
    index = ClaimIndex.open(arguments.index) if arguments.index else None
    try:
        judged = judge_claim(
            photos,
            detector=detector,
            listings=listings,
            text=text,
            claim_id=claim_id,
            policy=policy,
            index=index,
            trust_anchors=anchors,
        )
        if arguments.out:
            options = {name: getattr(arguments, name) for name in ("keep_originals", "overwrite")}
            log = EvidenceLog(arguments.log) if arguments.log else None
            page = write_evidence(judged, photos, listings, arguments.out, log=log, **options)
    except BaseException:
        if index is not None and arguments.claim_id is None:
            index.delete(
                claim_id
            )  # nobody knows this id, and a second try must not meet its own photos
        raise
    finally:
        if index is not None:
            index.close()
    print(format_claim(judged))
    if arguments.out:
        log = EvidenceLog(arguments.log or arguments.out / "log.jsonl")
        print(
            f"\nevidence  {page}\nhead      {log.head}\n"
            f"          of {log.path}; note it elsewhere, and give it to `realdamage verify --head`"
        )
    return 1 if any(photo.error for photo in judged.photos) else 0


def verify(arguments: argparse.Namespace) -> int:
    """Check the evidence of a claim: whether its files are those that its log records, whether the log's chain is
    whole, and whether photos are the claim's. Says what that proves and what it does not. The exit code is 1 when
    something does not match, which is named."""
    from realdamage.claims import verify_evidence

    report = verify_evidence(
        arguments.folder,
        head=arguments.head,
        log=arguments.log,
        photos=_read_files(arguments.photo),
    )
    for line in report.checked:
        print(f"ok        {line}")
    for line in report.problems:
        print(f"MISMATCH  {line}")
    for line in report.notes:
        print(f"note      {line}")
    print(f"head      {report.head or 'none'}")
    for line in report.proves or (
        "Nothing is shown: what is marked MISMATCH has to be explained first.",
    ):
        print(line)
    return 0 if report.passed else 1


def claim_index(arguments: argparse.Namespace) -> int:
    """Tell how many photos of earlier claims are remembered, and forget some: hashes and claim ids are all there is.
    The exit code is 1 when the claim to forget is not remembered."""
    from realdamage.claims import ClaimIndex

    if not arguments.index.is_file():
        raise UsageError(f"{arguments.index}: no such index; `realdamage claim --index` makes one")
    unknown = False
    with ClaimIndex.open(arguments.index) as index:
        if arguments.delete is not None:
            forgotten = index.delete(arguments.delete)
            unknown = not forgotten
            if unknown:
                print(
                    f"realdamage: {arguments.index}: no claim {arguments.delete!r} is remembered",
                    file=sys.stderr,
                )
            else:
                print(f"{_count(forgotten, 'photo')} of claim {arguments.delete} forgotten")
        if arguments.purge is not None:
            forgotten, age = index.purge(arguments.purge), _count(arguments.purge, "day")
            print(f"{_count(forgotten, 'photo')} forgotten, seen more than {age} ago")
        print(f"{arguments.index}: {_count(len(index), 'photo')} remembered")
    return 1 if unknown else 0


def _count(number: float, one: str) -> str:
    return f"{number:,.15g} {one}{'' if number == 1 else 's'}"


def _read_files(given: list[str]) -> list[tuple[str, bytes]]:
    """(name, bytes) of the photos that paths, folders and globs name."""
    from realdamage.core.decode import read_file
    from realdamage.files import find_photos

    return [(path.name, read_file(path)) for path in find_photos(given)]


def _read_anchors(path: Path | None) -> TrustAnchors | None:
    """The list of authorities, read once for all photos; what it holds beside them is told."""
    from realdamage.provenance import TrustAnchors

    if path is None:
        return None
    anchors = TrustAnchors.read(path)
    if count := anchors.passed_over:
        of = f"{count} of {count + anchors.authorities} certificates"
        print(
            f"realdamage: {path}: {of} are no authority's, so they vouch for nobody",
            file=sys.stderr,
        )
    return anchors


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: the text cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: the text is not in UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
