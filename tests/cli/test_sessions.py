"""`routines sessions` and `routines show`, over a store that was filled by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from prefect_routines.store import Spend, Store

from .terminal import Terminal

NASTY = "\x1b[2J\ud800 [red]x[/red]"


async def _fill(home: Path) -> None:
    """Three sessions: one ended, one whose process died, one that is being run."""
    async with await Store.open(f"sqlite+aiosqlite:///{home}/store.db") as store:
        for name in ("ses-aa11", "ses-aa22", "ses-bb33"):
            await store.create_session(session_id=name, routine="docs-sync" if name < "ses-b" else "triage", flow_run_id=f"run-{name}")
        lease = await store.acquire("ses-aa11")
        tokens = {"input": 10, "cache_read": 0, "cache_write": 0, "output": 5}
        entries = [
            ("session.status_running", {"flow_run": "run-ses-aa11", "again": False}),
            ("user.message", {"prompt": 1, "content": [{"type": "text", "text": f"Do it. {NASTY}"}]}),
            ("turn.start", {"turn": 1, "attempt": 1, "reserved": 0.5}),
            (
                "agent.message",
                {
                    "turn": 1,
                    "content": [
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "bash", "input": {"command": NASTY}},
                    ],
                    "stop_reason": "tool_use",
                    "tokens": tokens,
                    "dollars": 0.25,
                },
            ),
            ("tool.start", {"id": "t1", "name": "bash", "rule": None}),
            (
                "tool.result",
                {
                    "id": "t1",
                    "name": "bash",
                    "content": "\n".join(f"line {number}" for number in range(100)),
                    "is_error": False,
                    "note": "",
                    "seconds": 1.5,
                    "data": {},
                },
            ),
            ("session.verdict", {"verdict": "done", "summary": "All done.", "evidence": ["It runs."], "links": []}),
        ]
        spend = Spend(turn=1, attempt=1, model="claude-opus-5-5", settled=True, dollars=0.25, input_tokens=10, output_tokens=5)
        await store.append(lease, entries, spend=[spend])
        output, _ = await store.begin_output(
            lease, tool_use_id="t2", tool="push", target="docs", rule="push x1", request={"branch": "claude/x"}, max_per_rule=1
        )
        await store.finish_output(lease, output.id, status="done", result={"sha": "abc"})
        await store.update_session(lease, status="ended", verdict="done", turns=1, tokens=15, dollars=0.25)
        await store.release(lease)
        dead = await store.acquire("ses-aa22")
        await store.update_session(dead, status="running")
        await store.release(dead)  # a lease that has run out looks the same
        living = await store.acquire("ses-bb33", lease_seconds=3600)
        await store.update_session(living, status="running")
        await store.append(living, [entries[3]], spend=[spend])


@pytest.fixture
def filled(terminal: Terminal) -> Terminal:
    """A terminal whose store has three sessions."""
    home = terminal.directory / "home"
    home.mkdir()
    asyncio.run(_fill(home))
    return terminal


def test_sessions_are_listed_with_what_they_came_to(filled: Terminal) -> None:
    """One line each, the newest first; a session whose process died is stopped, one at work shows its cost so far."""
    done = filled.run("sessions")
    assert done.status == 0, done.err
    head, *lines = [line.split() for line in done.out.splitlines()]
    assert head == ["SESSION", "ROUTINE", "STARTED", "STATUS", "VERDICT", "TURNS", "COST"]
    rows = {line[0]: (line[1], *line[-4:]) for line in lines}
    assert list(rows) == ["ses-bb33", "ses-aa22", "ses-aa11"]
    assert rows["ses-aa11"] == ("docs-sync", "ended", "done", "1", "$0.2500")
    assert rows["ses-aa22"] == ("docs-sync", "stopped", "-", "0", "$0.0000")
    assert rows["ses-bb33"] == ("triage", "running", "-", "1", "$0.2500")


def test_sessions_can_be_chosen(filled: Terminal) -> None:
    """By routine, by verdict, and how many; as a JSON list for programs."""
    chosen = {
        ("--routine", "triage"): ["ses-bb33"],
        ("--verdict", "done"): ["ses-aa11"],
        ("--limit", "2"): ["ses-bb33", "ses-aa22"],
        ("--routine", "nobody"): [],
    }
    for options, wanted in chosen.items():
        assert [session["id"] for session in json.loads(filled.run("sessions", "--json", *options).out)] == wanted
    assert "No such sessions." in filled.run("sessions", "--routine", "nobody").out
    assert "there is done, nothing_to_do, needs_attention, failed" in filled.run("sessions", "--verdict", "good").err


def test_a_session_can_be_read(filled: Terminal) -> None:
    """The conversation with its calls, long results shortened; verdict, cost and what was written to the outside."""
    done = filled.run("show", "ses-aa1")
    assert done.status == 0, done.err
    left_out = "[... 88 lines; --full shows them ...]"
    for line in ("Session ses-aa11", "routine  docs-sync", "I look.", "line 0\n", "line 99\n", left_out, "It runs."):
        assert line in done.out
    assert "line 50\n" not in done.out
    assert "push: docs · done · rule push x1" in done.out
    assert "\\x1b[2J\\ud800 [red]x[/red]" in done.out
    assert "\x1b" not in done.out
    assert "line 50\n" in filled.run("show", "ses-aa11", "--full").out


def test_a_session_as_data(filled: Terminal) -> None:
    """All of it is one JSON object in ASCII, whatever is in it; also found by the id of its flow run."""
    done = filled.run("show", "run-ses-aa11", "--json")
    assert done.out.isascii()
    data = json.loads(done.out)
    assert set(data) == {"session", "entries", "outputs", "spend"}
    assert data["session"]["id"] == "ses-aa11"
    assert set(data["session"]) == {
        "id", "routine", "name", "status", "verdict", "summary", "turns", "tokens", "dollars", "flow_run_id", "deployment_id",
        "event_id", "created_at", "started_at", "ended_at", "workspace", "data",
    }  # fmt: skip
    assert data["entries"][3]["data"]["content"][1]["input"]["command"] == NASTY
    assert data["entries"][0]["at"].endswith("+00:00")
    assert data["outputs"][0]["result"] == {"sha": "abc"}
    assert data["spend"]["dollars"] == 0.25


def test_a_session_that_is_not_clear_is_asked_for(filled: Terminal) -> None:
    """A beginning that fits several, or none, is refused in one line."""
    several, none = filled.run("show", "ses-aa"), filled.run("show", "ses-zz")
    assert (several.status, none.status) == (2, 2)
    assert "could be several" in several.err
    assert "there is none" in none.err


def test_no_sessions_yet(terminal: Terminal) -> None:
    """An empty store says how to make a session."""
    assert "routines run flows/ask.py" in terminal.run("sessions").out
