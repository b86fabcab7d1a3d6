"""Mail as a session sends it, to a real mail server; what that took is the judge."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect import get_client
from pydantic import ValidationError

from prefect_routines import Policy
from prefect_routines.connectors.email import Email
from prefect_routines.connectors.email import MailServer as Client
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.events import Event
from prefect_routines.outgoing import Allowance
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.tools.prose import harmless
from session.world import REPORT, run

from .http_service import context, planned
from .mail_server import PASSWORD, USER, MailServer, certificate, serving

MESSAGE: dict[str, Any] = {"to": ["ops@acme.com"], "subject": "Report", "body": "All is well.\n"}


@pytest.fixture
def server() -> Iterator[MailServer]:
    """A mail server that wants no login."""
    server = MailServer()
    with serving(server):
        yield server


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A certificate that nobody trusts."""
    return certificate(tmp_path_factory.mktemp("tls"))


def block(server: MailServer, *, recipients: tuple[str, ...] = ("ops@acme.com", "*@docs.acme.com"), **login: Any) -> Email:
    return Email(credentials=server.credentials(**login), sender=USER, recipients=list(recipients))


async def sent(email: Email, **arguments: Any) -> str:
    """What Claude is told when a message is sent."""
    async with planned(email, "email_send", **MESSAGE | arguments) as plan:
        told = await plan.send()
    assert isinstance(told, str)
    return told


async def test_what_arrives_is_what_was_planned(server: MailServer) -> None:
    """Sender, recipients, subject, text and id; dots at line starts, long lines and other alphabets included."""
    body = "..\n.\nGrüße, 世界 👋\n" + "x" * 3000 + "\nFrom here on\n"
    async with planned(block(server), "email_send", to=["Ops@ACME.com", "a.b@docs.acme.com"], subject="Übersicht", body=body) as plan:
        assert server.taken == []
        told = await plan.send()
    [taken] = server.taken
    assert (taken.sender, taken.recipients) == (USER, ["ops@acme.com", "a.b@docs.acme.com"])
    message = taken.message
    headers = {name.lower(): message[name] for name in ("From", "To", "Subject", "Message-ID")}
    assert headers | {"body": message.get_content().replace("\r\n", "\n")} == plan.request
    assert plan.request["body"] == body
    assert plan.request["message-id"] == f"<{context().key}@acme.com>"
    assert message.get_content_type() == "text/plain"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "taken as 4711" in told


@pytest.mark.parametrize("line", ["\n", "\r\n", "\r", "\u2028", "\x0b", "\x85"])
async def test_a_subject_cannot_add_a_header(server: MailServer, line: str) -> None:
    """Not even where nothing was sanitised before: the tool itself takes it as one line."""
    subject = f"Report{line}Bcc: stranger@evil.org{line}{line}Another body"
    await sent(block(server), subject=subject)
    [taken] = server.taken
    assert taken.recipients == ["ops@acme.com"]
    assert taken.message["Bcc"] is None
    assert taken.message.get_content().splitlines() == ["All is well."]
    assert taken.message["Subject"] == "Report Bcc: stranger@evil.org Another body"


@pytest.mark.parametrize(
    "to",
    [
        "ops@acme.com\nBcc: x@evil.org",
        "ops@acme.com> x@evil.org <",
        '"ops@acme.com, x"@evil.org',
        "Ops <ops@acme.com>",
        "x%evil.org@docs.acme.com",
        "evil.org!x@docs.acme.com",
        "@evil.org:x@docs.acme.com",
        "*@docs.acme.com",
        "x@[127.0.0.1]",
        "öps@acme.com",
        "ops@acme.com\u202e",
        "",
    ],
)
async def test_only_plain_addresses_are_recipients(server: MailServer, to: str) -> None:
    """Nothing that a mail server might read in two ways, and no wildcard of a declaration."""
    with pytest.raises(ToolError, match=r"arguments of email_send do not fit: to: "):
        await sent(block(server), to=[to])
    assert server.taken == []


@pytest.mark.parametrize("to", [["boss@acme.com"], ["ops@acme.com", "boss@acme.com"], ["x@evildocs.acme.com"], ["x@sub.docs.acme.com"]])
async def test_nobody_but_declared_recipients_is_written_to(server: MailServer, to: list[str]) -> None:
    """Whatever a policy says: one stranger among them, and nothing goes out."""
    with pytest.raises(ToolError, match=r"is no declared recipient of email/test; mail can go to ops@acme.com, \*@docs.acme.com"):
        await sent(block(server), to=to)
    assert server.taken == []


async def test_it_logs_in_where_that_is_wanted() -> None:
    """The check says as whom."""
    server = MailServer()
    with serving(server, login=True):
        email = block(server, username=USER, password=PASSWORD)
        assert await email.check() == (
            f"mail server 127.0.0.1:{server.port} (not encrypted), logged in as {USER}; sends as {USER} to ops@acme.com, *@docs.acme.com"
        )
        await sent(email)
    assert server.logins == [USER, USER]
    assert len(server.taken) == 1


async def test_a_wrong_password_is_one_line_without_the_password() -> None:
    """The line names the block whose login has to be renewed."""
    server = MailServer()
    with serving(server, login=True):
        email = block(server, username=USER, password="wr0ng-horse")
        with pytest.raises(ServiceError, match=r"refused the login of email/test: 535 .*; renew its username and password") as told:
            await sent(email)
        with pytest.raises(ServiceError, match=r"refused the login"):
            await email.check()
    assert "wr0ng-horse" not in str(told.value)
    assert "\n" not in str(told.value)
    assert server.taken == []


async def test_a_missing_login_is_one_line() -> None:
    """A server that wants one refuses the sender."""
    server = MailServer()
    with serving(server, login=True), pytest.raises(ServiceError, match=r"refused the sender bot@acme.com: 530 .* Nothing was sent"):
        await sent(block(server))


async def test_starttls_is_used(tls: ssl.SSLContext) -> None:
    """The login goes over the encrypted connection only."""
    server = MailServer()
    with serving(server, starttls=tls, login=True):
        email = block(server, smtp_type="STARTTLS", verify=False, username=USER, password=PASSWORD)
        assert "(STARTTLS, certificate not checked)" in await email.check()
        await sent(email)
    assert len(server.taken) == 1


async def test_tls_from_the_start_is_used(tls: ssl.SSLContext) -> None:
    """As on port 465."""
    server = MailServer()
    with serving(server, tls=tls):
        await sent(block(server, smtp_type="SSL", verify=False))
    assert len(server.taken) == 1


async def test_a_server_without_starttls_gets_neither_login_nor_message() -> None:
    """There is no falling back to an open connection."""
    server = MailServer()
    with serving(server, login=True):
        email = block(server, smtp_type="STARTTLS", username=USER, password=PASSWORD)
        with pytest.raises(ServiceError, match=r"offers no STARTTLS; set smtp_type"):
            await sent(email)
    assert (server.logins, server.taken) == ([], [])


@pytest.mark.parametrize("kind", ["STARTTLS", "SSL"])
async def test_a_certificate_that_is_not_trusted_stops_it(tls: ssl.SSLContext, kind: str) -> None:
    """The line says that it is the certificate."""
    server = MailServer()
    with (
        serving(server, starttls=tls) if kind == "STARTTLS" else serving(server, tls=tls),
        pytest.raises(ServiceError, match=r"certificate that is not trusted .*self-signed"),
    ):
        await sent(block(server, smtp_type=kind))
    assert server.taken == []


async def test_tls_with_a_server_that_speaks_none_is_one_line(server: MailServer) -> None:
    """The usual slip: port 25 with smtp_type SSL."""
    with pytest.raises(
        ServiceError, match=r"does not speak TLS as expected .*; set smtp_type and smtp_port of email/test's credentials right"
    ):
        await sent(block(server, smtp_type="SSL"))


async def test_a_refused_recipient_stops_the_whole_message() -> None:
    """Half a distribution would be neither done nor failed. What the server says is shown harmless."""
    server = MailServer(refused=("b@docs.acme.com",))
    with serving(server), pytest.raises(ServiceError, match=r"refused the recipient b@docs.acme.com: 550 .*Nothing was sent") as told:
        await sent(block(server), to=["ops@acme.com", "b@docs.acme.com"])
    assert "\x1b" not in str(told.value)
    assert server.taken == []


async def test_a_refused_message_is_known_not_to_be_sent() -> None:
    """The server has it and does not want it."""
    server = MailServer(after_data="552 too large")
    with serving(server), pytest.raises(ServiceError, match=r"refused the message: 552 too large. Nothing was sent"):
        await sent(block(server))


async def test_a_server_that_hangs_up_before_the_text_has_nothing() -> None:
    """That is known: the message may be sent again."""
    server = MailServer(at_data=True)
    with serving(server), pytest.raises(ServiceError, match=r"broke off .*Nothing was sent"):
        await sent(block(server))
    assert server.taken == []


@pytest.mark.parametrize("after_data", ["take and hang up", "hang up"])
async def test_a_lost_answer_leaves_the_outcome_unknown(after_data: str) -> None:
    """Whether it was taken cannot be told from here."""
    server = MailServer(after_data=after_data)
    with serving(server):
        async with planned(block(server), "email_send", **MESSAGE) as plan:
            with pytest.raises(OutcomeUnknown, match=r"whether it took it is unknown, and mail cannot be looked up"):
                await plan.send()
        assert plan.find is None
    assert len(server.taken) == after_data.startswith("take")


async def test_a_server_that_is_not_there_is_one_line() -> None:
    """With the address, for the person who mistyped it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ServiceError, match=rf"127.0.0.1:{port} cannot be reached \(Connection refused\); set the address of email/test"):
        await sent(block(MailServer(port=port)))


def test_a_silent_server_is_given_up() -> None:
    """It took the connection and says nothing, ever."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        client = Client(MailServer(port=listener.getsockname()[1]).credentials(), "email/test", timeout=0.2)
        with pytest.raises(ServiceError, match=r"Nothing was sent"):
            client.check()


async def test_other_work_goes_on_while_a_server_is_slow() -> None:
    """SMTP blocks; the loop does not."""
    answered = threading.Event()

    def slow(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            answered.wait(30)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=slow, args=(listener,))
        thread.start()
        waiting = asyncio.create_task(sent(block(MailServer(port=listener.getsockname()[1]))))
        await asyncio.sleep(0)
        ticks = 0
        while ticks < 10:
            await asyncio.sleep(0.001)
            ticks += 1
        assert not waiting.done()
        answered.set()
        with pytest.raises(ServiceError, match=r"broke off"):
            await waiting
        thread.join()


def test_what_is_hidden_in_a_text_is_gone_before_a_rule_sees_it(server: MailServer) -> None:
    """Direction marks and escape sequences do not reach a mail reader."""
    [tool] = block(server).open("test").tools
    given = tool.check({"to": ["OPS@acme.com"], "subject": "a\u202eb\x1b[31mc\nd", "body": "x\u202ey\x1b[2J\n"})
    clean = harmless(given, tool, Allowance())
    assert clean == {"to": ["ops@acme.com"], "subject": "abc d", "body": "xy\n"}


def test_claude_is_asked_for_a_list_of_addresses(server: MailServer) -> None:
    """Rules look at each of them, in one spelling."""
    [tool] = block(server).open("test").tools
    assert tool.schema["properties"]["to"]["type"] == "array"
    assert tool.targets == ("to",)
    made = tool.check({**MESSAGE, "to": ["b@docs.acme.com", "OPS@acme.com", "b@docs.acme.com"]})
    assert made["to"] == ["b@docs.acme.com", "ops@acme.com"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("recipients", []), ("recipients", ["*"]), ("recipients", ["*@*"]), ("recipients", ["o*@acme.com"]), ("sender", "Bot <bot@acme.com>")],
)
def test_a_wrong_declaration_is_refused_when_the_block_is_made(server: MailServer, field: str, value: Any) -> None:
    """Not when the first message is due."""
    with pytest.raises(ValidationError, match=field):
        Email(**{"credentials": server.credentials(), "sender": USER, "recipients": ["ops@acme.com"], field: value})


# --- whole sessions


async def saved(server: MailServer, **fields: Any) -> str:
    """The name of a block on the Prefect server."""
    name = f"mail-{uuid4().hex[:8]}"
    credentials = server.credentials(**fields)
    await credentials.save(f"login-{name}")
    await Email(credentials=credentials, sender=USER, recipients=["ops@acme.com", "*@docs.acme.com"]).save(name)
    return f"email/{name}"


TRIES = [
    call("email_send", to=["ops@acme.com"], subject="One", body="x"),
    call("email_send", to=["a@docs.acme.com"], subject="Two", body="x"),
    call("email_send", to=["ops@acme.com", "a@docs.acme.com"], subject="Three", body="x"),
    call("email_send", to=["boss@evil.org"], subject="Four", body="x"),
    call("email_send", to=["ops@acme.com"], subject="Five", body="x"),
]


@pytest.mark.parametrize(
    ("allow", "arrived"),
    [
        ((), []),
        (("email_send(to=ops@acme.com) x1",), ["One"]),
        (("email_send(ops@acme.com)",), ["One", "Five"]),
        (("email_send(to=*@docs.acme.com)",), ["Two"]),
        (("email_send(to=*@*acme.com) x3",), ["One", "Two", "Three"]),
        (("email_send(to=ops@acme.com[,] a@docs.acme.com)",), []),
        (("email_send",), ["One", "Two", "Three", "Five"]),
    ],
)
async def test_exactly_what_the_policy_allows_arrives(prefect: str, server: MailServer, allow: tuple[str, ...], arrived: list[str]) -> None:
    """Claude tries everything; the mail server's own state is the judge."""
    with ScriptedClaude([say(*TRIES), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(server)], policy=Policy(allow=list(allow)))
    assert [taken.message["Subject"] for taken in server.taken] == arrived
    if not allow:
        assert "allow=['email_send(to=ops@acme.com)']" in ran.requests[1].results[0].text


async def test_a_denied_recipient_is_denied_in_company_too(prefect: str, server: MailServer) -> None:
    """Another address beside it does not get the message past the rule."""
    policy = Policy(allow=["email_send"], deny=["email_send(to=ops@acme.com)"])
    with ScriptedClaude([say(*TRIES), REPORT]) as claude:
        await run(claude, connectors=[await saved(server)], policy=policy)
    assert [taken.message["Subject"] for taken in server.taken] == ["Two"]


async def test_a_run_started_from_outside_needs_a_fixed_recipient(prefect: str, server: MailServer) -> None:
    """A rule that leaves the recipient open lets nothing through there."""
    event = Event(id="e1", source="webhook", kind="alert")
    policy = Policy(allow=["email_send", "email_send(to=ops@acme.com) x1"])
    with ScriptedClaude([say(*TRIES), REPORT]) as claude:
        await run(claude, connectors=[await saved(server)], event=event, policy=policy)
    assert [taken.message["Subject"] for taken in server.taken] == ["One"]


async def test_a_rehearsal_sends_nothing(prefect: str, server: MailServer) -> None:
    """And keeps what it would have sent."""
    with ScriptedClaude([say(TRIES[0]), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(server)], rehearsal=True, policy=Policy(allow=["email_send x1"]))
    assert server.taken == []
    [output] = ran.outputs
    assert output.status == "captured"
    assert {name: output.request[name] for name in ("to", "subject", "body")} == {"to": "ops@acme.com", "subject": "One", "body": "x\n"}


async def test_a_lost_answer_is_told_and_nothing_is_repeated(prefect: str) -> None:
    """Once in the mailbox, once in the records with an unknown outcome."""
    server = MailServer(after_data="take and hang up")
    with serving(server), ScriptedClaude([say(TRIES[0]), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(server)], policy=Policy(allow=["email_send x1"]))
    assert len(server.taken) == 1
    assert [output.status for output in ran.outputs] == ["unknown"]
    assert "mail cannot be looked up" in ran.requests[1].results[0].text


async def test_the_password_shows_up_nowhere(prefect: str) -> None:
    """Neither in the journal nor in what Claude gets, also when the server throws it back."""
    server = MailServer(after_data=f"554 {PASSWORD} is a fine password")
    with serving(server, login=True), ScriptedClaude([say(TRIES[0]), REPORT]) as claude:
        ran = await run(claude, connectors=[await saved(server, username=USER, password=PASSWORD)], policy=Policy(allow=["email_send"]))
    assert "refused the message: 554" in ran.requests[1].results[0].text
    assert PASSWORD not in str([entry.data for entry in ran.journal])
    assert PASSWORD not in str([request.body for request in ran.requests])
    assert PASSWORD not in str(ran.outputs)


def test_the_script_saves_both_blocks(prefect: str, server: MailServer) -> None:
    """What it saved sends mail; without its settings it says which."""
    script = [sys.executable, str(Path(__file__).parents[2] / "blocks" / "save_email.py"), name := f"mail-{uuid4().hex[:8]}"]
    refused = subprocess.run(script, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr == "error: set SMTP_SERVER, EMAIL_SENDER, EMAIL_RECIPIENTS; this file says what they are\n"
    given = {"SMTP_SERVER": "127.0.0.1", "SMTP_PORT": str(server.port), "SMTP_TYPE": "INSECURE"}
    given |= {"EMAIL_SENDER": USER, "EMAIL_RECIPIENTS": "ops@acme.com, *@docs.acme.com", "SMTP_PASSWORD": PASSWORD}
    saved = subprocess.run(script, capture_output=True, text=True, check=True, env=os.environ | given)
    assert f"email/{name}" in saved.stdout
    with get_client(sync_client=True) as client:  # as the UI reads it
        shown = client.read_block_document_by_name(name, "email", include_secrets=False).model_dump_json()
    assert "ops@acme.com" in shown
    assert PASSWORD not in shown
    asyncio.run(sent(cast(Email, Email.load(name))))
    assert [taken.recipients for taken in server.taken] == [["ops@acme.com"]]
