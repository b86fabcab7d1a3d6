"""The journal: what goes in comes out, densely numbered, all or nothing."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_routines.errors import LeaseLost
from prefect_routines.store import Spend, Store

_text = st.text(st.characters(codec=None, categories=None), max_size=20)  # every code point: NUL and lone surrogates as well
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)


async def test_numbers_are_dense_from_one(store: Store, session_id: str) -> None:
    """Each batch gets the next numbers, and reading gives them back in order."""
    lease = await store.acquire(session_id)
    assert await store.append(lease, [("user.message", {"text": "go"})]) == [1]
    assert await store.append(lease, [("a", {}), ("b", {}), ("c", {})]) == [2, 3, 4]
    assert await store.append(lease, []) == []
    journal = await store.entries(session_id)
    assert [(entry.seq, entry.kind) for entry in journal] == [(1, "user.message"), (2, "a"), (3, "b"), (4, "c")]
    assert abs(journal[0].at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_reading_from_the_middle(store: Store, session_id: str) -> None:
    """`after` and `limit` page through a long journal."""
    lease = await store.acquire(session_id)
    await store.append(lease, [("n", {"n": n}) for n in range(1, 11)])
    assert [entry.seq for entry in await store.entries(session_id, after=4, limit=3)] == [5, 6, 7]
    assert await store.entries(session_id, after=10) == []
    assert await store.entries("unknown") == []


async def test_data_survives_exactly(store: Store, session_id: str) -> None:
    """Any JSON object comes back with the same bytes: order of keys, 1.0 beside 1, NUL, lone surrogates, huge numbers."""
    lease = await store.acquire(session_id)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=st.dictionaries(_text, _json, max_size=5), kind=_text)
    async def round_trip(data: dict[str, Any], kind: str) -> None:
        [seq] = await store.append(lease, [(kind, data)])
        [entry] = await store.entries(session_id, after=seq - 1)
        assert entry.kind == kind
        assert json.dumps(entry.data) == json.dumps(data)

    await _run_hypothesis(round_trip)
    data = {"z": 1, "a": 1.0, "\ud800": "\x00", "big": 2**64, "nested": {"b": [], "a": None}}
    [seq] = await store.append(lease, [("k", data)])
    assert json.dumps((await store.entries(session_id, after=seq - 1))[0].data) == json.dumps(data)


async def _run_hypothesis(test: Any) -> None:
    """Run a property over coroutines on the running loop: Hypothesis works in a thread, each example comes back here."""
    loop, inner = asyncio.get_running_loop(), test.hypothesis.inner_test

    def on_our_loop(**arguments: Any) -> None:
        asyncio.run_coroutine_threadsafe(inner(**arguments), loop).result(30)

    test.hypothesis.inner_test = on_our_loop
    await asyncio.to_thread(test)


async def test_a_stale_lease_writes_nothing(store: Store, session_id: str) -> None:
    """After the session was taken again, neither entries nor spend of the old lease arrive, and the old holder is told."""
    old = await store.acquire(session_id)
    await store.release(old)
    new = await store.acquire(session_id)
    with pytest.raises(LeaseLost):
        await store.append(old, [("late", {})], spend=[Spend(1, 1, "claude", False, 1.0)])
    assert old.lost.is_set()
    assert await store.entries(session_id) == []
    assert (await store.spent()).attempts == 0
    assert await store.append(new, [("in time", {})]) == [1]


async def test_ten_sessions_side_by_side(store: Store) -> None:
    """Ten sessions of one process write at once; each journal is dense and holds its own entries only."""

    async def run(number: int) -> None:
        record = await store.create_session(session_id=f"s{number}", routine="r", flow_run_id=None)
        lease = await store.acquire(record.id)
        for turn in range(20):
            await store.append(lease, [("turn", {"session": number, "turn": turn, "place": place}) for place in range(2)])

    await asyncio.gather(*(run(number) for number in range(10)))
    for number in range(10):
        journal = await store.entries(f"s{number}")
        assert [entry.seq for entry in journal] == list(range(1, 41))
        assert [entry.data["turn"] for entry in journal] == [turn for turn in range(20) for _ in range(2)]
        assert {entry.data["session"] for entry in journal} == {number}


async def test_calls_of_one_session_side_by_side(store: Store, session_id: str) -> None:
    """Parallel tool calls append to one journal: no number twice, each batch together."""
    lease = await store.acquire(session_id)
    numbers = await asyncio.gather(*(store.append(lease, [("start", {"call": call}), ("done", {"call": call})]) for call in range(30)))
    assert sorted(seq for batch in numbers for seq in batch) == list(range(1, 61))
    assert all(batch[1] == batch[0] + 1 for batch in numbers)


async def test_cancelling_leaves_whole_batches(store: Store, session_id: str) -> None:
    """A cancelled append has happened entirely or not at all, and the store goes on working."""
    lease = await store.acquire(session_id)
    loop, chance = asyncio.get_running_loop(), random.Random(7)
    for batch in range(60):
        task = asyncio.create_task(store.append(lease, [("cancelled", {"batch": batch})] * 3))
        loop.call_later(chance.random() * 0.004, task.cancel)
        with suppress(asyncio.CancelledError):
            await task
    await store.append(lease, [("end", {"batch": -1})])
    journal = await store.entries(session_id)
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    batches = [entry.data["batch"] for entry in journal[:-1]]
    assert all(batches.count(batch) == 3 for batch in batches)


async def test_spend_is_reserved_then_settled(store: Store, session_id: str) -> None:
    """A reservation counts until it settles, then the real cost does; one that never settles counts for ever."""
    lease = await store.acquire(session_id)
    await store.append(lease, [("request", {})], spend=[Spend(1, 1, "claude", False, 0.9), Spend(1, 2, "claude", False, 0.5)])
    reserved = await store.spent(session_id=session_id)
    assert (reserved.dollars, reserved.reserved_dollars, reserved.attempts) == (1.4, 1.4, 2)
    await store.append(lease, [("reply", {})], spend=[Spend(1, 2, "claude", True, 0.123456, 10, 20, 30, 40)])
    settled = await store.spent(session_id=session_id)
    assert (settled.dollars, settled.reserved_dollars) == (1.023456, 0.9)
    assert (settled.input_tokens, settled.cache_read_tokens, settled.cache_write_tokens, settled.output_tokens) == (10, 20, 30, 40)
    assert settled.tokens == 100


async def test_spend_by_routine_and_day(store: Store) -> None:
    """A daily budget of a routine sees all its sessions of that UTC day and nothing else; sums of millionths are exact."""
    for number, routine in enumerate(["a", "a", "b"]):
        await store.create_session(session_id=f"s{number}", routine=routine, flow_run_id=None)
        lease = await store.acquire(f"s{number}")
        await store.append(lease, [], spend=[Spend(turn, 1, "claude", True, 0.1) for turn in range(1, 4)])
    today = datetime.now(UTC).date()
    assert (await store.spent(routine="a", day=today)).dollars == 0.6
    assert (await store.spent(routine="b")).dollars == 0.3
    assert (await store.spent()).attempts == 9
    assert (await store.spent(day=date(2001, 1, 1))).dollars == 0.0
