"""What is told outside: written once, taken by one sender at a time, on both databases."""

from __future__ import annotations

import asyncio

from prefect_routines.store import Store


async def test_a_notice_is_written_once(store: Store, session_id: str) -> None:
    """Per kind, subject and target."""
    targets = ["slack/docs#ops", "notice-webhook/ci", "slack/docs#ops"]
    assert await store.record_notices(session_id, "approval", "frm-1", targets) == 2
    assert await store.record_notices(session_id, "approval", "frm-1", targets) == 0
    assert await store.record_notices(session_id, "approval", "frm-2", ["slack/docs#ops"]) == 1
    assert await store.record_notices(session_id, "finished", "frm-1", []) == 0
    assert len({notice.id for notice in await store.notices(session_id=session_id)}) == 3
    assert [notice.target for notice in await store.notices(subject="frm-2")] == ["slack/docs#ops"]


async def test_several_senders_share_the_work(store: Store, session_id: str) -> None:
    """Each notice is taken by one of them."""
    await store.record_notices(session_id, "started", "run-1", [f"notice-webhook/n{number}" for number in range(30)])
    rounds = await asyncio.gather(*(store.take_notices(seconds=60, limit=10) for _ in range(5)))
    taken = [notice.id for found in rounds for notice in found]
    assert len(taken) == len(set(taken))
    while found := await store.take_notices(seconds=60, limit=10):
        taken += [notice.id for notice in found]
    assert len(taken) == len(set(taken)) == 30
    assert await store.take_notices(seconds=60, session_id="another") == []


async def test_only_the_newest_attempt_settles_a_notice(store: Store, session_id: str) -> None:
    """One that was taken over has nothing to say any more."""
    await store.record_notices(session_id, "started", "run-1", ["notice-webhook/ci"])
    [first] = await store.take_notices(seconds=-1)
    [second] = await store.take_notices(seconds=60)
    assert (first.id, first.attempts, second.attempts) == (second.id, 1, 2)
    assert not await store.settle_notice(first, "failed")
    assert not await store.retry_notice(first, seconds=1, note="x")
    assert not await store.split_notice(first, ["email/ops#a@b"])
    assert await store.settle_notice(second, "sent", "answered 200")
    assert not await store.retry_notice(second, seconds=1, note="x")
    [notice] = await store.notices()
    assert (notice.status, notice.note) == ("sent", "answered 200")
    assert notice.sent_at is not None


async def test_a_notice_to_several_becomes_one_for_each(store: Store, session_id: str) -> None:
    """So that each is told, and told again, by itself."""
    await store.record_notices(session_id, "approval", "frm-1", ["email/ops"])
    [taken] = await store.take_notices(seconds=60)
    assert await store.split_notice(taken, ["email/ops#a@acme.com", "email/ops#b@acme.com"])
    assert [notice.target for notice in await store.take_notices(seconds=60)] == ["email/ops#a@acme.com", "email/ops#b@acme.com"]


async def test_a_message_with_buttons_is_taken_up_when_its_form_is_closed(store: Store, session_id: str) -> None:
    """By one sender at a time, until it is settled."""
    async with store.keep(await store.acquire(session_id)) as lease:
        for form in ("frm-1", "frm-2"):
            await store.open_form(lease, form, key=form, kind="approval", content={}, flow_run_id=None, seconds=None)
    for form in ("frm-1", "frm-2"):
        await store.record_notices(session_id, "approval", form, ["slack/docs#ops"])
    for taken in await store.take_notices(seconds=60):
        assert await store.settle_notice(taken, "asking", "C1 1.2")
    assert await store.take_answered(seconds=60) == []
    await store.answer_form("frm-1", {}, person="ada", via="cli")
    await store.close_form("frm-2", "expired", None, person="the deadline")
    assert await store.take_answered(seconds=60, form_id="frm-3") == []
    [first] = await store.take_answered(seconds=60, form_id="frm-1")
    [second] = await store.take_answered(seconds=60)
    assert (first.subject, second.subject) == ("frm-1", "frm-2")
    assert await store.take_answered(seconds=60) == []
    assert await store.settle_notice(first, "sent", first.note)
    assert [notice.status for notice in await store.notices()] == ["sent", "asking"]
