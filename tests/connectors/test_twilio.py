"""SMS as a session sends them, to a small server that answers as Twilio's documentation says; what that took is the judge."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from prefect import get_client
from pydantic import SecretStr, ValidationError

from prefect_routines import Policy
from prefect_routines.connectors.http import ServiceError
from prefect_routines.connectors.twilio import Twilio
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.events import Event
from prefect_routines.outgoing import Allowance
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.tools.prose import harmless
from prefect_routines.tools.tool import Write
from session.world import REPORT, run

from .emulator import Emulator
from .http_service import HttpService, Said, context, planned, serving
from .twilio_account import ACCOUNT, FROM, OTHER, PATH, TO, TOKEN, Account, error, made


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def service(account: Account) -> Iterator[HttpService]:
    with serving(account) as service:
        yield service


@pytest.fixture
def block(service: HttpService) -> Twilio:
    return made(service)


async def sent(block: Twilio, to: str = TO, text: str = "Deploy failed") -> str:
    async with planned(block, "twilio_send_sms", to=to, text=text) as plan:
        told = await plan.send()
    assert isinstance(told, str)
    return told


async def test_what_arrives_is_what_was_planned(block: Twilio, account: Account) -> None:
    """Signs of form encoding and other alphabets included."""
    text = "a+b=c & d%20e\nGrüße 👋"
    async with planned(block, "twilio_send_sms", to="+49 (151) 1234-5678", text=text) as plan:
        assert account.messages == []
        assert plan.request == {"To": TO, "From": FROM, "Body": text}
        assert await plan.send() == f"Twilio took the SMS to {TO} (SM0, queued)."
    assert (account.messages[0]["to"], account.messages[0]["from"], account.messages[0]["body"]) == (TO, FROM, text)


async def test_a_messaging_service_sends_in_place_of_a_number(service: HttpService, account: Account) -> None:
    """And an API key logs in in place of the account's token."""
    block = made(service, auth_token=None, api_key="SK1", api_secret="s3cret", from_number=None, messaging_service_sid="MG1")
    await sent(block)
    assert (account.messages[0]["messaging_service_sid"], account.messages[0]["from"]) == ("MG1", None)


async def test_the_check_logs_in_and_says_who_and_to_whom(block: Twilio) -> None:
    """One line."""
    assert await block.check() == f"Twilio account Acme (active, Full); sends SMS from {FROM} to {TO}, {OTHER}"


async def test_a_wrong_login_is_one_line_without_the_login(service: HttpService, account: Account) -> None:
    """The line names the block."""
    block = made(service, auth_token="wr0ng")
    for work in (sent(block), block.check()):
        with pytest.raises(ServiceError, match=r"Twilio answered 401: Authenticate \(Twilio error 20003\)\. The login of twilio/") as told:
            await work
        assert "wr0ng" not in str(told.value)
    assert account.messages == []


@pytest.mark.parametrize(
    ("code", "message", "remedy"),
    [
        (21211, "Invalid 'To' Phone Number", "that is no number that can be written to"),
        (21606, "The From phone number is not a valid message-capable number", "from_number is not one of the account's"),
        (21608, "The number is unverified", "verify it in the console"),
        (21610, "Attempt to send to unsubscribed recipient", "has answered STOP"),
        (21408, "Permission has not been enabled for the region", "allow it in the console"),
        (99999, "Something \x1b[31mnew", "Something"),
    ],
)
async def test_a_refusal_is_one_line_with_what_to_do(block: Twilio, account: Account, code: int, message: str, remedy: str) -> None:
    """Twilio's number of the error is kept, for who wants to look it up."""
    account.fails = error(400, code, message)
    with pytest.raises(ServiceError, match=remedy) as told:
        await sent(block)
    assert not isinstance(told.value, OutcomeUnknown)
    assert f"(Twilio error {code})" in str(told.value)
    assert "\x1b" not in str(told.value)
    assert account.messages == []


async def test_too_many_requests_say_until_when(block: Twilio, account: Account) -> None:
    """A pause that is too long to wait for is told."""
    account.fails = replace(error(429, 20429, "Too Many Requests"), headers={"Retry-After": "3600"})
    with pytest.raises(ServiceError, match=r"Twilio limits the rate of requests until \d\d:\d\d:\d\d UTC"):
        await sent(block)


@pytest.mark.parametrize(
    "to", ["4915112345678", "+0151123456", "+49151123456789012", "+49151\n", "me", "+49 151 x", "+４９15112345678", ""]
)
async def test_only_numbers_are_recipients(block: Twilio, account: Account, to: str) -> None:
    """As E.164 writes them."""
    with pytest.raises(ToolError, match=r"arguments of twilio_send_sms do not fit: to: "):
        await sent(block, to)
    assert account.messages == []


async def test_nobody_but_declared_numbers_is_written_to(block: Twilio, account: Account) -> None:
    """Whatever a policy says."""
    with pytest.raises(
        ToolError, match=r"\+15005550006 is no declared number of twilio/test; SMS can go to \+4915112345678, \+33612345678"
    ):
        await sent(block, "+15005550006")
    assert account.messages == []


@pytest.mark.parametrize("text", ["", "  \n", "x" * 1601])
async def test_a_text_that_twilio_would_refuse_is_not_sent(block: Twilio, service: HttpService, text: str) -> None:
    """Claude is told before anything goes out."""
    with pytest.raises(ToolError, match=r"give a text of 1 to 1600 characters"):
        await sent(block, text=text)
    assert service.asked == []


def test_a_text_loses_what_hides_and_what_is_too_long(block: Twilio) -> None:
    """Direction marks and escape sequences go, and it never grows past the limit."""
    [tool] = block.open("test").tools
    clean = harmless(tool.check({"to": TO, "text": "a\u202eb\x1b[31mc"}), tool, Allowance())
    assert clean == {"to": TO, "text": "abc"}
    clean = harmless(tool.check({"to": TO, "text": "x" * 5000}), tool, Allowance())
    assert len(clean["text"]) <= 1600
    assert "cut" in clean["text"]


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_lost_answer_leaves_the_outcome_unknown(block: Twilio, account: Account, status: int) -> None:
    """It is not simply sent again."""
    account.fails = Said({}, status)
    async with planned(block, "twilio_send_sms", to=TO, text="x") as plan:
        with pytest.raises(OutcomeUnknown):
            await plan.send()
        assert await plan.find() is None


async def test_an_answer_that_cannot_be_read_leaves_the_outcome_unknown(block: Twilio, account: Account) -> None:
    """A proxy's page with status 200 says nothing about the message."""
    for answer in (Said(b"<html>"), Said([]), Said({})):
        account.fails = answer
        with pytest.raises(OutcomeUnknown, match=r"cannot be read"):
            await sent(block)


async def test_a_look_up_that_fails_leaves_the_outcome_unknown(service: HttpService, block: Twilio) -> None:
    """It does not mean that nothing was sent."""
    async with planned(block, "twilio_send_sms", to=TO, text="x") as plan:
        service.answers = lambda asked: error(401, 20003, "Authenticate")
        with pytest.raises(OutcomeUnknown, match=r"whether the SMS to \+4915112345678 was sent is unknown"):
            await plan.find()


async def test_a_server_that_is_not_there_is_known_to_have_nothing(service: HttpService, block: Twilio) -> None:
    """Nothing listens at that address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServiceError, match=r"cannot be reached") as told:
        await sent(made(service, base_url=f"http://127.0.0.1:{port}"))
    assert not isinstance(told.value, OutcomeUnknown)


@pytest.mark.parametrize("sender", ["number", "service"])
async def test_a_message_is_found_by_sender_number_text_and_time(service: HttpService, account: Account, sender: str) -> None:
    """One difference, and it is another message."""
    fields = {} if sender == "number" else {"from_number": None, "messaging_service_sid": "MG1"}
    like = {"to": TO, "body": "x", **({"from": FROM} if sender == "number" else {"messaging_service_sid": "MG1"})}
    connection = made(service, **fields).open("test")
    [tool] = connection.tools
    since = f"ses-{int(time.time()) - 600:08x}{'0' * 12}"
    plan = await tool(replace(context(), session_id=since), {"to": TO, "text": "x"})
    assert isinstance(plan, Write)
    assert plan.find is not None
    for other in ({"to": OTHER}, {"body": "y"}, {"from": OTHER, "messaging_service_sid": "MG2"}, {"direction": "inbound"}):
        account.take(**like | other)
    account.take(**like, ago=3600)
    assert await plan.find() is None
    account.take(**like, ago=300)
    told = await plan.find()
    await connection.close()
    assert f"Twilio has an SMS with this text to {TO} (SM5, queued, made at " in str(told)


async def test_another_twilio_agrees(emulator: Emulator) -> None:
    """The emulator's authors have read the documentation, too: log in, send, find, and be refused."""
    seed = {
        "twilio": {"account": {"sid": ACCOUNT, "auth_token": TOKEN, "friendly_name": "Acme"}, "phone_numbers": [{"phone_number": FROM}]}
    }
    start = cast(Any, emulator).start
    with start("twilio", seed) as twilio:
        block = Twilio.model_validate(
            {"account_sid": ACCOUNT, "auth_token": TOKEN, "from_number": FROM, "recipients": [TO], "base_url": twilio.url}
        )
        assert (await block.check()).startswith("Twilio account Acme (active, Full)")
        async with planned(block, "twilio_send_sms", to=TO, text="Grüße & more") as plan:
            assert await plan.find() is None
            assert "queued" in await plan.send()
            assert "it was sent" in await plan.find()
        answer = await asyncio.to_thread(httpx.get, f"{twilio.url}{PATH}/Messages.json", auth=(ACCOUNT, TOKEN))
        listed = answer.json()["messages"]
        assert [(message["to"], message["from"], message["body"]) for message in listed] == [(TO, FROM, "Grüße & more")]
        with pytest.raises(ServiceError, match=r"Twilio answered 401.*\(Twilio error 20003\)"):
            await sent(block.model_copy(update={"auth_token": SecretStr("wr0ng")}))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"account_sid": "AC1/../x"}, "account_sid"),
        ({"recipients": []}, "declare at least one number"),
        ({"recipients": ["*"]}, "is no number"),
        ({"auth_token": None}, "log in with"),
        ({"auth_token": None, "api_key": "SK1"}, "log in with"),
        ({"from_number": None}, "one of them sends"),
        ({"messaging_service_sid": "MG1"}, "one of them sends"),
    ],
)
def test_a_wrong_declaration_is_refused_when_the_block_is_made(service: HttpService, fields: dict[str, Any], problem: str) -> None:
    """Not when the first message is due."""
    with pytest.raises(ValidationError, match=problem):
        made(service, **fields)


# --- whole sessions

TRIES = [
    call("twilio_send_sms", to=TO, text="One"),
    call("twilio_send_sms", to=OTHER, text="Two"),
    call("twilio_send_sms", to="+15005550006", text="Three"),
    call("twilio_send_sms", to=TO, text="Four"),
]


async def saved(block: Twilio) -> str:
    """The name of the block on the Prefect server."""
    name = f"sms-{uuid4().hex[:8]}"
    await block.save(name)
    return f"twilio/{name}"


@pytest.mark.parametrize(
    ("allow", "arrived"),
    [((), []), ((f"twilio_send_sms(to={TO}) x1",), ["One"]), (("twilio_send_sms",), ["One", "Two", "Four"])],
)
async def test_exactly_what_the_policy_allows_arrives(
    prefect: str, block: Twilio, account: Account, allow: tuple[str, ...], arrived: list[str]
) -> None:
    """Claude tries everything; what the account took is the judge."""
    with ScriptedClaude([say(*TRIES), REPORT]) as claude:
        await run(claude, connectors=[await saved(block)], policy=Policy(allow=list(allow)))
    assert account.texts == arrived


async def test_a_run_started_from_outside_needs_a_fixed_number(prefect: str, block: Twilio, account: Account) -> None:
    """A rule that leaves the number open lets nothing through there."""
    event = Event(id="e1", source="webhook", kind="alert")
    policy = Policy(allow=["twilio_send_sms", f"twilio_send_sms(to={OTHER})"])
    with ScriptedClaude([say(*TRIES), REPORT]) as claude:
        await run(claude, connectors=[await saved(block)], event=event, policy=policy)
    assert account.texts == ["Two"]


async def test_a_rehearsal_sends_nothing(prefect: str, block: Twilio, service: HttpService) -> None:
    """Twilio does not hear of it."""
    with ScriptedClaude([say(TRIES[0]), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(block)], rehearsal=True, policy=Policy(allow=["twilio_send_sms"]))
    assert service.asked == []
    assert [(output.status, output.request) for output in ran.outputs] == [("captured", {"To": TO, "From": FROM, "Body": "One"})]


async def test_a_lost_answer_is_looked_up(prefect: str, block: Twilio, account: Account) -> None:
    """The message is there, so it counts as sent, and is not sent again."""
    account.loses = True
    with ScriptedClaude([say(TRIES[0]), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(block)], policy=Policy(allow=["twilio_send_sms x1"]))
    assert account.texts == ["One"]
    assert [output.status for output in ran.outputs] == ["done"]
    assert "it was sent" in ran.requests[1].results[0].text


async def test_the_login_shows_up_nowhere(prefect: str, block: Twilio, account: Account) -> None:
    """Also when the service throws it back, as it is or as the header had it."""
    header = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    account.fails = error(400, 1, f"bad {TOKEN} and {header}")
    with ScriptedClaude([say(TRIES[0]), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(block)], policy=Policy(allow=["twilio_send_sms"]))
    assert "Twilio answered 400: bad" in ran.requests[1].results[0].text
    kept = str([entry.data for entry in ran.journal]) + str([request.body for request in ran.requests]) + str(ran.outputs)
    assert TOKEN not in kept
    assert header not in kept


def test_the_script_saves_the_block(prefect: str, service: HttpService, account: Account) -> None:
    """What it saved sends; without its settings it says which."""
    script = [sys.executable, str(Path(__file__).parents[2] / "blocks" / "save_twilio.py"), name := f"sms-{uuid4().hex[:8]}"]
    refused = subprocess.run(script, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "error: set TWILIO_ACCOUNT_SID, TWILIO_RECIPIENTS; this file says what they are\n"
    given = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_FROM": FROM, "TWILIO_RECIPIENTS": f"{TO}, {OTHER}"}
    done = subprocess.run(script, capture_output=True, text=True, check=True, env=os.environ | given | {"TWILIO_BASE_URL": service.url})
    assert f"twilio/{name}" in done.stdout
    with get_client(sync_client=True) as client:  # as the UI reads it
        shown = client.read_block_document_by_name(name, "twilio", include_secrets=False).model_dump_json()
    assert ACCOUNT in shown
    assert TOKEN not in shown
    asyncio.run(sent(cast(Twilio, Twilio.load(name))))
    assert account.texts == ["Deploy failed"]
