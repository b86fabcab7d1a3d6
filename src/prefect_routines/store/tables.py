"""The tables, and the column types that make SQLite and PostgreSQL keep the same bytes.

PostgreSQL stores neither NUL nor lone surrogates in text, its JSON types reorder keys and rewrite numbers, and both can come
out of a model or a webhook. So JSON is stored as ASCII text and free text with JSON's escapes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Json(TypeDecorator[dict[str, Any]]):
    """A JSON object as ASCII text: order, number types, NUL and surrogates survive."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=True, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any] | None:
        return None if value is None else json.loads(value)


class Escaped(TypeDecorator[str]):
    """Any Python string as ASCII text with JSON's escapes. Equality and prefixes work as on the string itself."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)[1:-1]

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else json.loads(f'"{value}"')


class Instant(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970: exact, sorts, and means the same on both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class Dollars(TypeDecorator[float]):
    """US dollars as whole millionths, so that sums are exact."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value * 1_000_000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> float | None:
        return None if value is None else int(value) / 1_000_000


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s__%(column_0_N_name)s",
        "uq": "uq_%(table_name)s__%(column_0_N_name)s",
        "fk": "fk_%(table_name)s__%(column_0_N_name)s",
    }
)

sessions = Table(
    "routines_sessions",
    metadata,
    Column("id", Escaped, primary_key=True),
    Column("routine", Escaped, nullable=False),
    Column("flow_run_id", Escaped),
    Column("name", Escaped, nullable=False),
    Column("deployment_id", Escaped),
    Column("event_id", Escaped),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("status", String(16), nullable=False),
    Column("verdict", String(32)),
    Column("summary", Escaped),
    Column("turns", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("dollars", Dollars, nullable=False),
    Column("workspace", Escaped),
    Column("data", Json, nullable=False),
    UniqueConstraint("flow_run_id", "name"),
    Index(None, "created_at"),
    Index(None, "routine", "created_at"),
)

# One row per session for its whole life: the fence must never go back, and the journal's next number is handed out by the
# same UPDATE that checks the fence.
leases = Table(
    "routines_leases",
    metadata,
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("expires_at", Float(53)),  # seconds since 1970 by the database's clock; null: nobody holds it
    Column("holder", Json),
)

entries = Table(
    "routines_entries",
    metadata,
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Escaped, nullable=False),
    Column("data", Json, nullable=False),
    Column("at", Instant, nullable=False),
)

outputs = Table(
    "routines_outputs",
    metadata,
    # SQLite numbers rows by itself only in a column declared INTEGER
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), nullable=False),
    Column("tool_use_id", Escaped, nullable=False),
    Column("tool", Escaped, nullable=False),
    Column("target", Escaped, nullable=False),
    Column("rule", Escaped),
    Column("status", String(16), nullable=False),
    Column("request", Json, nullable=False),
    Column("result", Json),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("link", Escaped),  # where the service shows it, or the branch: tells an event that we caused ourselves
    UniqueConstraint("session_id", "tool_use_id"),
    Index(None, "link"),
)

spend = Table(
    "routines_spend",
    metadata,
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("turn", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("routine", Escaped, nullable=False),
    Column("day", String(10), nullable=False),  # UTC date of the reservation
    Column("model", Escaped, nullable=False),
    Column("settled", Boolean, nullable=False),
    Column("dollars", Dollars, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Index(None, "day", "routine"),
)

deliveries = Table(
    "routines_deliveries",
    metadata,
    Column("id", Escaped, primary_key=True),
    Column("source", Escaped, nullable=False),
    Column("delivery_id", Escaped, nullable=False),
    Column("kind", Escaped, nullable=False),
    Column("action", Escaped),
    Column("repository", Escaped),
    Column("number", BigInteger),
    Column("sha", Escaped),
    Column("received_at", Instant, nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", Escaped, nullable=False),
    Column("event", Escaped, nullable=False),
    Column("labels", Json, nullable=False),
    Column("key", Escaped),
    Column("status", String(16), nullable=False),
    Column("note", Escaped),
    Column("sent", Integer, nullable=False),
    Column("repeats", Integer, nullable=False, server_default="0"),
    Column("settled_at", Instant),
    Column("held_until", Float(53)),  # seconds since 1970 by the database's clock: one gateway at a time works on it
    UniqueConstraint("source", "delivery_id"),
    UniqueConstraint("source", "body_sha256"),
    Index(None, "received_at"),
    Index(None, "status", "received_at"),
)

# What became of a delivery at each deployment whose trigger it matches.
dispatches = Table(
    "routines_dispatches",
    metadata,
    Column("delivery_id", Escaped, ForeignKey("routines_deliveries.id", ondelete="CASCADE"), primary_key=True),
    Column("deployment_id", Escaped, primary_key=True),
    Column("deployment", Escaped, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", Escaped),
    Column("key", Escaped),
    Column("depth", Integer, nullable=False),
    Column("session_id", Escaped, nullable=False),
    Column("flow_run_id", Escaped),
    Column("created_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index(None, "deployment_id", "key", "status"),
    Index(None, "flow_run_id"),
    Index(None, "session_id"),
)

tokens = Table(
    "routines_tokens",
    metadata,
    Column("id", Escaped, primary_key=True),
    Column("deployment_id", Escaped, nullable=False),
    Column("deployment", Escaped, nullable=False),
    Column("name", Escaped, nullable=False),
    Column("prefix", Escaped, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_used_at", Instant),
    Column("revoked_at", Instant),
    Column("scopes", Escaped, nullable=False, server_default="fire"),  # with spaces between them
    UniqueConstraint("sha256"),
)

# What people send to a session while it is at work or waits. A session takes them in order; the journal tells what came of each.
acts = Table(
    "routines_acts",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("text", Escaped, nullable=False),
    Column("person", Escaped, nullable=False),
    Column("via", Escaped, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("taken_at", Instant),
    Index(None, "session_id", "id"),
)

# What a session waits for a person to answer.
forms = Table(
    "routines_forms",
    metadata,
    Column("id", Escaped, primary_key=True),
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), nullable=False),
    Column("key", Escaped, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("flow_run_id", Escaped),
    Column("content", Json, nullable=False),
    Column("status", String(16), nullable=False),
    Column("answer", Json),
    Column("person", Escaped),
    Column("via", Escaped),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Float(53)),  # seconds since 1970 by the database's clock
    Column("answered_at", Instant),
    UniqueConstraint("session_id", "key"),
    Index(None, "status", "expires_at"),
)

# What Claude is writing just now, for those who watch; kept only while somebody does.
live = Table(
    "routines_live",
    metadata,
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("watched_until", Float(53), nullable=False),  # seconds since 1970 by the database's clock
    Column("turn", Integer, nullable=False),
    Column("text", Escaped, nullable=False),
)

# What is told to people and services outside: that a session started, needs a person, has ended.
notices = Table(
    "routines_notices",
    metadata,
    Column("id", Escaped, primary_key=True),
    Column("session_id", Escaped, ForeignKey("routines_sessions.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", Escaped, nullable=False),  # the form, or the flow run, that it is about
    Column("target", Escaped, nullable=False),  # the block that sends it
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float(53)),  # seconds since 1970 by the database's clock
    Column("note", Escaped),
    Column("created_at", Instant, nullable=False),
    Column("sent_at", Instant),
    UniqueConstraint("session_id", "kind", "subject", "target"),
    Index(None, "status", "due_at"),
)
