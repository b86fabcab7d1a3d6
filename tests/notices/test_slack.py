"""Asked in Slack, answered with a click: a gateway of its own, an emulated workspace, interactions signed as Slack signs them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from connectors.emulator import Emulator
from connectors.slack_world import workspace
from gateway.conftest import StartGateway
from prefect_routines.notices.notify import notify
from prefect_routines.notices.sender import Sender, what_is_told
from prefect_routines.notices.slack import post
from prefect_routines.store import Store

from .asking import Asking, buttons, slack_block
from .world import asked, waiting


@pytest.fixture
def asking(prefect_server: str, emulator: Emulator, start_gateway: StartGateway) -> Iterator[Asking]:
    """A gateway, and a workspace in which it asks."""
    with slack_block(emulator) as (slack, name):
        yield Asking(start_gateway(), slack, name)


def test_a_click_answers_the_form_and_the_message_says_so(asking: Asking) -> None:
    """In Slack's own words who that was; whoever clicks later, or again, changes nothing."""
    form, message = asking.asks(asked(arguments={"channel": "#docs", "text": "Hello <!channel>"}))
    began = time.monotonic()
    assert asking.click(message, "Approve").status == 200
    assert time.monotonic() - began < 3
    answered = asking.form(form)
    who = f"slack:T1/{asking.slack.user('jane')} jane"
    assert (answered.status, answered.person, answered.via) == ("answered", who, "slack")
    assert answered.answer is not None
    assert answered.answer["decisions"]["toolu_1"]["decision"] == "approve"
    asking.gateway.until(lambda: len(buttons(asking.message(form))) == 1)
    assert f"Approved by {who} via slack." in json.dumps(asking.message(form))
    assert asking.click(message, "Deny", "max").status == 200
    assert asking.click(message, "Approve").status == 200
    assert asking.form(form) == answered
    assert len([one for one in asking.slack.messages("docs") if form.session_id in json.dumps(one)]) == 1


def test_of_twenty_clicks_at_once_one_counts(asking: Asking) -> None:
    """The others are told who was first."""
    form, message = asking.asks()
    kinds = ["Approve", "Deny"] * 10
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda kind: asking.click(message, kind, "jane" if kind == "Approve" else "max"), kinds))
    assert {one.status for one in answers} == {200}
    asking.gateway.until(lambda: asking.gateway.log.count(f"on form {form.id}") == 20)
    assert asking.gateway.log.count(f"on form {form.id} counts") == 1
    assert asking.gateway.log.count(f"on form {form.id} changed nothing") == 19


def test_forged_replayed_and_malformed_interactions_change_nothing(asking: Asking) -> None:
    """401 for whoever has not the secret or comes late, 400 for what makes no sense; the app that asked alone may answer."""
    form, message = asking.asks()
    good = asking.payload(message, "Approve")
    assert asking.send(good, secret="guessed").status == 401
    assert asking.send(good, at=time.time() - 301).status == 401
    assert asking.send(good, at=time.time() + 301).status == 401
    unsigned = asking.gateway.ask("POST", "/slack/interactions", urlencode({"payload": json.dumps(good)}).encode())
    assert unsigned.status == 401
    assert asking.send(good, secret="of-another-app").status == 400
    value = good["actions"][0]["value"]
    form_id, digest, decision = json.loads(value)
    for changed in ([form_id, "0" * 32, decision], [form_id, digest, "stop"], ["frm-none", digest, decision], [form_id], {"a": 1}):
        other = {**good, "actions": [{**good["actions"][0], "value": json.dumps(changed)}]}
        assert asking.send(other).status == 400, changed
    for raw in (b"", b"payload=", b"payload=%7B", b"\xff\xfe=1", b"x=1", b"payload=[]", b"payload=" + b"[" * 9000):
        assert asking.send(None, raw=raw).status == 400, raw
    assert asking.send({**good, "type": "view_submission"}).status == 400
    assert asking.send({**good, "user": {"id": "U1 ada; x"}}).status == 400
    assert asking.send(None, raw=b"payload=" + b"a" * 300_000).status == 413
    assert asking.send({**good, "actions": [{"action_id": "routines.open"}]}).status == 200
    assert asking.form(form).status == "open"
    assert "Unexpected" not in asking.gateway.log


def test_only_named_people_may_answer(asking: Asking) -> None:
    """By their ids: the name is what somebody calls himself."""
    jane = f"slack:T1/{asking.slack.user('jane')}"
    form, message = asking.asks(people=[jane])
    assert asking.click(message, "Approve", "max").status == 200
    posing = asking.payload(message, "Approve", "max")
    posing["user"]["username"] = posing["user"]["name"] = jane
    assert asking.send(posing).status == 200
    assert asking.form(form).status == "open"
    assert asking.click(message, "Deny", "jane").status == 200
    assert asking.form(form).status == "answered"


def test_a_form_that_was_answered_elsewhere_loses_its_buttons(asking: Asking) -> None:
    """Nobody clicks in vain."""
    form, message = asking.asks()
    assert len(buttons(message)) == 4
    asking.gateway.in_store(lambda store: store.answer_form(form.id, {}, person="ada", via="cli"))
    asking.gateway.until(lambda: len(buttons(asking.message(form))) == 1)
    assert "Answered by ada via cli." in json.dumps(asking.message(form))


async def test_a_sender_that_died_after_posting_is_found_out(store: Store, emulator: Emulator, prefect_server: str) -> None:
    """The next one finds the message by the notice's id, and posts no second one."""
    with workspace(emulator) as slack:
        name = f"test-{uuid4().hex[:8]}"
        await slack.block(default_channel="#docs").save(name)
        record, form = await waiting(store)
        await notify(store, record.id, "approval", form.id, [f"slack/{name}"])
        [taken] = await store.take_notices(seconds=-1)
        place = await post(slack.block(), name, await what_is_told(store, taken), "docs")
        assert await Sender(store).round() == 1
        [notice] = await store.notices()
        assert (notice.status, notice.attempts, notice.note) == ("asking", 2, place)
        assert len(slack.messages("docs")) == 1
