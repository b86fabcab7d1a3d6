"""Outgoing webhooks, received by a real server that checks the signatures itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import ValidationError

from prefect_routines.blocks import load_block
from prefect_routines.notices.notify import notify
from prefect_routines.notices.sender import Sender, deliver, keep_sending
from prefect_routines.notices.webhook import NotDelivered, NoticeWebhook
from prefect_routines.store import Notice, Store
from waiting import until_async

from .receiver import SECRET, Receiver
from .world import asked, waiting


async def due_again(store: Store, notice: Notice, seconds: float = -1) -> None:
    """As if the pause were over."""
    assert await store.retry_notice(notice, seconds=seconds, note="the test")


async def test_what_happens_is_told_once_and_signed(store: Store, hook: str, receiver: Receiver) -> None:
    """Started, needs approval, finished: each once, in the form of Standard Webhooks; no arguments of calls."""
    record, form = await waiting(store, asked(arguments={"text": "s3cret plans"}))
    for _ in range(2):
        await notify(store, record.id, "started", "run-1", [hook])
        await notify(store, record.id, "approval", form.id, [hook])
        await deliver(store, record.id)
    lease = await store.acquire(record.id)
    await store.update_session(lease, status="ended", verdict="done", summary="Two pages \x1b[2J updated.")
    await notify(store, record.id, "finished", "run-1", [hook])
    await deliver(store, record.id)
    assert [one.body["type"] for one in receiver.got] == ["session.started", "session.needs_approval", "session.finished"]
    assert all(one.genuine() for one in receiver.got)
    assert len({one.id for one in receiver.got}) == 3
    data = receiver.got[1].body["data"]
    assert data["form"] == {"id": form.id, "kind": "approval", "titles": ["slack_post to #docs"]}
    assert (data["session"], data["routine"], data["status"]) == (record.id, "docs-sync", "suspended")
    assert data["url"] == f"http://127.0.0.1:4280/sessions/{record.id}"
    last = receiver.got[2].body["data"]
    assert (last["verdict"], last["summary"], last["form"]) == ("done", "Two pages \\x1b[2J updated.", None)
    assert not any(b"s3cret plans" in one.raw for one in receiver.got)
    assert {notice.status for notice in await store.notices(session_id=record.id)} == {"sent"}


async def test_a_receiver_that_fails_is_told_again_with_the_same_id(store: Store, hook: str, receiver: Receiver) -> None:
    """Later, not at once; a redirect is not followed and counts as a failure."""
    receiver.statuses = [503, 302, 200]
    record, form = await waiting(store)
    await notify(store, record.id, "approval", form.id, [hook])
    sender = Sender(store)
    for failures in (1, 2):
        assert await sender.round() == 1
        assert await sender.round() == 0
        [notice] = await store.notices()
        assert (notice.status, notice.attempts) == ("waiting", failures)
        await due_again(store, notice)
    assert await sender.round() == 1
    [notice] = await store.notices()
    assert (notice.status, notice.note) == ("sent", "answered 200")
    assert [one.path for one in receiver.got] == ["/told"] * 3
    assert {one.id for one in receiver.got} == {notice.id}
    assert all(one.genuine() for one in receiver.got)


async def test_a_receiver_that_is_gone_switches_itself_off(store: Store, hook: str, receiver: Receiver) -> None:
    """410: nothing is sent there again until somebody switches the block on."""
    receiver.statuses = [410]
    record, form = await waiting(store)
    for kind, subject in (("started", "run-1"), ("approval", form.id)):
        await notify(store, record.id, kind, subject, [hook])  # type: ignore[arg-type]
        await deliver(store, record.id)
    assert len(receiver.got) == 1
    block = await load_block(hook)
    assert isinstance(block, NoticeWebhook)
    assert not block.enabled
    assert block.secret.get_secret_value() == SECRET
    assert {notice.status for notice in await store.notices()} == {"skipped"}


async def test_a_form_that_was_answered_is_not_announced(store: Store, hook: str, receiver: Receiver) -> None:
    """Nobody is asked what somebody has decided."""
    record, form = await waiting(store)
    await notify(store, record.id, "approval", form.id, [hook])
    await store.answer_form(form.id, {}, person="ada", via="cli")
    await deliver(store, record.id)
    assert receiver.got == []
    [notice] = await store.notices()
    assert notice.status == "skipped"


async def test_a_check_sends_a_signed_ping(receiver: Receiver) -> None:
    """It says what the receiver answered."""
    block = NoticeWebhook(url=receiver.url, secret=SECRET)
    assert f"127.0.0.1:{receiver.port} took a signed ping (204)" in await block.check()
    assert receiver.got[0].genuine()
    receiver.statuses = [500]
    with pytest.raises(NotDelivered, match="answered 500"):
        await block.check()


@pytest.mark.parametrize("url", ["ftp://ci.acme.com/x", "file:///etc/passwd", "https://bot:pw@ci.acme.com/", "ci.acme.com", "http:///x"])
def test_only_web_addresses_without_a_login_are_taken(url: str) -> None:
    """Those of one's own network are."""
    NoticeWebhook(url="http://192.168.0.7:8000/told", secret=SECRET)
    with pytest.raises(ValidationError):
        NoticeWebhook(url=url, secret=SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), "whsec_not base64 at all, not at all!"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    """With the way to make one, and without showing what was given."""
    with pytest.raises(ValidationError, match="openssl rand -base64 32") as refused:
        NoticeWebhook(url="https://ci.acme.com", secret=secret)
    assert "input_value" not in str(refused.value)


SENDING = """
import asyncio, sys
from prefect_routines.notices.sender import Sender
from prefect_routines.store import Store

async def main():
    async with await Store.open(sys.argv[1]) as store, Sender(store):
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_sender_killed_between_sending_and_settling_tells_twice_at_most(
    store: Store, hook: str, receiver: Receiver, tmp_path: Path
) -> None:
    """The next one sends the same id again, so that the receiver knows it; and no third time."""
    record, form = await waiting(store)
    await notify(store, record.id, "approval", form.id, [hook])
    receiver.held.set()
    url = f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDING, url)
    await until_async(lambda: receiver.got, 60)
    os.kill(first.pid, signal.SIGKILL)
    await first.wait()
    receiver.held.clear()
    [taken] = await store.notices()
    assert (taken.status, taken.attempts) == ("waiting", 1)
    assert await Sender(store).round() == 0  # still its own, for a while
    await due_again(store, taken)
    assert await Sender(store).round() == 1
    assert await Sender(store).round() == 0
    assert [one.id for one in receiver.got] == [taken.id] * 2
    # had the first one only been slow, it could change nothing any more
    assert not await store.settle_notice(taken, "failed", "too late")
    [notice] = await store.notices()
    assert (notice.status, notice.attempts) == ("sent", 2)


async def test_the_script_saves_a_receiver(prefect_server: str, receiver: Receiver) -> None:
    """From the environment; what is wrong is said without the secret."""
    script = Path(__file__).parents[2] / "blocks" / "save_notice_webhook.py"
    name = f"test-{uuid4().hex[:8]}"

    async def said(secret: str) -> tuple[int | None, str]:
        given = {"NOTICE_URL": receiver.url, "NOTICE_SECRET": secret, "NOTICE_KINDS": "approval, finished"}
        pipe = asyncio.subprocess.PIPE
        made = await asyncio.create_subprocess_exec(
            sys.executable, str(script), name, env={**os.environ, **given}, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        return made.returncode or await made.wait(), (await made.communicate())[0].decode()

    code, text = await said("whsec_short")
    assert (code, "openssl rand" in text, "whsec_short" in text) == (1, True, False)
    code, text = await said(SECRET)
    assert (code, SECRET in text) == (0, False)
    assert f"notify=['notice-webhook/{name}']" in text
    block = await load_block(f"notice-webhook/{name}")
    assert isinstance(block, NoticeWebhook)
    assert (block.kinds, block.arguments) == (["approval", "finished"], False)


async def test_a_worker_sends_what_others_left(
    store: Store, hook: str, receiver: Receiver, tmp_path: Path, configure: Callable[..., None]
) -> None:
    """With a store of its own, for as long as it runs."""
    configure(ROUTINES_DATABASE_URL=f"sqlite+aiosqlite:///{tmp_path / 'store.db'}")
    sending = asyncio.create_task(keep_sending())
    record, _ = await waiting(store)
    await notify(store, record.id, "finished", "run-1", [hook])
    await until_async(lambda: receiver.got, 30)
    sending.cancel()
    await asyncio.wait([sending])
    assert receiver.got[0].body["type"] == "session.finished"
