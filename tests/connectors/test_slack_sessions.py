"""Slack in whole sessions: what the policy lets through, what arrives, what a crash leaves. The emulator's state is the judge."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect import get_client

from prefect_routines import Policy
from prefect_routines.connectors.slack import Slack
from prefect_routines.events import Event
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.testing.script import Call
from session.world import REPORT, Ran, run

from .emulator import Emulator
from .http_service import answered
from .slack_world import BOT, JANE, Workspace, workspace


@pytest.fixture
def slack(emulator: Emulator) -> Iterator[Workspace]:
    with workspace(emulator) as fresh:
        yield fresh


async def saved(block: Slack) -> str:
    """The name of the block on the Prefect server, with its credentials in a block of their own."""
    name = f"slack-{uuid4().hex[:8]}"
    await block.credentials.save(name)
    await block.save(name)
    return f"slack/{name}"


async def ran(slack: Workspace, *calls: Call, allow: tuple[str, ...] = (), **options: Any) -> Ran:
    """A session in which Claude makes these calls."""
    with ScriptedClaude([say(*calls), REPORT]) as claude:
        return await run(claude, connectors=[await saved(slack.block())], policy=Policy(allow=list(allow)), **options)


def everything(slack: Workspace) -> list[Call]:
    """Every write there is, well formed, on a workspace with a message of Jane's and one of the bot's in #docs."""
    hers, ours = slack.says("docs", "Where?"), slack.says("docs", "Draft", BOT)
    return [
        call("slack_post", channel="#docs", text="One"),
        call("slack_post", channel="docs", text="Two"),
        call("slack_post", channel=slack.channels["docs"], text="By id"),
        call("slack_post", channel="#ops", text="Three"),
        call("slack_post", channel="#docs) x9", text="Four"),
        call("slack_reply", channel="#docs", thread=hers, text="There"),
        call("slack_update", channel="#docs", message=ours, text="Final"),
        call("slack_react", channel="#docs", message=hers, emoji="eyes"),
        call("slack_upload_file", channel="#docs", name="a.md", content="x"),
        call("slack_direct_message", user="@jane", text="Psst"),
    ]


async def test_without_a_rule_nothing_gets_through(prefect: str, slack: Workspace) -> None:
    """Claude tries every write; people see none of it, and Claude hears which rule to ask for."""
    calls = everything(slack)
    before = slack.state
    done = await ran(slack, *calls)
    assert slack.state == before
    assert done.outputs == []
    told = [result.text for result in done.requests[1].results]
    assert len(told) == len(calls)
    assert "policy allow=['slack_post(channel=#docs)']" in told[0]
    assert told[0] == told[1]  # one spelling
    assert "names no channel" in told[4]
    assert "policy allow=['slack_direct_message(user=@jane)']" in told[-1]


async def test_with_a_rule_exactly_that_gets_through(prefect: str, slack: Workspace) -> None:
    """Two posts in #docs, whatever way the channel is spelt; not a third one, and nothing else."""
    calls = everything(slack)
    done = await ran(slack, *calls, call("slack_post", channel="docs", text="Too many"), allow=("slack_post(channel=#docs) x2",))
    assert slack.texts() == ["Where?", "Draft", "One", "Two"]
    assert slack.texts("ops") == []
    assert [(output.tool, output.target, output.status) for output in done.outputs] == [("slack_post", "#docs", "done")] * 2
    assert "used up" in done.requests[1].results[-1].text


async def test_each_write_gets_through_with_its_rule(prefect: str, slack: Workspace) -> None:
    """All of them, where all are allowed."""
    done = await ran(slack, *everything(slack), allow=("slack_*",))
    assert slack.texts() == ["Where?", "There", "Final", "One", "Two", ""]
    assert slack.texts("ops") == ["Three"]
    assert slack.messages()[0]["reactions"][0]["name"] == "eyes"
    assert [file["name"] for file in slack.state["files"]] == ["a.md"]
    assert slack.texts("jane") == ["Psst"]
    assert [output.status for output in done.outputs] == ["done"] * 8
    assert "is #docs: use that name" in done.requests[1].results[2].text


async def test_a_denied_channel_or_person_has_no_other_name(prefect: str, slack: Workspace) -> None:
    """Neither spelling nor id nor address gets past a rule that denies."""
    posts = [call("slack_post", channel=name, text="x") for name in ("#docs", "docs", " #DOCS ", slack.channels["docs"])]
    notes = [call("slack_direct_message", user=name, text="x") for name in ("@jane", "Jane", "jane@acme.com", slack.user("jane"))]
    before = slack.state
    with ScriptedClaude([say(*posts, *notes), REPORT]) as claude:
        policy = Policy(allow=["slack_*"], deny=["slack_post(channel=#docs)", "slack_direct_message(user=@jane)"])
        done = await run(claude, connectors=[await saved(slack.block())], policy=policy)
    assert [result.is_error for result in done.requests[1].results] == [True] * 8
    assert slack.state == before


async def test_a_run_started_from_outside_needs_a_fixed_target(prefect: str, slack: Workspace) -> None:
    """A rule that leaves the channel, the thread or the person open lets nothing through there."""
    event = Event(id="e1", source="webhook", kind="alert")
    await ran(slack, *everything(slack), allow=("slack_*", "slack_post(channel=#d*)", "slack_reply(channel=#docs)"), event=event)
    assert slack.texts() == ["Where?", "Draft"]
    await ran(slack, *everything(slack), allow=("slack_*", "slack_post(channel=#ops) x1"), event=event)
    assert slack.texts("ops") == ["Three"]


async def test_a_rehearsal_changes_nothing(prefect: str, slack: Workspace) -> None:
    """It keeps exactly what would have been sent."""
    calls = everything(slack)
    before = slack.state
    done = await ran(slack, *calls, allow=("slack_*",), rehearsal=True)
    assert slack.state == before
    assert [output.status for output in done.outputs] == ["captured"] * 8
    requests = [output.request for output in done.outputs]
    assert [request["method"] for request in requests][-4:] == [
        "chat.update",
        "reactions.add",
        "files.completeUploadExternal",
        "chat.postMessage",
    ]
    assert requests[0]["text"] == "One"


async def test_nobody_is_called_and_nothing_hides(prefect: str, slack: Workspace) -> None:
    """Mentions of all and of people, direction marks, escape sequences: they arrive harmless."""
    text = "<!channel> <!everyone|x> <!subteam^S1> <@U0JANE00000> @everyone @here \u202egnp.exe\u202c \x1b[31mred\x1b[0m \x07&lt;!here&gt;"
    await ran(slack, call("slack_post", channel="#docs", text=text), allow=("slack_post",))
    [arrived] = slack.texts()
    assert not set(arrived) & set("<>\u202e\u202c\x1b\x07")
    assert "@everyone" not in arrived
    assert "@here" not in arrived
    assert "red" in arrived


async def test_the_token_shows_up_nowhere(prefect: str, slack: Workspace) -> None:
    """Also when somebody in Slack writes it, and Claude wants to write it on."""
    slack.says("docs", f"our token is {BOT}")
    done = await ran(
        slack, call("slack_history", channel="docs"), call("slack_post", channel="docs", text=f"it is {BOT}"), allow=("slack_post",)
    )
    assert slack.texts() == [f"our token is {BOT}"]
    assert "our token is" in done.requests[1].results[0].text
    results = [entry.data for entry in done.journal if entry.kind == "tool.result"]
    assert BOT not in str(results) + str(done.outputs) + str([result.text for request in done.requests for result in request.results])


def test_the_script_saves_both_blocks(prefect: str, slack: Workspace) -> None:
    """What it saved reads the workspace; without a token it says so."""
    script = [sys.executable, str(Path(__file__).parents[2] / "blocks" / "save_slack.py"), name := f"slack-{uuid4().hex[:8]}"]
    refused = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, "error: set SLACK_TOKEN to the token that the block is to hold\n")
    given = {"SLACK_TOKEN": JANE, "SLACK_BASE_URL": slack.url, "SLACK_CHANNEL": "docs"}
    done = subprocess.run(script, capture_output=True, text=True, check=True, env=os.environ | given)
    assert f"slack/{name}" in done.stdout
    assert JANE not in done.stdout
    with get_client(sync_client=True) as client:  # as the UI reads it
        shown = client.read_block_document_by_name(name, "slack", include_secrets=False).model_dump_json()
    assert "#docs" in shown
    assert JANE not in shown
    loaded = cast(Slack, Slack.load(name))
    assert loaded.default_channel == "#docs"
    assert "#ops" in asyncio.run(answered(loaded, "slack_channels"))
