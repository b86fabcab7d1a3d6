"""A session tells what happens to it, while it happens: that it started, that it needs a person, that it has finished."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from notices.receiver import SECRET, Receiver, receiving
from prefect_routines.notices.webhook import NoticeWebhook
from prefect_routines.policy import Policy
from prefect_routines.steering.acts import answer
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until_async

from .test_waiting import ADA, open_form, steered
from .world import REPORT

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Who is told."""
    with receiving() as running:
        yield running


async def test_a_session_tells_that_it_started_needs_a_person_and_has_finished(receiver: Receiver) -> None:
    """Without a gateway, too; what waits is told while it waits."""
    name = f"test-{uuid4().hex[:8]}"
    await NoticeWebhook(url=receiver.url, secret=SECRET).save(name)

    async def approve(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)

        async def told() -> bool:
            return any(one.body["type"] == "session.needs_approval" for one in receiver.got)

        await until_async(told)
        await answer(store, form, uniform_answer(form.content, "approve"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        await steered(claude, approve, policy=Policy(ask=["tell"]), notify=[f"notice-webhook/{name}"])
    assert {one.body["type"] for one in receiver.got[:2]} == {"session.started", "session.needs_approval"}
    assert [one.body["type"] for one in receiver.got[2:]] == ["session.finished"]
    assert receiver.got[2].body["data"]["verdict"] == "done"
    assert all(one.genuine() for one in receiver.got)
