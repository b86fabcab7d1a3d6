"""The inbox tells what became of each delivery; tokens for the fire endpoint."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("routines_outputs", sa.Column("link", sa.Text))
    op.create_index("ix_routines_outputs__link", "routines_outputs", ["link"])
    for column in (
        sa.Column("content_type", sa.Text, nullable=False, server_default=""),
        sa.Column("event", sa.Text, nullable=False, server_default=""),
        sa.Column("labels", sa.Text, nullable=False, server_default="{}"),
        sa.Column("key", sa.Text),
        # what was recorded before had no gateway: a person handed it over
        sa.Column("status", sa.String(16), nullable=False, server_default="settled"),
        sa.Column("note", sa.Text),
        sa.Column("sent", sa.Integer, nullable=False, server_default="0"),
        sa.Column("settled_at", sa.BigInteger),
        sa.Column("held_until", sa.Float(53)),
    ):
        op.add_column("routines_deliveries", column)
    op.create_index("ix_routines_deliveries__status_received_at", "routines_deliveries", ["status", "received_at"])
    op.create_table(
        "routines_dispatches",
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("deployment_id", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("flow_run_id", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("delivery_id", "deployment_id", name="pk_routines_dispatches"),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["routines_deliveries.id"], name="fk_routines_dispatches__delivery_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_routines_dispatches__deployment_id_key_status", "routines_dispatches", ["deployment_id", "key", "status"])
    op.create_index("ix_routines_dispatches__flow_run_id", "routines_dispatches", ["flow_run_id"])
    op.create_index("ix_routines_dispatches__session_id", "routines_dispatches", ["session_id"])
    op.create_table(
        "routines_tokens",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("deployment_id", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_routines_tokens"),
        sa.UniqueConstraint("sha256", name="uq_routines_tokens__sha256"),
    )
