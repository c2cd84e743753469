"""The commands of `realdamage` that judge a claim, keep and check its evidence, and put a case
together for others."""

import importlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from realdamage.commands import app
from realdamage.errors import PhotoError, RealDamageError, UsageError
from realdamage.files import find_photos, write_atomically
from realdamage.phrases import printable

if TYPE_CHECKING:
    from realdamage.photo_pairs import Comparison
    from realdamage.provenance import Provenance, TrustAnchors

_ANCHORS = (
    "PEM file of certificate authorities, such as C2PA's list; without it no signer is trusted. A "
    "trusted signature says who signed, not that the photo is true"
)
_FORMAT = "Default: by the ending of --output, else a table"
TrustAnchorsFile = Annotated[Path | None, app.opt(_ANCHORS, "--trust-anchors")]
Format = Annotated[Literal["table", "json"] | None, app.opt(_FORMAT, "--format")]
Output = Annotated[Path | None, app.opt("Write to this file, not to the terminal")]
_LOG = "Log of all claims: a file, or the URL of a database; --head is then its head"
_HEAD = "Head of the log that you noted earlier, 64 hex digits"


@app.command()
def provenance(
    photos: app.Photos,
    trust_anchors: TrustAnchorsFile = None,
    form: Format = None,
    output: Output = None,
) -> int:
    """Read what a photo's file says about itself.

    Content credentials (C2PA), AI labels (IPTC, GB 45438-2025), generators and the camera. A file
    that says nothing proves nothing. Missing and unreadable files are named on standard error (exit
    code 1); the others are still read.
    """
    from realdamage.provenance import read_provenance
    from realdamage.rendering.terminal import provenance_footer, provenance_lines

    anchors = _read_anchors(trust_anchors)

    def read(path: Path) -> "Provenance":
        found = read_provenance(path, trust_anchors=anchors)
        for note in found.notes:
            if note.code == "not_a_photo":
                raise PhotoError(f"{path}: {note.sentence}")
        return found

    paths = find_photos(photos, keep_missing=True)
    found, results = _each(paths, read, "provenance")
    shown = [line for name, one in found for line in provenance_lines(name, one)]
    text = "\n".join([*shown, provenance_footer([one for _, one in found])]) if found else ""
    return _finish({"results": results}, text, form, output)


@app.command("claims")
def compare_listing(
    claim: Annotated[str, app.arg("The buyer's photo, or one of another claim")],
    listing: Annotated[list[str], app.arg("The listing's photos, folders or globs")],
    overlay: Annotated[Path | None, app.opt("Folder for pictures with the changes marked")] = None,
    form: Format = None,
    output: Output = None,
) -> int:
    """Check whether a claim photo is an edited listing photo.

    Finds the same shot with something painted on (same_capture), the same product in another shot
    (same_object), or neither (unrelated), even in copies that are cropped, resized, turned or
    recompressed. Unreadable listing photos are named on standard error (exit code 1).
    """
    from realdamage.core.decode import decode
    from realdamage.photo_pairs import compare, draw_comparison, prepare
    from realdamage.rendering.terminal import format_pairs

    importlib.import_module("cv2")  # name the missing extra before reading a photo
    claimed = find_photos([claim])
    if len(claimed) > 1:
        raise UsageError(
            f"{claim}: {len(claimed)} photos; give one claim photo, then the listing's"
        )
    prepared = prepare(claimed[0], "claim")
    paths = find_photos(listing)

    def compare_with(path: Path) -> "Comparison":
        found = compare(prepared, path)
        if overlay:
            picture = io.BytesIO()
            draw_comparison(prepared.photo.rgb, decode(path), found).save(picture, format="PNG")
            name = f"{claimed[0].stem}-{paths.index(path) + 1}-{path.stem}.comparison.png"
            write_atomically(overlay / name, picture.getvalue())
        return found

    compared, results = _each(paths, compare_with, "comparison")
    text = format_pairs(compared) if compared else ""
    return _finish({"claim": str(claimed[0]), "results": results}, text, form, output)


@app.command("claims")
def claim(
    photo: Annotated[list[str] | None, app.opt("The buyer's photos, folders or globs")] = None,
    listing: Annotated[list[str] | None, app.opt("The listing's photos, to compare with")] = None,
    video: Annotated[list[Path] | None, app.opt("The buyer's videos")] = None,
    text: Annotated[str, app.opt("What the buyer wrote; kept, decides nothing")] = "",
    claim_id: Annotated[str | None, app.opt("Your id; default: a new one")] = None,
    policy: Annotated[Path | None, app.opt("Your rules in YAML; see --write-policy")] = None,
    index: Annotated[Path | None, app.opt("SQLite file of earlier claims' hashes")] = None,
    trust_anchors: TrustAnchorsFile = None,
    model: app.Model = None,
    threads: app.Threads = None,
    prior: app.Prior = None,
    out: Annotated[Path | None, app.opt("Folder for the evidence and its log")] = None,
    keep_originals: Annotated[bool, app.opt("Keep the photos too", "--keep-originals")] = False,
    overwrite: Annotated[bool, app.opt("Replace evidence; keep the log", "--overwrite")] = False,
    log: Annotated[Path | None, app.opt("Log of all claims to add the entry to")] = None,
    write_policy: Annotated[Path | None, app.opt("Write the default rules there, and stop")] = None,
) -> int:
    """Judge all photos of a claim, with evidence.

    Prints one recommendation (approve, ask_photo, review, escalate) with reasons and a text for the
    buyer; a person decides. --out keeps evidence.html, evidence.json and log.jsonl. Originals
    (--keep-originals) may contain place and time. Exit code 1: some photos could not be read.
    """
    from realdamage import claims
    from realdamage.claims.evidence import check_free
    from realdamage.claims.policy import default_yaml
    from realdamage.claims.videos import judge_videos, read_video
    from realdamage.core.detector import Detector
    from realdamage.rendering.terminal import format_claim

    if write_policy:
        if write_policy.exists():
            raise UsageError(f"{write_policy}: exists; name another file, or remove it first")
        write_atomically(write_policy, default_yaml().encode())
        print(f"{write_policy}: the default rules; edit them and judge with --policy")
        return 0
    if not photo:
        raise UsageError("a claim needs photos: realdamage claim --photo PHOTO… --out DIR")
    if (keep_originals or overwrite or log) and not out:
        raise UsageError("--keep-originals, --overwrite and --log need --out DIR for the evidence")
    for package in ("cv2", "imagehash", "jinja2", "yaml"):
        importlib.import_module(package)  # now, not after minutes of judging
    rules = claims.ClaimPolicy.from_yaml(policy) if policy else claims.ClaimPolicy()
    anchors = _read_anchors(trust_anchors)
    photos, listings = _read_files(photo), _read_files(listing or [])
    if out:
        check_free(out, overwrite)
    detector = Detector.load(model, threads=threads, prior=prior)
    own_id = claims.new_claim_id() if claim_id is None else claim_id
    videos = [read_video(path, trust_anchors=anchors) for path in video or ()]
    pictures = [data for _, data in (*photos, *listings)]
    store = claims.ClaimIndex.open(index) if index else None
    try:
        judged = claims.judge_claim(
            photos,
            detector=detector,
            listings=listings,
            text=text,
            claim_id=own_id,
            policy=rules,
            index=store,
            trust_anchors=anchors,
            more=judge_videos(videos, detector, rules, pictures) if videos else (),
        )
        judged = replace(judged, videos=tuple(one.to_dict() for one in videos))
        if out:
            keep: dict[str, Any] = {"keep_originals": keep_originals, "overwrite": overwrite}
            keep["log"] = claims.EvidenceLog(log) if log else None
            page = claims.write_evidence(judged, photos, listings, out, **keep)
    except BaseException:
        if store and claim_id is None:
            store.delete(own_id)  # nobody knows this id, and a second try must not find its photos
        raise
    finally:
        if store:
            store.close()
    print(format_claim(judged))
    if out:
        chain = claims.EvidenceLog(log or out / "log.jsonl")
        print(f"\nevidence  {page}\nhead      {chain.head}")
        print(f"          of {chain.path}; note it elsewhere for `realdamage verify --head`")
    return 1 if any(one.error for one in judged.photos) else 0


@app.command("claims")
def verify(
    folder: Annotated[str, app.arg("Folder that `realdamage claim --out` wrote, or URL", "DIR")],
    head: Annotated[str | None, app.opt(_HEAD)] = None,
    log: Annotated[str | None, app.opt(_LOG)] = None,
    photo: Annotated[list[str] | None, app.opt("Originals to look for in the claim")] = None,
) -> int:
    """Check the evidence of a claim.

    Checks its files and photos against its log and the chain of the log, and says what that proves
    and what not. Exit code 1: something does not match.
    """
    from realdamage.claims import verify_evidence

    report = verify_evidence(folder, head=head, log=log, photos=_read_files(photo or []))
    for line in report.checked:
        print(f"ok        {line}")
    for line in report.problems:
        print(f"MISMATCH  {line}")
    for line in report.notes:
        print(f"note      {line}")
    print(f"head      {report.head or 'none'}")
    print("\n".join(report.proves) or "This proves nothing until every MISMATCH is explained.")
    return 0 if report.passed else 1


@app.command("claims")
def log_proof(
    log: Annotated[str | None, app.opt(_LOG.partition(";")[0])] = None,
    claim: Annotated[str | None, app.opt("Prove the entries about this claim")] = None,
    size: Annotated[int | None, app.opt("Use the root over so many entries; default: all")] = None,
    out: Annotated[Path | None, app.opt("File for the proof")] = None,
    check: Annotated[Path | None, app.opt("A proof to check, with --root")] = None,
    root: Annotated[str | None, app.opt("The root that you noted, 64 hex digits")] = None,
) -> int:
    """Prove that a claim is in the log, without showing the others.

    With --log alone, prints size and root: publish both, or have them time-stamped. With --claim
    and --out, writes the entries about a claim and the hashes that lead to that root (RFC 6962).
    Whoever knows the root checks them with --check. Exit code 1: the proof is wrong.
    """
    from realdamage.claims import proof
    from realdamage.claims.verify import prove_claim

    if (log is None) == (check is None) or (check is None) != (root is None):
        raise UsageError("`log-proof` needs --log LOG, or --check FILE and --root HASH")
    if (claim is None) != (out is None):
        raise UsageError("--claim ID and --out FILE go together")
    if check and root:
        try:
            entries = proof.check_proof(json.loads(check.read_bytes()), root)
        except OSError as error:
            raise UsageError(f"{check}: cannot be read: {error.strerror}") from error
        except (RealDamageError, ValueError, RecursionError) as error:
            print(f"MISMATCH  {check}: {error}")
            return 1
        for entry in entries:
            payload = json.dumps(entry["payload"], ensure_ascii=False)
            print(f"ok        {entry['time']} {entry['event']} {printable(payload)}")
        return 0
    made = prove_claim(str(log), claim or "", size)
    if out:
        write_atomically(out, f"{json.dumps(made, indent=2)}\n".encode())
        print(f"proof     {out}, {len(made['entries'])} of {made['size']} entries")
    print(f"size      {made['size']}\nroot      {made['root']}")
    return 0


@app.command("claims")
def claim_index(
    index: Annotated[Path, app.arg("What `realdamage claim --index` made", "FILE")],
    delete: Annotated[str | None, app.opt("Forget the claim with this id")] = None,
    purge: Annotated[float | None, app.opt("Forget photos last seen this many days ago")] = None,
) -> int:
    """Count or forget what is remembered of earlier claims.

    The index holds only hashes and claim ids. Exit code 1: the claim to forget is not in it.
    """
    from realdamage.claims import ClaimIndex

    if not index.is_file():
        raise UsageError(f"{index}: no such index; `realdamage claim --index` makes one")
    code = 0
    with ClaimIndex.open(index) as found:
        if delete is not None and (forgotten := found.delete(delete)):
            print(f"{app.count(forgotten, 'photo')} of claim {delete} forgotten")
        elif delete is not None:
            app.warn(f"{index}: no claim {delete!r} is remembered")
            code = 1
        if purge is not None:
            photos, age = app.count(found.purge(purge), "photo"), app.count(purge, "day")
            print(f"{photos} forgotten, seen more than {age} ago")
        print(f"{index}: {app.count(len(found), 'photo')} remembered")
    return code


@app.command("claims")
def exchange(
    what: Annotated[Literal["keys", "export", "import"], app.arg("What to do")],
    store: Annotated[str | None, app.opt("Folder or URL of `realdamage serve --store`")] = None,
    database: Annotated[str, app.opt("URL of the store's PostgreSQL database")] = "",
    shop: Annotated[str, app.opt("Name of your shop")] = "",
    key: Annotated[Path | None, app.opt("File with the consortium's key")] = None,
    signer: Annotated[Path | None, app.opt("Your SHOP.key, which signs the export")] = None,
    public: Annotated[Path | None, app.opt("SHOP.pub of the shop that sent the file")] = None,
    file: Annotated[Path | None, app.opt("The file to write or to read")] = None,
    days: Annotated[int, app.opt("Age of claims to export, and after which they expire")] = 180,
) -> int:
    """Share keyed hashes of refused claims with other shops.

    keys: writes SHOP.key and SHOP.pub. export: signs the hashes of buyers and photos of claims that
    people refused; no photo, name or text. import: replaces what that shop sent before. A match is
    a finding that a person reviews, never a decision.
    """
    from realdamage.claims import exchange as shared
    from realdamage.claims.database import FILE_NAME, Database
    from realdamage.claims.paths import to_path

    def needed(value: Any, option: str) -> Any:
        if not value:
            raise UsageError(f"`exchange {what}` needs {option}")
        return value

    if what == "keys":
        written = shared.make_keys(Path.cwd(), _shop_name(shop))
        print("\n".join(str(path) for path in written))
        return 0
    folder = to_path(needed(store, "--store DIR"))
    if isinstance(folder, Path) and not database and not (folder / FILE_NAME).is_file():
        raise UsageError(f"{folder}: no such store; `realdamage serve --store` makes one")
    tables = Database.of_store(folder, database)
    try:
        secret = shared.ExchangeKey.read(needed(key, "--key FILE"))
        target = needed(file, "--file FILE")
        if what == "export":
            own = needed(signer, "--signer SHOP.key")
            name = _shop_name(shop)
            data = shared.export_hashes(tables, secret, own, shop=name, days=days)
            write_atomically(target, data)
            print(f"{target}: {len(json.loads(data)['hashes'])} hashes")
        else:
            count = shared.import_hashes(tables, secret, target, needed(public, "--public FILE"))
            print(f"{target}: {count} hashes imported")
    finally:
        tables.close()
    return 0


@app.command("video")
def seal(
    video: Annotated[Path, app.arg("The packing video", "VIDEO")],
    log: Annotated[Path, app.opt("Log to add the entry to, or to look in")],
    order: Annotated[str | None, app.opt("Your order id; needed to seal")] = None,
    check: Annotated[bool, app.opt("Look whether it was sealed, and write nothing")] = False,
    head: Annotated[str | None, app.opt("With --check: head noted earlier, 64 hex digits")] = None,
) -> int:
    """Seal a packing video before shipping.

    Adds the video's SHA-256, the order and the time to a log whose entries hang together. Publish
    the head that it prints, or have it time-stamped: it shows later that the video existed then.
    Exit code 1: --check did not find the video, or the log was changed.
    """
    from realdamage.claims.log import EvidenceLog
    from realdamage.claims.videos import check_seal
    from realdamage.claims.videos import seal as add

    chain = EvidenceLog(log)
    if not check:
        if order is None:
            raise UsageError("`realdamage seal` needs --order ID, the order that is being packed")
        if head is not None:
            raise UsageError("--head is for --check")
        entry = add(video, order, chain)
        print(f"sealed    {video}, order {order}, {entry['time']}")
        print(f"sha256    {entry['payload']['sha256']}")
        print(f"head      {chain.head}")
        print(f"          of {log}; publish it, or have it time-stamped, before you ship")
        return 0
    report = check_seal(video, chain, order, head)
    if report.entry is not None:
        payload = report.entry["payload"]
        print(f"found     order {payload.get('order')}, {payload.get('name')}")
    for line in report.problems:
        print(f"MISMATCH  {line}")
    print("\n".join(report.proves) or "This proves nothing until every MISMATCH is explained.")
    return 1 if report.problems else 0


@app.command("cases")
def case(
    out: Annotated[Path, app.opt("The package to write, a .zip")],
    buyer: Annotated[str, app.opt("Your reference of the buyer; kept only in the package")],
    store: Annotated[str, app.opt("Folder or URL of `realdamage serve --store`")],
    database: Annotated[str, app.opt("URL of the store's PostgreSQL database")] = "",
    thresholds: Annotated[Path | None, app.opt("Your table of legal thresholds, YAML")] = None,
    tsa: Annotated[str | None, app.opt("Address of a time-stamp authority (RFC 3161)")] = None,
    tsa_ca: Annotated[Path | None, app.opt("PEM of the authority that certifies it")] = None,
    overwrite: app.Overwrite = False,
) -> int:
    """Put the claims of one buyer into a package for the authorities.

    A table with sums against legal thresholds, every piece of evidence verified, a summary as PDF
    in Chinese and English, a time stamp of the log's head, and a README for the recipient. It says
    what was found in photos and files; whether that is an offence, others decide. Exit code 1: some
    evidence does not verify; the package says so.
    """
    from realdamage.claims import package
    from realdamage.claims.paths import to_path

    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; name another file, or pass --overwrite", code="exists")
    if tsa is not None and tsa_ca is None:
        raise UsageError("--tsa needs --tsa-ca FILE: certificates to check its stamps with")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        rows = package.rows_of_buyer(to_path(store), buyer, log, url=database)
        made = package.make_package(
            rows,
            out,
            buyer=buyer,
            limits=package.read_thresholds(thresholds),
            log=log,
            stamp=package.Authority(tsa, tsa_ca) if tsa and tsa_ca else None,
        )
    print(f"package   {out}, {app.count(len(rows), 'claim')}, {made.byte_count:,} bytes")
    for line in made.problems:
        print(f"MISMATCH  {line}")
    print(f"stamped   {made.stamped or 'no; pass --tsa and --tsa-ca'}")
    return 1 if made.problems else 0


@app.command("claims")
def move_store(
    store: Annotated[Path, app.opt("Folder of `realdamage serve --store`")],
    database: Annotated[str, app.opt("URL of an empty PostgreSQL database")],
) -> int:
    """Move the tables of a store from SQLite to PostgreSQL.

    Stop the service first. Copies the tables of the store and its tenants, compares the numbers of
    rows and follows the log before anything counts; the SQLite files are kept as
    claims.sqlite.moved. After a kill, type it again. Then start the service with --database.
    """
    from realdamage.claims.move import move_store as move

    for name, rows in move(store, database).items():
        print(f"moved     {name}: {app.count(rows, 'row')}")
    return 0


def _shop_name(name: str) -> str:
    if not name or not name.replace("-", "").isalnum() or len(name) > 64:
        raise UsageError(f"--shop {name[:80]!r}: use up to 64 letters, digits and dashes")
    return name


def _each(
    paths: Sequence[Path], read: Callable[[Path], Any], key: str
) -> tuple[list[tuple[str, Any]], list[dict[str, Any]]]:
    """What `read` returns by name for each readable photo; all as JSON with `key` or `error`."""
    found: list[tuple[str, Any]] = []
    results: list[dict[str, Any]] = []
    for path in paths:
        try:
            one = read(path)
        except PhotoError as error:
            app.warn(str(error))
            values = {"error": {"code": "unreadable", "message": str(error)}}
        else:
            found.append((printable(str(path)), one))
            values = {key: one.to_dict()}
        results.append({"name": str(path), **values})
    return found, results


def _finish(values: dict[str, Any], table: str, form: str | None, output: Path | None) -> int:
    """Write or print the results. Returns the exit code. Raises PhotoError if nothing was read."""
    is_json = form == "json" or (not form and output and output.suffix.lower() == ".json")
    text = json.dumps(values, indent=2) if is_json else table
    if output:
        write_atomically(output, f"{text}\n".encode(errors="surrogateescape"))
    elif text:
        print(text)
    errors = ["error" in one for one in values["results"]]
    if all(errors):
        raise PhotoError("none of the photos could be read")
    return 1 if any(errors) else 0


def _read_files(given: list[str]) -> list[tuple[str, bytes]]:
    """(name, bytes) of the photos that paths, folders and globs name."""
    from realdamage.core.decode import read_file

    return [(path.name, read_file(path)) for path in find_photos(given)]


def _read_anchors(path: Path | None) -> "TrustAnchors | None":
    from realdamage.provenance import TrustAnchors

    if path is None:
        return None
    anchors = TrustAnchors.read(path)
    if ignored := anchors.passed_over:
        total = ignored + anchors.authorities
        app.warn(f"{path}: {ignored} of {total} certificates are not CA certificates; ignored")
    return anchors
