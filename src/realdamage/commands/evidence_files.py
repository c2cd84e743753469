"""The commands of `realdamage` that seal packing videos and put a case together for others."""

import tempfile
from pathlib import Path
from typing import Annotated

from realdamage.commands import app
from realdamage.errors import UsageError


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
    claims: Annotated[Path | None, app.opt("Table of claims, CSV: claim_id, order, …")] = None,
    store: Annotated[str | None, app.opt("Folder or URL of `realdamage serve --store`")] = None,
    database: Annotated[str, app.opt("With --store: URL of its PostgreSQL database")] = "",
    log: Annotated[Path | None, app.opt("With --claims: log over all, verified, stamped")] = None,
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
    if (claims is None) == (store is None):
        raise UsageError("`realdamage case` needs --claims FILE or --store DIR")
    if store and log:
        raise UsageError("--log is for --claims; a store has its own log")
    if tsa is not None and tsa_ca is None:
        raise UsageError("--tsa needs --tsa-ca FILE: certificates to check its stamps with")
    with tempfile.TemporaryDirectory() as folder:
        if claims:
            rows = package.read_rows(claims)
        else:
            log = Path(folder) / "log.jsonl"
            rows = package.rows_of_buyer(to_path(str(store)), buyer, log, url=database)
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
