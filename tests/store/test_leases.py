"""The lease: one writer at a time, dead ones replaced at once, stale ones fenced off."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prefect_routines.errors import LeaseHeld, LeaseLost, SettingsError
from prefect_routines.store import Holder, Lease, Store
from waiting import until_async

from .other_process import StartActor


async def _acquire_as_soon_as_possible(store: Store, session_id: str) -> Lease:
    """Take the session as soon as its lease has ended."""

    async def take() -> Lease | None:
        with contextlib.suppress(LeaseHeld):
            return await store.acquire(session_id)
        return None

    return await until_async(take, 30)


async def test_a_live_process_keeps_others_out(store: Store, url: str, session_id: str, start_actor: StartActor) -> None:
    """While another process holds the session it cannot be taken, and the error says who has it and for how long."""
    actor = await start_actor(url)
    assert await actor.does("acquire", session_id, 60.0) == 1
    with pytest.raises(LeaseHeld, match=r"being run by process \d+ on .* wait until that process ends") as held:
        await store.acquire(session_id)
    assert 50 < held.value.seconds <= 60
    record = await store.session(session_id)
    assert record is not None
    assert record.leased_until is not None
    assert record.started_at is not None


async def test_one_process_does_not_take_it_twice(store: Store, session_id: str) -> None:
    """Two coroutines of one process are two writers as well."""
    await store.acquire(session_id)
    with pytest.raises(LeaseHeld):
        await store.acquire(session_id)


async def test_release_lets_the_next_one_in_with_a_higher_fence(store: Store, session_id: str) -> None:
    """The fence grows with each taking; releasing an old lease does not touch the new one."""
    first = await store.acquire(session_id)
    await store.release(first)
    second = await store.acquire(session_id)
    assert (first.fence, second.fence) == (1, 2)
    await store.release(first)
    await store.renew(second)
    with pytest.raises(LeaseLost):
        await store.renew(first)


async def test_unknown_session(store: Store) -> None:
    """There is nothing to take in a session that was never recorded."""
    with pytest.raises(SettingsError, match="there is no such session"):
        await store.acquire("nope")


async def test_a_killed_holder_is_replaced_at_once(store: Store, url: str, session_id: str, start_actor: StartActor) -> None:
    """kill -9: the next process on this machine need not wait for the lease of ten minutes to end."""
    actor = await start_actor(url)
    assert await actor.does("acquire", session_id, 600.0) == 1
    assert await actor.does("append", 2) == [1, 2]
    await actor.kill()
    lease = await store.acquire(session_id)
    assert lease.fence == 2
    assert await store.append(lease, [("again", {})]) == [3]


async def test_a_stopped_holder_is_fenced_off(store: Store, url: str, session_id: str, start_actor: StartActor) -> None:
    """SIGSTOP, the lease ends, somebody takes over, SIGCONT: the old process learns that it lost and has written nothing."""
    actor = await start_actor(url)
    await actor.does("acquire", session_id, 0.8)
    await actor.does("append", 1)
    actor.signal(signal.SIGSTOP)
    lease = await _acquire_as_soon_as_possible(store, session_id)
    assert await store.append(lease, [("of the new holder", {})]) == [2]
    actor.tell("append", 3)
    actor.signal(signal.SIGCONT)
    assert (await actor.says())["error"] == "LeaseLost"
    assert [entry.kind for entry in await store.entries(session_id)] == ["test.entry", "of the new holder"]


async def test_two_processes_race(store: Store, url: str, start_actor: StartActor) -> None:
    """Of two processes that take a session at the same moment exactly one gets it, thirty times over."""
    one, other = await start_actor(url), await start_actor(url)
    for number in range(30):
        session_id = f"race-{number}"
        await store.create_session(session_id=session_id, routine="r", flow_run_id=None)
        for actor in (one, other):
            actor.tell("acquire", session_id, 60.0)
        replies = [await one.says(), await other.says()]
        assert replies.count(1) == 1, replies
        assert [reply["error"] for reply in replies if reply != 1] == ["LeaseHeld"]


async def test_an_expired_lease_that_nobody_took_is_good_again(store: Store, session_id: str) -> None:
    """A laptop that slept goes on where it was."""
    lease = await store.acquire(session_id, lease_seconds=0.01)
    await asyncio.sleep(0.05)  # the lease's own time is the condition
    await store.renew(lease)
    assert await store.append(lease, [("a", {})]) == [1]


async def test_keep_renews_until_the_block_ends(store: Store, session_id: str) -> None:
    """A lease of 3 s outlives several seconds in `keep`, and is free right after. (A busy machine may let a second go by unused.)"""
    lease = await store.acquire(session_id, lease_seconds=3)
    async with store.keep(lease):
        deadline = asyncio.get_running_loop().time() + 7
        while asyncio.get_running_loop().time() < deadline:
            with pytest.raises(LeaseHeld):
                await store.acquire(session_id)
            await asyncio.sleep(0.05)
        assert not lease.lost.is_set()
    assert (await store.acquire(session_id)).fence == 2


async def test_keep_tells_that_the_lease_is_lost(store: Store, session_id: str) -> None:
    """The event is set and the callback called once when the renewal finds somebody else's fence."""
    told: list[str] = []
    lease = await store.acquire(session_id, lease_seconds=0.3)
    lease.on_lost = lambda: told.append("lost")
    async with store.keep(lease):
        await store.release(lease)
        newer = await store.acquire(session_id)
        await asyncio.wait_for(lease.lost.wait(), 10)
    assert told == ["lost"]
    await store.renew(newer)  # leaving `keep` has not released what is somebody else's


def test_who_is_certainly_dead() -> None:
    """Only a process that this one could see and does not: never one of another machine, container or boot."""
    me = Holder.current()
    assert Holder.from_json(me.as_json()) == me
    assert not me.certainly_dead()
    reused_number = dataclasses.replace(me, started=(me.started or 0) + 1)
    assert reused_number.certainly_dead()
    for elsewhere in ({"host": "other"}, {"boot_id": "other"}, {"pid_namespace": 1}, {"boot_id": None}, {"started": None}):
        assert not dataclasses.replace(reused_number, **elsewhere).certainly_dead()


def test_a_zombie_is_dead() -> None:
    """A killed process whose parent has not collected it yet still has a number and a start time."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    holder = dataclasses.replace(Holder.current(), pid=process.pid, started=started)
    assert not holder.certainly_dead()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead now, and not yet collected
    assert holder.certainly_dead()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    assert holder.certainly_dead()
