"""A form as a Slack message: all of it shown, nothing of it acting."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from prefect_routines.notices.slack_message import Click, message
from prefect_routines.notices.told import Told, calls_digest
from prefect_routines.store import Form, Notice, SessionRecord

from .world import asked

LONG = [asked(arguments={"text": "a" * 5000})]
MANY = [asked(n) for n in range(30)]
WIDE = [asked(arguments={f"a{n}": n for n in range(100)})]
ALL = [asked(n, arguments={"text": "a" * 2500}) for n in range(10)]
NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def told(*calls: dict[str, Any], form: dict[str, Any] | None = None, **content: Any) -> Told:
    """A notice about these calls."""
    notice = Notice("ntc-1", "ses-1", "approval", "frm-1", "slack/acme", "waiting", 1, None, NOW, None)
    record = SessionRecord(
        **dict.fromkeys(SessionRecord.__slots__)  # type: ignore[arg-type]
        | {"id": "ses-1", "routine": "docs-sync", "status": "suspended", "created_at": NOW, "data": {}}
    )
    shown = {"calls": list(calls), "questions": [], **content}
    values: dict[str, Any] = {"id": "frm-1", "session_id": "ses-1", "key": "turn-1", "kind": "approval", "flow_run_id": None}
    values |= {"content": shown, "status": "open", "answer": None, "person": None, "via": None}
    values |= {"created_at": NOW, "expires_at": None, "answered_at": None}
    return Told(notice, record, Form(**values | (form or {})), "https://routines.acme.com/sessions/ses-1")


def buttons(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By what they say."""
    return {one["text"]["text"]: one for block in made["blocks"] if block["type"] == "actions" for one in block["elements"]}


def shown(made: dict[str, Any]) -> list[str]:
    """The names of arguments, and their values."""
    return [part["elements"][0]["text"] for block in made["blocks"] if block["type"] == "rich_text" for part in block["elements"]]


def test_a_call_is_shown_whole_with_three_decisions_and_the_session() -> None:
    """A button carries the form, the calls' digest and the decision, and nothing else."""
    one = told(asked())
    made = message(one)
    assert shown(made) == ["channel", "#docs", "text", "The guide is up to date."]
    assert list(buttons(made)) == ["Approve", "Approve all like this", "Deny", "Open the session"]
    assert one.form is not None
    assert Click.read(buttons(made)["Deny"]["value"]) == Click("frm-1", calls_digest(one.form.content), "deny")
    assert buttons(made)["Open the session"]["url"] == "https://routines.acme.com/sessions/ses-1"


def test_nothing_that_others_wrote_stands_where_slack_reads_markup() -> None:
    """No mention, no link, no hidden character, no argument that is none; no secret."""
    evil = "<!channel> <@U123> <https://evil.example|docs> *b* @here \u202etxt\x1b[2J\nchannel: #safe ghp_" + "a1B2" * 9
    call = asked(arguments={"text": evil, "<!here>": "x"}, target="<!everyone>", reason="<https://evil.example|why>", title=evil)
    made = message(told(call))
    for block in made["blocks"]:
        texts = [block["text"]] if block["type"] == "section" else [one["text"] for one in block["elements"] if "text" in one]
        assert all(text["type"] == "plain_text" for text in texts)
        assert block["type"] in ("section", "rich_text", "actions")
    name, text, other, _ = shown(made)
    assert (name, other) == ("text", "<!here>")  # a value's lines stay in its own box
    assert "\nchannel: #safe [secret" in text
    assert "\\u202etxt\\x1b[2J" in text
    assert "<" not in made["text"]
    assert "ghp_" not in json.dumps(made)


@pytest.mark.parametrize("calls", [LONG, MANY, WIDE, ALL])
def test_what_is_not_shown_whole_cannot_be_approved_here(calls: list[dict[str, Any]]) -> None:
    """Denied, yes; the rest is on the session's page. Slack takes the message: 50 blocks, 3000 characters each."""
    made = message(told(*calls))
    assert list(buttons(made)) == ["Deny", "Open the session"]
    assert len(made["blocks"]) <= 50
    assert all(len(text) <= 3000 for text in shown(made))
    assert sum(len(text) for text in shown(made)) <= 9000
    assert "on the session's page" in json.dumps(made)


def test_a_question_or_a_budget_leads_to_the_session() -> None:
    """One click is not enough to answer it."""
    question = {"id": "q1", "question": "Which <!channel>?", "choices": ["a", "b"]}
    assert list(buttons(message(told(asked(), questions=[question])))) == ["Open the session"]
    made = message(told(form={"kind": "budget", "content": {"reached": "20 turns"}}))
    assert list(buttons(made)) == ["Open the session"]
    assert "20 turns" in json.dumps(made)


def test_a_closed_form_says_by_whom_and_has_no_buttons() -> None:
    """But the way to the session."""
    answered = {"status": "answered", "answer": {"decisions": {"toolu_1": {"decision": "deny"}}}, "person": "ada \x1b[1m", "via": "cli"}
    made = message(told(asked(), form=answered))
    assert list(buttons(made)) == ["Open the session"]
    assert "Denied by ada \\\\x1b[1m via cli." in json.dumps(made)
    assert "Nobody answered in time." in json.dumps(message(told(asked(), form={"status": "expired"})))


def test_an_end_is_told_with_its_verdict() -> None:
    """In words that do not act."""
    one = told()
    record = replace(one.record, status="ended", verdict="needs_attention", summary="See <https://evil.example|here> <!channel>")
    made = message(Told(replace(one.notice, kind="finished", subject="run-1"), record, None, one.url))
    assert made["text"] == "docs-sync has finished: needs attention"
    assert made["blocks"][1]["text"] == {"type": "plain_text", "text": record.summary, "emoji": False}
    assert list(buttons(made)) == ["Open the session"]


@pytest.mark.parametrize("value", ["", "x", "[]", '["a", "b"]', '["a", "b", 3]', '{"form": "a"}', "[" * 5000])
def test_a_value_that_is_none_of_ours_is_refused(value: str) -> None:
    """Whatever it is."""
    with pytest.raises((ValueError, RecursionError)):
        Click.read(value)
