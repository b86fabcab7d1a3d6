"""The records of sessions: made once per flow run and name, listed, found, kept up to date by whoever holds the lease."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Row, Select, and_, false, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.errors import SettingsError
from prefect_routines.store import tables
from prefect_routines.store.leases import Lease, Leases
from prefect_routines.store.records import SessionChanges, SessionRecord, SessionState

_table = tables.sessions


def _select() -> Select[Any]:
    return select(_table, tables.leases.c.expires_at).join(tables.leases, tables.leases.c.session_id == _table.c.id)


def _record(row: Row[Any]) -> SessionRecord:
    fields = dict(row._mapping)
    expires = fields.pop("expires_at")
    return SessionRecord(**fields, leased_until=None if expires is None else datetime.fromtimestamp(expires, UTC))


class Sessions(Leases):
    """The operations of the store on session records."""

    async def create_session(
        self,
        *,
        session_id: str,
        routine: str,
        flow_run_id: str | None,
        name: str = "main",
        deployment_id: str | None = None,
        event_id: str | None = None,
    ) -> SessionRecord:
        """Record a session, or return the one that is there: a run that is started again finds its session under another id.

        Args:
            session_id: Minted by the caller; used when the session is new.
            flow_run_id: With `name` the key of the session; None (no Prefect run) makes a session of its own.
            name: Tells the sessions of one hand-written flow apart.

        Example:
            ```python
            record = await store.create_session(session_id=new_id(), routine="docs-sync", flow_run_id=str(run.id))
            lease = await store.acquire(record.id)
            ```
        """

        async def work(connection: AsyncConnection) -> SessionRecord:
            dialect_insert = sqlite.insert if self._db.is_sqlite else postgresql.insert
            created = await connection.execute(
                dialect_insert(_table)
                .values(
                    id=session_id,
                    routine=routine,
                    flow_run_id=flow_run_id,
                    name=name,
                    deployment_id=deployment_id,
                    event_id=event_id,
                    created_at=datetime.now(UTC),
                    status="idle",
                    turns=0,
                    tokens=0,
                    dollars=0.0,
                    data={},
                )
                .on_conflict_do_nothing()
            )
            if created.rowcount:
                await connection.execute(insert(tables.leases).values(session_id=session_id, fence=0, last_seq=0))
            same_id = _table.c.id == session_id
            if not created.rowcount and flow_run_id is not None:  # named by a fire call before there was a run: now there is one
                taken = select(_table.c.id).where(_table.c.flow_run_id == flow_run_id, _table.c.name == name).exists()
                named = update(_table).where(same_id, _table.c.flow_run_id.is_(None), _table.c.routine == routine, ~taken)
                await connection.execute(named.values(flow_run_id=flow_run_id, name=name))
            # `= NULL` would be written as IS NULL and find the sessions of everybody without a run
            same_run = (_table.c.flow_run_id == flow_run_id) & (_table.c.name == name) if flow_run_id is not None else false()
            rows = (await connection.execute(_select().where(or_(same_id, same_run)))).all()
            # the run's own session comes first: the id was minted for nothing when there is one
            own = (row for row in rows if flow_run_id is not None and row.flow_run_id == flow_run_id and row.name == name)
            return _record(next(own, rows[0]))

        return await self._db.write(work)

    async def session(self, session_id: str) -> SessionRecord | None:
        """The session with exactly this id."""
        rows = await self._db.read(_select().where(_table.c.id == session_id))
        return _record(rows[0]) if rows else None

    async def sessions(
        self,
        *,
        routine: str | None = None,
        limit: int | None = 50,
        verdict: str | None = None,
        flow_run_id: str | None = None,
        deployment_id: str | None = None,
        state: SessionState | None = None,
        but_verdict: str | None = None,
        waiting: bool = False,
        before: SessionRecord | None = None,
    ) -> list[SessionRecord]:
        """The newest sessions first; of those the ones that were asked for.

        Args:
            state: As `SessionRecord.state`.
            but_verdict: Without those that have this verdict.
            waiting: Only those that wait for a person.
            before: Only those that come behind this one: the next page.
        """
        chosen = _select().order_by(_table.c.created_at.desc(), _table.c.id.desc()).limit(limit)
        if routine is not None:
            chosen = chosen.where(_table.c.routine == routine)
        if verdict is not None:
            chosen = chosen.where(_table.c.verdict == verdict)
        if flow_run_id is not None:
            chosen = chosen.where(_table.c.flow_run_id == flow_run_id)
        if deployment_id is not None:
            chosen = chosen.where(_table.c.deployment_id == deployment_id)
        if state is not None:
            chosen = chosen.where(self._in_state(state))
        if but_verdict is not None:
            chosen = chosen.where(or_(_table.c.verdict.is_(None), _table.c.verdict != but_verdict))
        if waiting:
            open_forms = select(tables.forms.c.session_id).where(tables.forms.c.status == "open")
            chosen = chosen.where(_table.c.id.in_(open_forms))
        if before is not None:
            older = _table.c.created_at < before.created_at
            chosen = chosen.where(or_(older, (_table.c.created_at == before.created_at) & (_table.c.id < before.id)))
        return [_record(row) for row in await self._db.read(chosen)]

    def _in_state(self, state: SessionState) -> ColumnElement[bool]:
        if state not in ("running", "stopped"):
            return _table.c.status == state
        held = tables.leases.c.expires_at > self._now()
        alive = held if state == "running" else or_(tables.leases.c.expires_at.is_(None), ~held)
        return and_(_table.c.status == "running", alive)

    async def routine_names(self, limit: int = 200) -> list[str]:
        """The routines that have sessions, in alphabetical order."""
        rows = await self._db.read(select(_table.c.routine).distinct().order_by(_table.c.routine).limit(limit))
        return [row[0] for row in rows]

    async def find(self, prefix_or_id: str) -> SessionRecord:
        """The session that a person means: by id, by an unambiguous beginning of the id, or by its flow run's id.

        Raises:
            SettingsError: None, or several.
        """
        exact = or_(_table.c.id == prefix_or_id, _table.c.flow_run_id == prefix_or_id)
        found = await self._db.read(_select().where(exact).limit(3))
        if not found and prefix_or_id:
            found = await self._db.read(_select().where(_table.c.id.startswith(prefix_or_id, autoescape=True)).limit(3))
        if not found:
            raise SettingsError(f"session {prefix_or_id!r}: there is none; `routines sessions` lists them.")
        if len(found) > 1:
            ids = ", ".join(row.id for row in found[:2])
            raise SettingsError(f"session {prefix_or_id!r} could be several ({ids}, ...); give more of the id.")
        return _record(found[0])

    async def update_session(self, lease: Lease, **changes: Unpack[SessionChanges]) -> None:
        """Change the record of the session that `lease` holds. `data` is merged key by key, all else is replaced.

        Raises:
            LeaseLost: Another process holds the session.

        Example:
            ```python
            await store.update_session(lease, status="ended", verdict="done", data={"branch": "claude/docs"})
            ```
        """
        of_session = _table.c.id == lease.session_id

        async def work(connection: AsyncConnection) -> None:
            await self._extend(connection, lease)
            values: dict[str, Any] = dict(changes)
            if "data" in values:
                values["data"] = (await connection.scalar(select(_table.c.data).where(of_session)) or {}) | values["data"]
            if values:
                await connection.execute(update(_table).where(of_session).values(**values))

        await self._db.write(work)
