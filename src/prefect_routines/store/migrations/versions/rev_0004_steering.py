"""What people send to sessions, the forms that wait for them, live text, notices, and scopes of tokens."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("routines_tokens", sa.Column("scopes", sa.Text, nullable=False, server_default="fire"))
    _table(
        "routines_acts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("via", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("taken_at", sa.BigInteger),
        indexes=[("session_id", "id")],
    )
    _table(
        "routines_forms",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("person", sa.Text),
        sa.Column("via", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("answered_at", sa.BigInteger),
        sa.UniqueConstraint("session_id", "key", name="uq_routines_forms__session_id_key"),
        indexes=[("status", "expires_at")],
    )
    _table(
        "routines_live",
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("watched_until", sa.Float(53), nullable=False),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        key="session_id",
    )
    _table(
        "routines_notices",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float(53)),
        sa.Column("note", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.BigInteger),
        sa.UniqueConstraint("session_id", "kind", "subject", "target", name="uq_routines_notices__session_id_kind_subject_target"),
        indexes=[("status", "due_at")],
    )


def _table(
    name: str, *columns: sa.Column[Any] | sa.UniqueConstraint, key: str = "id", indexes: list[tuple[str, ...]] | None = None
) -> None:
    """A table of things that belong to a session and go with it."""
    session = sa.ForeignKeyConstraint(["session_id"], ["routines_sessions.id"], name=f"fk_{name}__session_id", ondelete="CASCADE")
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(key, name=f"pk_{name}"), session)
    for indexed in indexes or []:
        op.create_index(f"ix_{name}__{'_'.join(indexed)}", name, list(indexed))
