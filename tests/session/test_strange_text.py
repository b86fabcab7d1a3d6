"""Text that is no text, or that holds a secret, on its way through a session: it goes on, and shows nothing it should not."""

from __future__ import annotations

import subprocess
import sys
import time
from uuid import UUID

import pytest

from prefect_routines.errors import SettingsError
from prefect_routines.session import inbound
from prefect_routines.store import Store
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.tools.tool import tool

from .world import NOTHING, artifacts, run

pytestmark = pytest.mark.usefixtures("prefect")

HALF = "half \ud83d a pair, \0 and \x1b[31mred"


@tool
def look_up(fail: bool = False) -> str:
    """Look something up in a system that keeps strange bytes."""
    if fail:
        raise ValueError(HALF)
    return HALF


@pytest.mark.parametrize("fail", [False, True])
async def test_a_tool_may_return_what_is_no_text(fail: bool) -> None:
    """Else the next request could not be written, and the session would be lost for ever: the journal has it by then."""
    with ScriptedClaude([say(call("look_up", fail=fail)), NOTHING]) as claude:
        ran = await run(claude, tools=[look_up])
    assert ran.state.is_completed(), ran.message
    assert "half \ufffd a pair, \ufffd and" in claude.requests[-1].result("look_up").text


async def test_a_prompt_may_hold_what_is_no_text() -> None:
    """It is repeated when the conversation is summarised, so it is cleaned once and for all."""
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, prompt=HALF)
    assert ran.state.is_completed(), ran.message


async def test_the_final_state_shows_no_hidden_characters() -> None:
    """Terminals would obey them, and a NUL cannot be stored by Prefect's own PostgreSQL: the run would never end."""
    script = [say(call("report", verdict="needs_attention", summary="a\0b \x1b]8;;http://evil\x07 \u202e end"))]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert ran.message.isprintable()
    assert ran.message.startswith("needs_attention: a")


async def test_a_report_is_kept_without_secrets() -> None:
    """Neither the journal, the record, the state nor a page says what Claude should not have known; pages escape `-` and `_`."""
    key = "sk-ant-scripted_key"
    script = [
        say(f"The key is {key}.", call("bash", command="true")),
        say(call("report", verdict="needs_attention", summary=f"I saw {key}.", evidence=[key], links=[f"http://x/{key}"])),
    ]
    with ScriptedClaude(script, api_key=key) as claude:
        ran = await run(claude)
    assert "[secret]" in ran.message
    [verdict] = ran.entries("session.verdict")
    assert key not in str(verdict)
    assert key not in str(ran.outcome)
    async with await Store.open() as store:
        [record] = await store.sessions(flow_run_id=str(ran.run.id))
    assert record.summary == "I saw [secret]."
    for page in (await artifacts(ran.run.id)).values():
        assert key not in page.replace("\\", "")


async def test_a_reply_that_cannot_be_understood_is_not_quoted_at_length() -> None:
    """The SDK's error holds the whole input of the call; the state's message and the log want one line."""
    whole = '{"command": "' + "x" * 100_000 + ' \\ud83d"}'
    from prefect_routines.testing.script import Call

    with ScriptedClaude([say(Call("bash", whole))]) as claude:
        ran = await run(claude, deadlines={"first_reply": 1})
    assert "malformed" in ran.message
    assert len(ran.message) < 1000


async def test_an_event_of_the_future_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id of version 7 names a time; whoever makes one up must not hold up a run until then."""
    monkeypatch.setattr(inbound, "SETTLED", 0.5)
    began = time.monotonic()
    async with await Store.open() as store:
        with pytest.raises(SettingsError, match="is kept"):
            await inbound.load_event(store, str(UUID("ff000000-0000-7000-8000-000000000000")))
    assert time.monotonic() - began < 10


def test_a_tool_that_never_returns_does_not_hold_up_the_end_of_the_process() -> None:
    """Past its deadline the session went on without it; its thread must not be waited for either."""
    code = """
import asyncio, threading
from prefect_routines.tools.tool import tool

@tool
def wait() -> str:
    "Wait for ever."
    threading.Event().wait()

async def main():
    try:
        async with asyncio.timeout(0.2):
            await wait(None, {})
    except TimeoutError:
        print("went on")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("went on\n", 0)
