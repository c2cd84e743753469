"""The hashes of the Merkle tree over the log, a few with each entry, so that one can be proved."""

import re

import sqlalchemy as sa
from alembic import op

from realdamage.claims.proof import Node, cut, grow

revision = "0003"
down_revision = "0002"

CHUNK = 10_000  # entries that are read at a time


def upgrade() -> None:
    """Add the column, and fill it; takes about a minute for a million entries."""
    empty = sa.text("''")
    column = sa.Column("nodes", sa.LargeBinary(), nullable=False, server_default=empty)
    op.add_column("events", column)
    events = sa.table("events", *map(sa.column, ("index", "hash")), sa.column("nodes", column.type))
    last: dict[int, bytes] = {}
    connection, start = op.get_bind(), 0
    chunk = sa.select(events.c.index, events.c.hash).order_by(events.c.index).limit(CHUNK)
    number: sa.BindParameter[int] = sa.bindparam("number")
    change = events.update().where(events.c.index == number).values(nodes=sa.bindparam("filled"))
    while rows := connection.execute(chunk.where(events.c.index >= start)).all():
        filled = []
        for index, entry_hash in rows:
            # A log that was tampered with is opened too, so that `verify` can say where.
            known = entry_hash if re.fullmatch("[0-9a-f]{64}", entry_hash) else "00"
            last[index] = nodes = grow(_of(last), index, known)
            for level in range(len(nodes) // 32 - 1):
                last.pop(index - 2**level, None)
            filled.append({"number": index, "filled": nodes})
        connection.execute(change, filled)
        start = rows[-1][0] + 1


def _of(last: dict[int, bytes]) -> Node:
    return lambda level, index: cut(last.get(index, b""), level)
