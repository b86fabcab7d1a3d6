"""Session records: one per flow run and name, listed, found, changed by the holder only."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.errors import LeaseLost, SettingsError
from prefect_routines.store import Store, tables


async def test_a_run_started_again_finds_its_session(store: Store) -> None:
    """The second id minted for the same run and name is not used; another name is another session."""
    first = await store.create_session(session_id="one", routine="r", flow_run_id="run", deployment_id="d", event_id="e")
    again = await store.create_session(session_id="two", routine="r", flow_run_id="run")
    critic = await store.create_session(session_id="three", routine="r", flow_run_id="run", name="critic")
    assert (again, critic.id) == (first, "three")
    assert (first.status, first.turns, first.dollars, first.data, first.verdict) == ("idle", 0, 0.0, {}, None)
    assert (first.deployment_id, first.event_id) == ("d", "e")


async def test_without_a_run_each_is_its_own(store: Store) -> None:
    """No flow run: nothing to find again, except by the very same id."""
    ids = [f"s{number}" for number in range(5)]
    made = [await store.create_session(session_id=one, routine="r", flow_run_id=None) for one in ids]
    assert [record.id for record in made] == ids
    assert await store.create_session(session_id="s3", routine="r", flow_run_id=None) == made[3]


async def test_twenty_starts_at_once_make_one_session(store: Store) -> None:
    """Concurrent starts of one run agree on one session."""
    made = await asyncio.gather(*(store.create_session(session_id=f"s{n}", routine="r", flow_run_id="run") for n in range(20)))
    assert len({record.id for record in made}) == 1
    assert len(await store.sessions()) == 1


async def test_the_newest_come_first(store: Store) -> None:
    """Listing by routine and by verdict, with a limit."""
    for number in range(6):
        await store.create_session(session_id=f"s{number}", routine="even" if number % 2 == 0 else "odd", flow_run_id=None)
    lease = await store.acquire("s2")
    await store.update_session(lease, verdict="done")
    assert [record.id for record in await store.sessions(limit=3)] == ["s5", "s4", "s3"]
    assert [record.id for record in await store.sessions(routine="even")] == ["s4", "s2", "s0"]
    assert [record.id for record in await store.sessions(verdict="done")] == ["s2"]


async def test_pages_of_what_was_asked_for(store: Store) -> None:
    """By state - of a process that lives, of one that is gone -, deployment, and from where the last page ended."""
    for number in range(4):
        await store.create_session(session_id=f"s{number}", routine="r", flow_run_id=None, deployment_id=f"d{number % 2}")
    held, dropped = await store.acquire("s1"), await store.acquire("s2")
    for lease in (held, dropped):
        await store.update_session(lease, status="running")
    await store.release(dropped)
    expired = await store.acquire("s3", lease_seconds=0.001)
    await store._db.write(lambda connection: _running(connection, expired.session_id))
    ids = {state: [one.id for one in await store.sessions(state=state)] for state in ("running", "stopped", "idle", "ended")}
    assert ids == {"running": ["s1"], "stopped": ["s3", "s2"], "idle": ["s0"], "ended": []}
    assert [one.state for one in await store.sessions()] == ["stopped", "stopped", "running", "idle"]
    assert [one.id for one in await store.sessions(deployment_id="d1")] == ["s3", "s1"]
    page = await store.sessions(limit=2)
    assert [one.id for one in await store.sessions(limit=2, before=page[-1])] == ["s1", "s0"]
    assert await store.routine_names() == ["r"]
    assert (await store.turns("s1"), await store.last_entry("s1"), await store.last_entry("none")) == (0, 0, 0)
    await store.append(held, [("agent.message", {}), ("user.message", {})])
    assert (await store.turns("s1"), await store.last_entry("s1")) == (1, 2)


async def _running(connection: AsyncConnection, session_id: str) -> None:
    """As `update_session`, which would extend the lease."""
    await connection.execute(update(tables.sessions).where(tables.sessions.c.id == session_id).values(status="running"))


async def test_finding_what_a_person_means(store: Store) -> None:
    """By id, by the beginning of an id, by the flow run; several or none is an error that says so."""
    for one in ("abc-1", "abc-2", "x%y", "abc"):
        await store.create_session(session_id=one, routine="r", flow_run_id=f"run-of-{one}")
    assert (await store.find("abc-2")).id == "abc-2"
    assert (await store.find("abc")).id == "abc"  # exact beats the beginning of others
    assert (await store.find("x")).id == "x%y"
    assert (await store.find("run-of-abc-1")).id == "abc-1"
    with pytest.raises(SettingsError, match="could be several"):
        await store.find("abc-")
    for nothing in ("%", "zzz", "", "a\x00b", "\ud800"):
        with pytest.raises(SettingsError, match="there is none"):
            await store.find(nothing)


async def test_the_holder_changes_the_record(store: Store, session_id: str) -> None:
    """Fields are replaced, `data` is merged, free text may hold anything."""
    lease = await store.acquire(session_id)
    ended = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
    await store.update_session(lease, status="running", data={"branch": "claude/x", "n": 1})
    await store.update_session(
        lease,
        status="ended",
        verdict="done",
        summary='naïve \x00 \ud800 \\ "',
        dollars=1.25,
        tokens=2**40,
        turns=7,
        ended_at=ended,
        data={"n": 2},
    )
    record = await store.session(session_id)
    assert record is not None
    assert (record.status, record.verdict, record.summary) == ("ended", "done", 'naïve \x00 \ud800 \\ "')
    assert (record.dollars, record.tokens, record.turns, record.ended_at) == (1.25, 2**40, 7, ended)
    assert record.data == {"branch": "claude/x", "n": 2}
    await store.release(lease)
    with pytest.raises(LeaseLost):
        await store.update_session(lease, verdict="failed")
    after = await store.session(session_id)
    assert after is not None
    assert (after.verdict, after.leased_until) == ("done", None)
    assert await store.session("unknown") is None
