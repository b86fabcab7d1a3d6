"""Outward writes: recorded first, once per tool call, never more than the policy allows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prefect_routines.errors import LeaseLost, OutputLimit, StoreError
from prefect_routines.store import Lease, Output, Store

RULE = "slack_post(channel=#docs) x2"


async def _begin(store: Store, lease: Lease, tool_use_id: str, **changes: Any) -> tuple[Output, bool]:
    fields: dict[str, Any] = {"tool": "slack_post", "target": "#docs", "rule": RULE, "request": {"text": "\x00 hi"}, "max_per_rule": 2}
    return await store.begin_output(lease, tool_use_id=tool_use_id, **(fields | changes))


async def test_recorded_before_and_finished_after(store: Store, session_id: str) -> None:
    """The row says `started` before the act and keeps request and result."""
    lease = await store.acquire(session_id)
    output, created = await _begin(store, lease, "toolu_1")
    assert created
    assert (output.status, output.request, output.result, output.finished_at) == ("started", {"text": "\x00 hi"}, None, None)
    await store.finish_output(lease, output.id, status="done", result={"ts": "1.0"})
    finished = await store.output(session_id, "toolu_1")
    assert finished is not None
    assert (finished.status, finished.result) == ("done", {"ts": "1.0"})
    assert finished.finished_at is not None
    assert await store.outputs(session_id) == [finished]
    assert await store.output(session_id, "toolu_2") is None


async def test_the_same_call_is_recorded_once(store: Store, session_id: str) -> None:
    """After a crash the record is found as it was left, and does not count twice."""
    lease = await store.acquire(session_id)
    first, created = await _begin(store, lease, "toolu_1", max_per_rule=1)
    again, created_again = await _begin(store, lease, "toolu_1", max_per_rule=1)
    assert (created, created_again, again) == (True, False, first)


async def test_a_rule_runs_out(store: Store, session_id: str) -> None:
    """Writes with unknown outcome count, known failures do not; another rule has its own count."""
    lease = await store.acquire(session_id)
    first, _ = await _begin(store, lease, "toolu_1")
    await _begin(store, lease, "toolu_2")
    with pytest.raises(OutputLimit, match="allows 2 writes") as limit:
        await _begin(store, lease, "toolu_3")
    assert (limit.value.rule, limit.value.limit) == (RULE, 2)
    await store.finish_output(lease, first.id, status="failed", result={})
    assert (await _begin(store, lease, "toolu_3"))[1]
    assert (await _begin(store, lease, "toolu_4", rule="other"))[1]
    assert (await _begin(store, lease, "toolu_5", rule=None))[1]
    assert (await _begin(store, lease, "toolu_6", max_per_rule=None))[1]


async def test_twenty_at_once_stay_within_the_limit(store: Store, session_id: str) -> None:
    """Parallel tool calls cannot slip past the count."""
    lease = await store.acquire(session_id)
    results = await asyncio.gather(*(_begin(store, lease, f"toolu_{n}", max_per_rule=3) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(result, OutputLimit) for result in results) == 17
    assert len(await store.outputs(session_id)) == 3


async def test_a_stale_lease_records_no_write(store: Store, session_id: str) -> None:
    """Whoever lost the session must not write to the outside either."""
    old = await store.acquire(session_id)
    output, _ = await _begin(store, old, "toolu_1")
    await store.release(old)
    await store.acquire(session_id)
    with pytest.raises(LeaseLost):
        await _begin(store, old, "toolu_2")
    with pytest.raises(LeaseLost):
        await store.finish_output(old, output.id, status="done", result={})
    assert [(one.tool_use_id, one.status) for one in await store.outputs(session_id)] == [("toolu_1", "started")]


async def test_only_the_sessions_own_outputs_are_finished(store: Store, session_id: str) -> None:
    """A number from another session is refused."""
    lease = await store.acquire(session_id)
    output, _ = await _begin(store, lease, "toolu_1")
    await store.create_session(session_id="other", routine="r", flow_run_id=None)
    other = await store.acquire("other")
    with pytest.raises(StoreError, match="has no output"):
        await store.finish_output(other, output.id, status="done", result={})


async def test_a_fork_takes_over_what_counts(store: Store, session_id: str) -> None:
    """Chosen writes of the parent count under their rules, copied once, without the address at which they are the parent's."""
    lease = await store.acquire(session_id)
    for number in (1, 2):
        output, _ = await _begin(store, lease, f"toolu_{number}")
        await store.finish_output(lease, output.id, status="done", result={}, link=f"https://example.org/{number}")
    await store.create_session(session_id="fork", routine="docs-sync", flow_run_id="run-2")
    fork = await store.acquire("fork")
    for _ in range(2):
        await store.copy_outputs(fork, session_id, ["toolu_1"])
    [copied] = await store.outputs("fork")
    assert (copied.tool_use_id, copied.status, copied.rule, copied.link) == ("toolu_1", "done", RULE, None)
    await _begin(store, fork, "toolu_3")
    with pytest.raises(OutputLimit):
        await _begin(store, fork, "toolu_4")
    found = await store.output_at("https://example.org/1")
    assert found is not None
    assert found.session_id == session_id
    assert len(await store.outputs(session_id)) == 2
