"""The tables behind claims: hashes of photos, cases with all that happened to them, and the log.

SQLAlchemy over SQLite in WAL mode, or over PostgreSQL for several machines. Every change and its
entry in the chained log are one transaction, so that neither is ever there without the other.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Engine,
    Index,
    Integer,
    StaticPool,
    UniqueConstraint,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from realdamage.claims.log import GENESIS, LogReport, canonical, follow_chain, make_entry
from realdamage.claims.migrate import bring_up_to_date
from realdamage.claims.paths import AnyPath, ObjectPath
from realdamage.claims.proof import Node, cut, grow, nodes_of, prove
from realdamage.errors import MissingExtraError, RealDamageError, UsageError

FILE_NAME = "claims.sqlite"
"""Of the database in a store's folder."""
ELSEWHERE = "claims.elsewhere"
"""An empty file in a store's folder: its tables are in PostgreSQL."""
_WAIT_S = 30.0  # for another process that is writing
_LOCKS = 0x7264_6D67  # "rdmg": our advisory locks, apart from those of other programs
_Large = BigInteger().with_variant(Integer, "sqlite")  # 64 bits in SQLite


class Base(DeclarativeBase):
    """Base of the tables. Times are seconds since 1970 in UTC."""


BANDS = ((1, 3, 3), *((start, 3, 2) for start in range(4, 31, 3)), (31, 2, 1))
"""Of the 32 bytes of a fine hash, for `claims.index`: (first byte from 1, bytes, bits that may
differ). If each band differed in more, the hashes would differ in 4 + 9 · 3 + 2 = 33 bits."""


class Photo(Base):
    """The hashes of a photo that was seen in a claim: no photo, file name or text."""

    __tablename__ = "photos"
    __table_args__ = (
        UniqueConstraint("claim_id", "sha256"),
        *(
            Index(f"photos_band_{start}", text(f"substr(fine, {start}, {length})"))
            for start, length, _ in BANDS
        ),
        {"sqlite_autoincrement": True},  # an id is never used twice
    )
    id: Mapped[int] = mapped_column(_Large, primary_key=True)
    claim_id: Mapped[str]
    number: Mapped[int]
    seen: Mapped[str] = mapped_column(index=True)
    sha256: Mapped[bytes] = mapped_column(index=True)
    coarse: Mapped[int] = mapped_column(_Large)
    fine: Mapped[bytes]
    thumbnail: Mapped[bytes]


class ForeignHash(Base):
    """A keyed hash that another shop shares. kind: buyer, file or look. serial: of its export."""

    __tablename__ = "foreign_hashes"
    shop: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(primary_key=True, index=True)
    serial: Mapped[int] = mapped_column(_Large)
    expires: Mapped[float]


class Case(Base):
    """A kept claim. amount: in hundredths. buyer, device: keyed hashes, never the reference.

    state: "judging" until its evidence is there, then open, waiting_buyer, waiting_merchant,
    decided, appealed, closed. worker: the process that judges it. version: grows with each change.
    """

    __tablename__ = "cases"
    claim_id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(index=True)
    worker: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column(default=1)
    created: Mapped[float]
    updated: Mapped[float]
    deadline: Mapped[float] = mapped_column(default=0.0, index=True)
    deadline_reported: Mapped[bool] = mapped_column(default=False)
    order_id: Mapped[str] = mapped_column(default="", index=True)
    product: Mapped[str] = mapped_column(default="")
    merchant: Mapped[str] = mapped_column(default="", index=True)
    amount: Mapped[int] = mapped_column(_Large, default=0)
    currency: Mapped[str] = mapped_column(default="")
    buyer: Mapped[str] = mapped_column(default="", index=True)
    buyer_shared: Mapped[str] = mapped_column(default="")
    device: Mapped[str] = mapped_column(default="", index=True)
    recommendation: Mapped[str] = mapped_column(default="")
    probability: Mapped[float | None] = mapped_column(default=None)
    expected_loss: Mapped[float] = mapped_column(default=0.0, index=True)
    same_photos: Mapped[str] = mapped_column(default="")


class Decision(Base):
    """What a person decided about a case. confirmed_by: the second person, where one is needed.

    final_at: when it can no longer be undone; None while a second person is missing.
    """

    __tablename__ = "decisions"
    claim_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str]
    reason: Mapped[str]
    amount: Mapped[int] = mapped_column(_Large, default=0)
    by: Mapped[str]
    at: Mapped[float]
    confirmed_by: Mapped[str] = mapped_column(default="")
    final_at: Mapped[float | None] = mapped_column(default=None, index=True)
    is_final: Mapped[bool] = mapped_column(default=False, index=True)
    undone: Mapped[bool] = mapped_column(default=False)
    state_before: Mapped[str]


class Link(Base):
    """A one-time link for a statement. token: SHA-256 of the random part. nonce: shown there."""

    __tablename__ = "links"
    token: Mapped[str] = mapped_column(primary_key=True)
    claim_id: Mapped[str] = mapped_column(index=True)
    side: Mapped[str]
    nonce: Mapped[str]
    created: Mapped[float]
    expires: Mapped[float]
    used: Mapped[float] = mapped_column(default=0.0)
    revoked: Mapped[bool] = mapped_column(default=False)


class Statement(Base):
    """What the buyer or the merchant answered; its files are in `folder` of the evidence."""

    __tablename__ = "statements"
    claim_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    side: Mapped[str]
    received: Mapped[float]
    text: Mapped[str]
    folder: Mapped[str]


class Review(Base):
    """What a person decided about a photo, to train on."""

    __tablename__ = "reviews"
    __table_args__ = (Index("reviews_by_photo", "photo_sha256", "id"),)
    id: Mapped[int] = mapped_column(_Large, primary_key=True)
    photo_sha256: Mapped[str]
    decision: Mapped[str]
    damage: Mapped[str]
    file_name: Mapped[str]
    claim_id: Mapped[str] = mapped_column(index=True)
    note: Mapped[str]
    reviewer: Mapped[str]
    key_name: Mapped[str]
    outcome: Mapped[str | None]
    score: Mapped[float | None]
    model_version: Mapped[str]
    decided_at: Mapped[str] = mapped_column(index=True)


class Job(Base):
    """A claim that is judged after its request was answered. status: running, done, failed."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    claim_id: Mapped[str]
    worker: Mapped[str]
    status: Mapped[str]
    error: Mapped[str] = mapped_column(default="")
    created: Mapped[float]
    finished: Mapped[float] = mapped_column(default=0.0)


class Delivery(Base):
    """An event for one webhook target. status: waiting, delivered or dead."""

    __tablename__ = "deliveries"
    id: Mapped[int] = mapped_column(_Large, primary_key=True)
    url: Mapped[str]
    event: Mapped[str]
    body: Mapped[str]
    claim_id: Mapped[str] = mapped_column(index=True)
    created: Mapped[float]
    status: Mapped[str] = mapped_column(default="waiting", index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float] = mapped_column(default=0.0)
    error: Mapped[str] = mapped_column(default="")


class Setting(Base):
    """A single value, such as when the retention last trusted the clock."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]


class Event(Base):
    """An entry of the log over all claims, as `claims.log` chains it. nodes: `proof.grow`."""

    __tablename__ = "events"
    index: Mapped[int] = mapped_column(_Large, primary_key=True, autoincrement=False)
    claim_id: Mapped[str] = mapped_column(index=True)
    time: Mapped[str]
    event: Mapped[str]
    payload: Mapped[str]
    payload_sha256: Mapped[str]
    previous: Mapped[str]
    hash: Mapped[str]
    nodes: Mapped[bytes]

    def to_dict(self) -> dict[str, Any]:
        """The entry as in a log file."""
        names = ("index", "time", "event", "payload_sha256", "previous", "hash")
        found = {name: getattr(self, name) for name in names}
        return found | {"payload": json.loads(self.payload)}


class Database:
    """The tables in one SQLite file, made on first use, in memory (None), or in PostgreSQL (a URL).

    For several threads and processes. `transaction` and `reading` raise RealDamageError with the
    code database_unusable, naming the place.
    """

    def __init__(self, where: str | Path | None) -> None:
        self.path = Path(where) if isinstance(where, Path) else None
        self._url = _url(where)
        self.is_postgres = self._url.get_backend_name() == "postgresql"
        self.name = str(where or "the database in memory")
        if self.is_postgres:
            self.name = self._url.render_as_string(hide_password=True)
        self._lock = threading.RLock()
        self._is_alone = where is None
        self._is_prepared = False
        self._schema = ""
        self._engine = self._connect()
        self._make_sessions()

    def _make_sessions(self) -> None:
        self._writes = sessionmaker(self._engine, expire_on_commit=False)
        options: dict[str, Any] = {"reads": True}
        if self.is_postgres:
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        reads = self._engine.execution_options(**options)
        self._reads = sessionmaker(reads, expire_on_commit=False)

    @classmethod
    def of_store(cls, folder: AnyPath, url: str = "") -> Database:
        """The database of a store of `realdamage serve`: claims.sqlite in its folder, or at a URL.

        Raises UsageError when its tables are somewhere else, since its claims would seem lost, and
        for an object store without PostgreSQL.
        """
        if isinstance(folder, ObjectPath):
            found = cls(url or None)
            if not found.is_postgres:
                message = f"{folder}: needs --database postgresql+psycopg://USER@HOST/NAME"
                raise UsageError(message, code="needs_database")
            return found
        found = cls(url or folder / FILE_NAME)
        fault = ""
        if found.is_postgres and (folder / FILE_NAME).exists():
            fault = f"has its tables in {FILE_NAME}: leave --database out, or use an empty folder"
        elif not found.is_postgres and (folder / ELSEWHERE).exists():
            fault = "has its tables in PostgreSQL: name it with --database URL"
        if fault:
            raise UsageError(f"{folder}: this store {fault}", code="other_database")
        return found

    def of_tenant(self, name: str) -> Database:
        """A schema of its own in this PostgreSQL database, over the same connections.

        name: lower-case letters, digits and dashes.
        """
        found = copy.copy(self)
        found._schema = f"tenant_{name}"
        found.name = f"{self.name} (schema {found._schema})"
        found._lock, found._is_prepared = threading.RLock(), False
        found._engine = self._engine.execution_options(schema=found._schema)
        found._make_sessions()
        return found

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that may write: one at a time. It commits at the end, or nothing happened."""
        with self._session(self._writes) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the tables and does not wait for writers."""
        with self._session(self._reads) as session, session.begin():
            yield session

    def record(self, session: Session, entry: Mapping[str, Any]) -> None:
        """Append an event to the chained log, in the transaction that makes the change.

        Only one transaction writes at a time, so there is one chain, whoever writes.
        """
        last = session.scalars(select(Event).order_by(Event.index.desc()).limit(1)).first()
        made = make_entry(entry, *((last.index, last.hash) if last else (-1, GENESIS)))
        about = {
            "payload": canonical(made["payload"]),
            "claim_id": str(entry.get("claim_id", "")),
            "nodes": grow(_tree(session), made["index"], made["hash"]),
        }
        session.add(Event(**made | about))
        session.flush()

    def verify(self, head: str | None = None) -> LogReport:
        """Follow the chained log from its first entry, as `EvidenceLog.verify`. The hashes that
        are kept for proofs must be those of the entries."""
        report = follow_chain(self.log_text().splitlines(), self.name, head)
        if report.problems:
            return report
        entries = report.entries
        with self.reading() as session:
            kept = session.scalars(select(Event.nodes).order_by(Event.index)).all()
        node = nodes_of(entry["hash"] for entry in entries)
        wrong = [
            f"{self.name}, line {number + 1}: its hashes for proofs were changed (nodes)"
            for number, (entry, nodes) in enumerate(zip(entries, kept, strict=False))
            if grow(node, number, entry["hash"]) != nodes
        ]
        return replace(report, problems=tuple(wrong))

    def prove(self, claim_id: str, size: int | None = None) -> dict[str, Any]:
        """The proof that all entries about a claim are in the log; see `proof.prove`."""
        of_claim = select(Event).where(Event.claim_id == claim_id).order_by(Event.index)
        with self.reading() as session:
            last = session.scalar(select(func.max(Event.index)))
            entries = [one.to_dict() for one in session.scalars(of_claim)] if claim_id else []
            total = 0 if last is None else last + 1
            return prove(entries, _tree(session), total, size)

    def log_text(self) -> bytes:
        """The log as a file that `EvidenceLog` and `realdamage verify` read: JSON, one entry a
        line."""
        with self.reading() as session:
            return b"".join(line + b"\n" for line in log_lines(session))

    def hold(self, name: str) -> Connection:
        """A connection that holds an advisory lock of this name until it is closed or dies.

        PostgreSQL only. Raises RealDamageError when the lock cannot be taken.
        """
        with self._errors():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # its lock must end with it, not wait in the pool
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _key(name)})
            return connection

    def is_held(self, name: str) -> bool:
        """Whether any process holds the advisory lock of this name. PostgreSQL only."""
        query = text("SELECT pg_try_advisory_xact_lock_shared(:key)")
        with self.reading() as session:
            return not session.scalar(query, {"key": _key(name)})

    def close(self) -> None:
        """Close all connections; none may be in use."""
        self._engine.dispose()

    @contextmanager
    def _session(self, make: sessionmaker[Session]) -> Iterator[Session]:
        # A database in memory has one connection, which threads take in turn.
        with self._lock if self._is_alone else nullcontext(), self._errors():
            self._prepare()
            with make() as session:
                yield session

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            why = str(getattr(error, "orig", None) or error).strip()
            check = "Check that it is one, and its folder's free space and permissions"
            if self.is_postgres:
                check = "Check that the server runs and admits this user"
            raise RealDamageError(
                f"{self.name}: cannot use the database of claims: {why}. {check}.",
                code="database_unusable",
            ) from error

    def _connect(self) -> Engine:
        if self.is_postgres:
            return _connect_to_postgres(self._url)
        options: dict[str, Any] = {"pool_size": 20, "max_overflow": 60}
        if self._is_alone:
            options = {"poolclass": StaticPool}
        connect = {"timeout": _WAIT_S, "check_same_thread": False}
        engine = create_engine(self._url, connect_args=connect, **options)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: Any) -> None:
            connection.isolation_level = None  # transactions begin below
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # an answer outlives a power cut
            connection.execute("PRAGMA secure_delete = ON")

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            reads = connection.get_execution_options().get("reads")
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

        return engine

    def _prepare(self) -> None:
        """Make the tables, or bring them to this version's."""
        with self._lock:
            if self._is_prepared:
                return
            if self.path and not self.path.parent.is_dir():
                folder = self.path.parent
                raise UsageError(f"{self.path}: cannot make the database: no folder {folder}")
            with self._engine.begin() as connection:
                if self._schema:
                    connection.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')
                bring_up_to_date(connection, self.name, Base.metadata.tables)
            self._is_prepared = True


def _url(where: str | Path | None) -> URL:
    """The address of a SQLite file, of a database in memory (None), or as given.

    Raises UsageError for an address that is none, or of another kind of database.
    """
    if where is None or isinstance(where, Path):
        return URL.create("sqlite", database=str(where) if where else None)
    try:
        url = make_url(where)
    except ArgumentError:
        url = None
    kind = url.get_backend_name() if url else ""
    if url is None or kind not in ("sqlite", "postgresql"):
        # The message leaves the address out: it may hold a password.
        raise UsageError(
            f"--database: expected postgresql+psycopg://USER@HOST/NAME, found {kind or 'no'} URL",
            code="database_url",
        )
    return url.set(drivername="postgresql+psycopg") if kind == "postgresql" else url


def _connect_to_postgres(url: URL) -> Engine:
    """Writers to a schema take one advisory lock, so that they come one after the other, as with
    SQLite."""
    alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    alive |= {"user_timeout": 60_000}  # ms, for data that nobody acknowledges
    pool: dict[str, Any] = {"pool_size": 5, "max_overflow": 15, "pool_pre_ping": True}
    try:
        names = {name.replace("user_", "tcp_user_"): value for name, value in alive.items()}
        engine = create_engine(url, connect_args=names, **pool)
    except ModuleNotFoundError as error:
        raise MissingExtraError("--database postgresql", "postgres", error.name) from error

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.autocommit = True
        # A machine that vanished, or a process that hangs, loses its turn before others give up.
        wait = round(1000 * _WAIT_S)
        connection.execute(f"SET lock_timeout = {wait}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {wait * 2 // 3}")
        for name, value in alive.items():
            connection.execute(f"SET tcp_{name} = {value}")
        connection.autocommit = False

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        options = connection.get_execution_options()
        if options.get("isolation_level") == "AUTOCOMMIT":
            return
        schema, calls = options.get("schema"), []
        if schema:
            calls.append(f"set_config('search_path', '\"{schema}\"', true)")
        if not options.get("reads"):
            name = f"'{schema}'" if schema else "current_schema()::text"
            calls.append(f"pg_advisory_xact_lock({_LOCKS}, hashtext({name}))")
        if calls:
            connection.exec_driver_sql(f"SELECT {', '.join(calls)}")

    return engine


def _tree(session: Session) -> Node:
    """The Merkle tree over the log, as it is kept in the table."""

    def node(level: int, last: int) -> bytes:
        found = session.get(Event, last)  # None: removed, which `verify` reports
        return cut(found.nodes if found else b"", level)

    return node


def _key(name: str) -> int:
    """The number of an advisory lock: 64 bits, signed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def now() -> float:
    """Seconds since 1970; tests replace it."""
    return dt.datetime.now(dt.UTC).timestamp()


def log_lines(session: Session) -> Iterator[bytes]:
    """The entries of the log as lines of JSON, without their ends."""
    entries = select(Event).order_by(Event.index).execution_options(yield_per=1000)
    for entry in session.scalars(entries):
        yield canonical(entry.to_dict()).encode()
