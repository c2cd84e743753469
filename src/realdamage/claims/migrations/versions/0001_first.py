"""The tables as they were before PostgreSQL came."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

LARGE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _texts(*names: str, null: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=null) for name in names]


def _numbers(*names: str, null: bool = False) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double(), nullable=null) for name in names]


def _flags(*names: str) -> list[sa.Column[bool]]:
    return [sa.Column(name, sa.Boolean(), nullable=False) for name in names]


def _whole(*names: str, large: bool = False) -> list[sa.Column[int]]:
    return [sa.Column(name, LARGE if large else sa.Integer(), nullable=False) for name in names]


def _bytes(*names: str) -> list[sa.Column[bytes]]:
    return [sa.Column(name, sa.LargeBinary(), nullable=False) for name in names]


def _index(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "photos",
        *_whole("id", large=True),
        *_texts("claim_id"),
        *_whole("number"),
        *_texts("seen"),
        *_bytes("sha256"),
        *_whole("coarse", large=True),
        *_bytes("fine", "thumbnail"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("claim_id", "sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("photos_coarse", "photos", ["id", "coarse"])
    _index("photos", "seen", "sha256")
    op.create_table(
        "foreign_hashes",
        *_texts("shop", "kind", "hash"),
        *_whole("serial", large=True),
        *_numbers("expires"),
        sa.PrimaryKeyConstraint("shop", "kind", "hash"),
    )
    _index("foreign_hashes", "hash")
    op.create_table(
        "cases",
        *_texts("claim_id", "state", "worker"),
        *_whole("version"),
        *_numbers("created", "updated", "deadline"),
        *_flags("deadline_reported"),
        *_texts("order_id", "product", "merchant"),
        *_whole("amount", large=True),
        *_texts("currency", "buyer", "buyer_shared", "device", "recommendation"),
        *_numbers("probability", null=True),
        *_numbers("expected_loss"),
        *_texts("same_photos"),
        sa.PrimaryKeyConstraint("claim_id"),
    )
    _index("cases", "state", "deadline", "order_id", "merchant", "buyer", "device")
    _index("cases", "expected_loss")
    op.create_table(
        "decisions",
        *_texts("claim_id"),
        *_whole("number"),
        *_texts("action", "reason"),
        *_whole("amount", large=True),
        *_texts("by"),
        *_numbers("at"),
        *_texts("confirmed_by"),
        *_numbers("final_at", null=True),
        *_flags("is_final", "undone"),
        *_texts("state_before"),
        sa.PrimaryKeyConstraint("claim_id", "number"),
    )
    _index("decisions", "final_at", "is_final")
    op.create_table(
        "links",
        *_texts("token", "claim_id", "side", "nonce"),
        *_numbers("created", "expires", "used"),
        *_flags("revoked"),
        sa.PrimaryKeyConstraint("token"),
    )
    _index("links", "claim_id")
    op.create_table(
        "statements",
        *_texts("claim_id"),
        *_whole("number"),
        *_texts("side"),
        *_numbers("received"),
        *_texts("text", "folder"),
        sa.PrimaryKeyConstraint("claim_id", "number"),
    )
    op.create_table(
        "reviews",
        *_whole("id", large=True),
        *_texts("photo_sha256", "decision", "damage", "file_name", "claim_id", "note"),
        *_texts("reviewer", "key_name"),
        *_texts("outcome", null=True),
        *_numbers("score", null=True),
        *_texts("model_version", "decided_at"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("reviews_by_photo", "reviews", ["photo_sha256", "id"])
    _index("reviews", "claim_id", "decided_at")
    op.create_table(
        "jobs",
        *_texts("id", "claim_id", "worker", "status", "error"),
        *_numbers("created", "finished"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "deliveries",
        *_whole("id", large=True),
        *_texts("url", "event", "body", "claim_id"),
        *_numbers("created"),
        *_texts("status"),
        *_whole("attempts"),
        *_numbers("next_at"),
        *_texts("error"),
        sa.PrimaryKeyConstraint("id"),
    )
    _index("deliveries", "claim_id", "status")
    op.create_table(
        "settings",
        *_texts("name"),
        *_numbers("value"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "events",
        sa.Column("index", LARGE, autoincrement=False, nullable=False),
        *_texts("claim_id", "time", "event", "payload", "payload_sha256", "previous", "hash"),
        sa.PrimaryKeyConstraint("index"),
    )
    _index("events", "claim_id")
