"""kill -9 when a message is out and the journal does not know: it goes out once, whatever the service can tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from e2e.harness.pool import Pool
from prefect_routines.connectors.connector import Connector
from prefect_routines.connectors.email import Email
from prefect_routines.connectors.twilio import Twilio

from . import mail_server, message_routines, slack_world, twilio_account
from .emulator import Emulator
from .http_service import serving
from .killed_runs import Killed, running

SLACK = {
    "slack_post": {"channel": "#docs", "text": "See https://acme.com & more"},
    "slack_reply": {"channel": "#docs", "thread": "HERS", "text": "There"},
    "slack_direct_message": {"user": "@jane", "text": "Psst"},
    "slack_upload_file": {"channel": "#docs", "name": "a.md", "content": "x"},
    "slack_update": {"channel": "#docs", "message": "OURS", "text": "Final"},
    "slack_react": {"channel": "#docs", "message": "HERS", "emoji": "eyes"},
}
"""A call of each write; HERS and OURS stand for messages."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def pool(prefect_server: str) -> Iterator[Pool]:
    with running() as pool:
        yield pool


def saved(block: Connector) -> str:
    """The name of the block on the Prefect server."""
    name = f"killed-{uuid4().hex[:8]}"
    block.save(name)
    return f"{block.get_block_type_slug()}/{name}"


@pytest.mark.parametrize("tool", sorted(SLACK))
def test_each_write_to_slack_is_found_there(pool: Pool, emulator: Emulator, tmp_path: Path, tool: str) -> None:
    """People see it once, and the next run says that it is done."""
    with slack_world.workspace(emulator) as slack:
        given = {"HERS": slack.says("docs", "Where?"), "OURS": slack.says("docs", "Draft", slack_world.BOT)}
        arguments = {name: given.get(value, value) for name, value in SLACK[tool].items()}
        with Killed(pool, tmp_path, message_routines.tell_slack, saved(slack.block()), tool, **arguments) as case:
            before = slack.state
            case.kill()
            sent = slack.state
            assert sent != before, "it was killed before it sent anything"
            state = case.retry()
            assert state.is_completed(), state
            assert slack.state == sent
            assert [output.status for output in case.outputs] == ["done"]


def test_an_sms_is_found_at_twilio(pool: Pool, tmp_path: Path) -> None:
    """By its sender, number, text and time."""
    account = twilio_account.Account()
    with serving(account) as service:
        block: Twilio = twilio_account.made(service)
        arguments = {"to": twilio_account.TO, "text": "Deploy failed"}
        with Killed(pool, tmp_path, message_routines.send_sms, saved(block), "twilio_send_sms", **arguments) as case:
            case.kill()
            assert account.texts == ["Deploy failed"]
            state = case.retry()
            assert state.is_completed(), state
            assert [output.status for output in case.outputs] == ["done"]
            assert "it was sent" in case.heard
    assert account.texts == ["Deploy failed"]


def test_a_mail_is_not_sent_again_and_said_to_be_in_doubt(pool: Pool, tmp_path: Path) -> None:
    """A mail server cannot be asked, so a person has to: the run is not green."""
    server = mail_server.MailServer()
    with mail_server.serving(server):
        block = Email(credentials=server.credentials(), sender=mail_server.USER, recipients=["ops@acme.com"])
        arguments = {"to": ["ops@acme.com"], "subject": "One", "body": "x"}
        with Killed(pool, tmp_path, message_routines.send_mail, saved(block), "email_send", **arguments) as case:
            case.kill()
            assert len(server.taken) == 1
            state = case.retry()
            assert (state.name, (state.message or "").partition(":")[0]) == ("Failed", "needs_attention")
            assert [output.status for output in case.outputs] == ["unknown"]
            assert "outcome is unknown" in case.heard
    assert len(server.taken) == 1
