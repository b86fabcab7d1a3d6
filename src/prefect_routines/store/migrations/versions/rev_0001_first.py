"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _session_id() -> sa.Column[str]:
    return sa.Column("session_id", sa.Text, nullable=False)


def _of_session(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["session_id"], ["routines_sessions.id"], name=f"fk_{table}__session_id", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "routines_sessions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("routine", sa.Text, nullable=False),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("deployment_id", sa.Text),
        sa.Column("event_id", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(32)),
        sa.Column("summary", sa.Text),
        sa.Column("turns", sa.Integer, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("dollars", sa.BigInteger, nullable=False),
        sa.Column("workspace", sa.Text),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routines_sessions"),
        sa.UniqueConstraint("flow_run_id", "name", name="uq_routines_sessions__flow_run_id_name"),
    )
    op.create_index("ix_routines_sessions__created_at", "routines_sessions", ["created_at"])
    op.create_index("ix_routines_sessions__routine_created_at", "routines_sessions", ["routine", "created_at"])
    op.create_table(
        "routines_leases",
        _session_id(),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("holder", sa.Text),
        sa.PrimaryKeyConstraint("session_id", name="pk_routines_leases"),
        _of_session("routines_leases"),
    )
    op.create_table(
        "routines_entries",
        _session_id(),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "seq", name="pk_routines_entries"),
        _of_session("routines_entries"),
    )
    op.create_table(
        "routines_outputs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False, autoincrement=True),
        _session_id(),
        sa.Column("tool_use_id", sa.Text, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("rule", sa.Text),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_routines_outputs"),
        sa.UniqueConstraint("session_id", "tool_use_id", name="uq_routines_outputs__session_id_tool_use_id"),
        _of_session("routines_outputs"),
    )
    op.create_table(
        "routines_spend",
        _session_id(),
        sa.Column("turn", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("routine", sa.Text, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("dollars", sa.BigInteger, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "turn", "attempt", name="pk_routines_spend"),
        _of_session("routines_spend"),
    )
    op.create_index("ix_routines_spend__day_routine", "routines_spend", ["day", "routine"])
    op.create_table(
        "routines_deliveries",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("action", sa.Text),
        sa.Column("repository", sa.Text),
        sa.Column("number", sa.BigInteger),
        sa.Column("sha", sa.Text),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("body_sha256", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_routines_deliveries"),
        sa.UniqueConstraint("source", "delivery_id", name="uq_routines_deliveries__source_delivery_id"),
        sa.UniqueConstraint("source", "body_sha256", name="uq_routines_deliveries__source_body_sha256"),
    )
    op.create_index("ix_routines_deliveries__received_at", "routines_deliveries", ["received_at"])
