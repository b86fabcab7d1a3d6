"""What became of each delivery at each deployment: decided once, claimed by at most one run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.store import tables
from prefect_routines.store.database import Database
from prefect_routines.store.deliveries import values_of
from prefect_routines.store.records import BUSY, Dispatch, DispatchStatus

_table, _sessions = tables.dispatches, tables.sessions
WhenBusy = Literal["new", "queue", "message", "skip"]
_BUSY: dict[str, tuple[DispatchStatus, str]] = {
    "queue": ("queued", "waits for session"),
    "message": ("messaged", "goes to session"),
    "skip": ("skipped", "left to session"),
}


def _same(dispatch: Dispatch) -> ColumnElement[bool]:
    return (_table.c.delivery_id == dispatch.delivery_id) & (_table.c.deployment_id == dispatch.deployment_id)


def _dispatch(row: Row[Any]) -> Dispatch:
    return Dispatch(**row._mapping)


class Dispatches:
    """The operations of the store on dispatches."""

    _db: Database

    async def write_dispatches(self, decided: Sequence[tuple[Dispatch, WhenBusy]]) -> list[Dispatch]:
        """Write down what was decided, all or nothing; where there is a record it stays, and is returned instead.

        Args:
            decided: Each with what becomes of it when it is `waiting` and a run is busy with the same key: 'new' (a run of its own),
                'queue' (it waits, and those that have waited are superseded), 'skip', 'message' (to the session under way).
        """

        async def work(connection: AsyncConnection) -> list[Dispatch]:
            await self._one_at_a_time(connection)
            return [await self._write_one(connection, dispatch, when_busy) for dispatch, when_busy in decided]

        return await self._db.write(work) if decided else []

    async def _one_at_a_time(self, connection: AsyncConnection) -> None:
        """SQLite has one writer; on PostgreSQL two gateways could look at a key before either has written."""
        if not self._db.is_sqlite:
            await connection.exec_driver_sql("LOCK TABLE routines_dispatches IN SHARE ROW EXCLUSIVE MODE")

    async def _write_one(self, connection: AsyncConnection, dispatch: Dispatch, when_busy: WhenBusy) -> Dispatch:
        mine = _same(dispatch)
        known = (await connection.execute(select(_table).where(mine))).one_or_none()
        if known is not None:
            return _dispatch(known)
        if dispatch.status == "waiting" and dispatch.key is not None and when_busy != "new":
            at_key = (_table.c.deployment_id == dispatch.deployment_id) & (_table.c.key == dispatch.key)
            busy = (await connection.execute(select(_table).where(at_key, _table.c.status.in_(BUSY)).limit(1))).one_or_none()
            if busy is not None:
                status, said = _BUSY[when_busy]
                session = busy.session_id if when_busy == "message" else dispatch.session_id
                reason = f"{said} {busy.session_id}, which is at {dispatch.key}"
                dispatch = replace(dispatch, status=status, reason=reason, session_id=session)
                if when_busy == "queue":
                    older = update(_table).where(at_key, _table.c.status == "queued")
                    await connection.execute(
                        older.values(status="superseded", reason=f"delivery {dispatch.delivery_id} is newer", ended_at=datetime.now(UTC))
                    )
        await connection.execute(insert(_table).values(**values_of(dispatch)))
        return dispatch

    async def next_in_queue(self, dispatch: Dispatch) -> Dispatch | None:
        """Let go what waits behind a dispatch that has ended; it is `waiting` then. None: nothing waits, or another run is busy."""

        async def work(connection: AsyncConnection) -> Dispatch | None:
            await self._one_at_a_time(connection)
            at_key = (_table.c.deployment_id == dispatch.deployment_id) & (_table.c.key == dispatch.key)
            if (await connection.execute(select(_table.c.key).where(at_key, _table.c.status.in_(BUSY)).limit(1))).first() is not None:
                return None
            chosen = select(_table).where(at_key, _table.c.status == "queued").order_by(_table.c.created_at.desc()).limit(1)
            found = (await connection.execute(chosen)).one_or_none()
            if found is None:
                return None
            await connection.execute(update(_table).where(_same(_dispatch(found))).values(status="waiting"))
            return replace(_dispatch(found), status="waiting")

        return await self._db.write(work)

    async def dispatches(
        self,
        *,
        delivery_ids: Collection[str] | None = None,
        deployment_id: str | None = None,
        key: str | None = None,
        session_id: str | None = None,
        statuses: Collection[DispatchStatus] | None = None,
        limit: int = 1000,
    ) -> list[Dispatch]:
        """What became of deliveries, oldest first; chosen by delivery, deployment, key, session or status."""
        chosen = select(_table).order_by(_table.c.created_at, _table.c.delivery_id).limit(limit)
        if delivery_ids is not None:
            chosen = chosen.where(_table.c.delivery_id.in_(delivery_ids))
        if deployment_id is not None:
            chosen = chosen.where(_table.c.deployment_id == deployment_id)
        if key is not None:
            chosen = chosen.where(_table.c.key == key)
        if session_id is not None:
            chosen = chosen.where(_table.c.session_id == session_id)
        if statuses is not None:
            chosen = chosen.where(_table.c.status.in_(statuses))
        return [_dispatch(row) for row in await self._db.read(chosen)]

    async def depth(self, session_id: str) -> int:
        """How many runs have caused each other before this session; 0 if somebody outside, a schedule or a person started it."""
        chosen = select(_table.c.depth).where(_table.c.session_id == session_id, _table.c.status != "messaged")
        rows = await self._db.read(chosen)
        return max((row.depth for row in rows), default=0)

    async def dispatch_of_run(self, flow_run_id: str) -> Dispatch | None:
        """What started this flow run, if a delivery did."""
        rows = await self._db.read(select(_table).where(_table.c.flow_run_id == flow_run_id))
        return _dispatch(rows[0]) if rows else None

    async def note_started(self, found: Sequence[tuple[Dispatch, str]]) -> None:
        """Write down the flow runs of waiting dispatches, of all of them at once. What has changed meanwhile stays."""

        async def work(connection: AsyncConnection) -> None:
            for dispatch, flow_run_id in found:
                values = {"status": "started", "flow_run_id": flow_run_id}
                await connection.execute(update(_table).where(_same(dispatch), _table.c.status == dispatch.status).values(**values))

        await self._db.write(work)

    async def move_dispatch(
        self,
        dispatch: Dispatch,
        status: DispatchStatus,
        *,
        reason: str | None = None,
        flow_run_id: str | None = None,
        among: Collection[DispatchStatus] | None = None,
    ) -> bool:
        """Change what is told about a dispatch; whether it was still in a state to change from.

        Args:
            among: States it may be in; default: the one in `dispatch`.
        """
        values: dict[str, Any] = {"status": status}
        if reason is not None:
            values["reason"] = reason
        if flow_run_id is not None:
            values["flow_run_id"] = flow_run_id
        if status not in (*BUSY, "queued"):
            values["ended_at"] = datetime.now(UTC)

        async def work(connection: AsyncConnection) -> bool:
            mine = _same(dispatch)
            allowed = _table.c.status.in_(among if among is not None else (dispatch.status,))
            moved = bool((await connection.execute(update(_table).where(mine, allowed).values(**values))).rowcount)
            if moved and status not in (*BUSY, "queued", "ended"):  # a session that was named in the answer to a call has been promised
                named = (_sessions.c.id == dispatch.session_id) & _sessions.c.started_at.is_(None)
                why = {"status": "ended", "summary": f"{status}: {reason}" if reason else status, "ended_at": values["ended_at"]}
                await connection.execute(update(_sessions).where(named).values(**why))
            return moved

        return await self._db.write(work)

    async def claim(self, wanted: Dispatch) -> Dispatch:
        """Take a delivery for a run: the first run that asks gets it, and the same run again.

        Args:
            wanted: `started`, with the run's id; its session id counts when nobody has decided about this delivery before.

        Returns:
            The record. The run has it if `flow_run_id` is its own and `status` is `started`; anything else says why not.
        """

        async def work(connection: AsyncConnection) -> Dispatch:
            mine = _same(wanted)
            new = (sqlite.insert if self._db.is_sqlite else postgresql.insert)(_table)
            created = await connection.execute(new.values(**values_of(wanted)).on_conflict_do_nothing())
            if not created.rowcount:
                free = _table.c.flow_run_id.is_(None) | (_table.c.flow_run_id == wanted.flow_run_id)
                takes = _table.c.status.in_(("waiting", "started", "ended")) & free
                await connection.execute(
                    update(_table).where(mine, takes).values(status="started", flow_run_id=wanted.flow_run_id, ended_at=None)
                )
            return _dispatch((await connection.execute(select(_table).where(mine))).one())

        return await self._db.write(work)
