"""The inbox: what arrived from outside, each delivery once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Unpack, get_args

from sqlalchemy import ColumnElement, Row, Text, delete, func, insert, literal, or_, select, type_coerce, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.errors import SettingsError
from prefect_routines.store import tables
from prefect_routines.store.database import Database
from prefect_routines.store.leases import now
from prefect_routines.store.records import FAILED, Delivery, DeliveryChanges, DeliveryStatus, Dispatch, DispatchStatus

OVERDUE = timedelta(minutes=1)
"""What has waited longer than this is a problem."""

_table = tables.deliveries
_light = [literal(b"").label("body") if column.name == "body" else column for column in _table.c if column.name != "held_until"]
_whole = [column for column in _table.c if column.name != "held_until"]


def _delivery(row: Row[Any]) -> Delivery:
    values = dict(row._mapping)
    return Delivery(**values | {"body": bytes(values["body"]).decode("utf-8", "surrogatepass")})


class Deliveries:
    """The operations of the store on deliveries."""

    _db: Database

    async def record_delivery(self, delivery: Delivery, dispatch: Dispatch | None = None) -> tuple[Delivery, bool]:
        """Write a delivery down, unless its source has delivered the same id or the same body before.

        Args:
            dispatch: Where it goes, when that is known already; written with a new delivery or not at all.

        Returns:
            The recorded delivery (the earlier one, with its own id, if there is one) and whether it is new. An earlier one counts
            how often it came again.

        Example:
            ```python
            delivery = Delivery(id=new_id(), source="github", delivery_id=header, kind="issues", body=body)
            recorded, created = await store.record_delivery(delivery)
            ```
        """

        [recorded] = await self.record_deliveries([(delivery, dispatch)])
        return recorded

    async def record_deliveries(self, arrived: Sequence[tuple[Delivery, Dispatch | None]]) -> list[tuple[Delivery, bool]]:
        """Write several down in one transaction, as `record_delivery` does each: one commit, however many there are."""

        async def work(connection: AsyncConnection) -> list[tuple[Delivery, bool]]:
            return [await self._record(connection, delivery, dispatch) for delivery, dispatch in arrived]

        return await self._db.write(work)

    async def _record(self, connection: AsyncConnection, delivery: Delivery, dispatch: Dispatch | None) -> tuple[Delivery, bool]:
        values = values_of(delivery)
        values["body"] = delivery.body.encode("utf-8", "surrogatepass")
        written = await connection.execute(
            (sqlite.insert if self._db.is_sqlite else postgresql.insert)(_table).values(**values).on_conflict_do_nothing()
        )
        if written.rowcount:
            if dispatch is not None:
                await connection.execute(insert(tables.dispatches).values(**values_of(dispatch)))
            return delivery, True
        same_id, same_body = _table.c.delivery_id == delivery.delivery_id, _table.c.body_sha256 == delivery.body_sha256
        of_source = (_table.c.source == delivery.source) & or_(same_id, same_body)
        rows = (await connection.execute(select(*_whole).where(or_(of_source, _table.c.id == delivery.id)))).all()
        # its own id is the stronger sign when the id of one earlier delivery and the body of another match
        best = _delivery(next((row for row in rows if row.delivery_id == delivery.delivery_id), rows[0]))
        if best.id == delivery.id:  # not its sender again, but whoever writes it down: two runs of one of Prefect's events do
            return best, False
        await connection.execute(update(_table).where(_table.c.id == best.id).values(repeats=_table.c.repeats + 1))
        return replace(best, repeats=best.repeats + 1), False

    async def delivery(self, event_id: str) -> Delivery | None:
        """The delivery with this id (ours, the one that travels through Prefect)."""
        rows = await self._db.read(select(*_whole).where(_table.c.id == event_id))
        return _delivery(rows[0]) if rows else None

    async def find_delivery(self, prefix_or_id: str) -> Delivery:
        """The delivery that a person means: by id, by an unambiguous beginning of it, or by its source's own id.

        Raises:
            SettingsError: None, or several.
        """
        exact = or_(_table.c.id == prefix_or_id, _table.c.delivery_id == prefix_or_id)
        found = await self._db.read(select(*_whole).where(exact).limit(2))
        if not found and prefix_or_id:
            found = await self._db.read(select(*_whole).where(_table.c.id.startswith(prefix_or_id, autoescape=True)).limit(2))
        if not found:
            raise SettingsError(f"delivery {prefix_or_id!r}: there is none; `routines inbox` lists them.")
        if len(found) > 1:
            ids = ", ".join(row.id for row in found)
            raise SettingsError(f"delivery {prefix_or_id!r} could be several ({ids}, ...); give more of the id.")
        return _delivery(found[0])

    async def deliveries(
        self,
        *,
        limit: int = 50,
        before: datetime | None = None,
        source: str | None = None,
        status: DeliveryStatus | DispatchStatus | None = None,
        deployment_id: str | None = None,
        deployment: str | None = None,
        repeated: bool = False,
        problems: bool = False,
    ) -> list[Delivery]:
        """The newest deliveries first, without their bodies (`body` is empty; `delivery` has it).

        Args:
            before: Only those received earlier.
            status: Their own, or that of what became of them at some deployment.
            deployment_id: Only those that were dispatched to this deployment.
            deployment: Only those that were dispatched to a deployment with this in its name.
            repeated: Only those that came more than once.
            problems: Only those that were refused, wait for long, ended a chain that went on too long, or whose session failed.
        """
        chosen = select(*_light).order_by(_table.c.received_at.desc(), _table.c.id.desc()).limit(limit)
        if before is not None:
            chosen = chosen.where(_table.c.received_at < before)
        if source is not None:
            chosen = chosen.where(_table.c.source == source)
        if status is not None:
            own = [_table.c.status == status] if status in get_args(DeliveryStatus) else []
            chosen = chosen.where(or_(*own, _became(tables.dispatches.c.status == status)))
        if deployment_id is not None:
            chosen = chosen.where(_became(tables.dispatches.c.deployment_id == deployment_id))
        if deployment is not None:
            chosen = chosen.where(_became(tables.dispatches.c.deployment.contains(deployment, autoescape=True)))
        if repeated:
            chosen = chosen.where(_table.c.repeats > 0)
        if problems:
            chosen = chosen.where(_is_problem(datetime.now(UTC) - OVERDUE))
        return [_delivery(row) for row in await self._db.read(chosen)]

    async def hold_deliveries(self, *, seconds: float, limit: int = 100, again: Sequence[str] = ()) -> list[Delivery]:
        """Take received deliveries to work on, oldest first, without their bodies; nobody else gets them meanwhile.

        Args:
            seconds: How long they are held. Held ones are given out again when that has passed: their holder is gone.
            again: Ids that the caller holds already, and keeps.
        """

        async def work(connection: AsyncConnection) -> list[Delivery]:
            clock = now(self._db.is_sqlite)
            free = or_(_table.c.held_until.is_(None), _table.c.held_until < clock, _table.c.id.in_(again))
            chosen = select(_table.c.id).where(_table.c.status == "received", free).order_by(_table.c.received_at).limit(limit)
            if not self._db.is_sqlite:
                chosen = chosen.with_for_update(skip_locked=True)
            ids = (await connection.execute(chosen)).scalars().all()
            if not ids:
                return []
            await connection.execute(update(_table).where(_table.c.id.in_(ids)).values(held_until=clock + seconds))
            rows = await connection.execute(select(*_light).where(_table.c.id.in_(ids)).order_by(_table.c.received_at))
            return [_delivery(row) for row in rows]

        return await self._db.write(work)

    async def let_go(self, ids: Sequence[str]) -> None:
        """Give back what `hold_deliveries` took."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(_table).where(_table.c.id.in_(ids)).values(held_until=None))

        await self._db.write(work)

    async def update_deliveries(self, event_ids: Sequence[str], **changes: Unpack[DeliveryChanges]) -> None:
        """Change what is told about deliveries, of all of them at once; what was received never changes."""
        if not event_ids:
            return

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(_table).where(_table.c.id.in_(event_ids)).values(**changes))

        await self._db.write(work)

    async def last_received(self) -> dict[str, datetime]:
        """When each source was last heard of."""
        newest = func.max(_table.c.received_at, type_=_table.c.received_at.type)
        rows = await self._db.read(select(_table.c.source, newest.label("at")).group_by(_table.c.source))
        return {row.source: row.at for row in rows}

    async def forget_deliveries(self, before: datetime) -> int:
        """Delete what was received earlier and is done with, and what became of it; how many. Those still worked on stay."""

        async def work(connection: AsyncConnection) -> int:
            return (await connection.execute(delete(_table).where(_done(before)))).rowcount

        return await self._db.write(work)

    async def old_deliveries(self, before: datetime) -> int:
        """How many `forget_deliveries` would delete."""
        rows = await self._db.read(select(func.count()).select_from(_table).where(_done(before)))
        return int(rows[0][0])


def _done(before: datetime) -> ColumnElement[bool]:
    """What was received earlier and is done with."""
    open_ones = select(tables.dispatches.c.delivery_id).where(tables.dispatches.c.status.in_(("waiting", "started", "queued")))
    return (_table.c.received_at < before) & (_table.c.status != "received") & _table.c.id.not_in(open_ones)


def _became(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """A delivery of which something became that fulfils the condition."""
    return _table.c.id.in_(select(tables.dispatches.c.delivery_id).where(condition))


def _is_problem(overdue: datetime) -> ColumnElement[bool]:
    one = tables.dispatches.c
    session = tables.sessions.c
    # the text of the column: a key with a text behind it; within a text its quotes would have backslashes before them
    error = (session.status == "idle") & type_coerce(session.data, Text).contains(f'"{FAILED}":"', autoescape=True)
    failed = select(session.id).where(or_(session.verdict.in_(("failed", "needs_attention")), error))
    return or_(
        _table.c.status == "refused",
        (_table.c.status == "received") & (_table.c.received_at < overdue),
        _became(one.status.in_(("refused", "too-deep"))),
        _became((one.status == "waiting") & (one.created_at < overdue)),
        _became((one.status != "messaged") & one.session_id.in_(failed)),
    )


def values_of(record: Delivery | Dispatch) -> dict[str, Any]:
    """A record as the columns of its row."""
    return {field.name: getattr(record, field.name) for field in fields(record)}
