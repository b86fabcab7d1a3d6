"""Steering from the command line: `send`, `interrupt`, `suspend`, `cancel`, `approve`, `deny`, `waiting`, over a real store."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prefect_routines.cli.deciding import Draft
from prefect_routines.store import Store

from .sessions_by_hand import Home, a_call, verdict, waits

SESSION = "ses-aa11"
Command = Callable[..., tuple[int, str]]


def waiting_session(home: Home, **form: Any) -> str:
    """A session that waits, and is held by nobody; the id of its form."""

    async def make() -> str:
        async with home.at_work(SESSION) as (store, lease):
            made = await waits(store, lease, **form)
            await store.update_session(lease, status="suspended")
            await store.release(lease)
            return made.id

    return asyncio.run(make())


def form_of(home: Home, form_id: str) -> Any:
    """The form as it is now."""
    return home.do(lambda store: store.form(form_id))


def running(home: Home, work: Callable[[Store], Awaitable[None]] | None = None) -> None:
    """A session at work, held by this very process."""

    async def make() -> None:
        async with home.at_work(SESSION, flow_run_id=None) as (store, _):
            if work is not None:
                await work(store)

    asyncio.run(make())


def test_a_session_that_waits_for_a_person_cannot_be_interrupted(routines: Command, home: Home) -> None:
    """The interrupt would hit the call that the answer is about to start; what was to be said is said all the same."""
    waiting_session(home, calls=[a_call()])
    status, said = routines("interrupt", SESSION)
    assert status == 2
    assert "waits for a person" in said
    assert routines("send", SESSION, "Think of the index.", "--interrupt")[0] == 0
    [act] = home.do(lambda store: store.acts(SESSION))
    assert (act.kind, act.text) == ("message", "Think of the index.")


def test_what_is_sent_waits_for_the_session(routines: Command, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, interrupts and suspensions arrive in order, with who sent them; an unambiguous beginning of the id is enough."""
    running(home)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"from a pipe \x1b[2J")))
    for arguments in (
        ["send", "ses-aa", "There is a pull request already."],
        ["send", SESSION, "Stop.", "--interrupt", "--as", "ada"],
        ["send", SESSION, "-"],
        ["interrupt", SESSION],
        ["suspend", SESSION],
    ):
        status, said = routines(*arguments)
        assert status == 0, said
        assert SESSION in said
    acts = home.do(lambda store: store.acts(SESSION))
    assert [(act.kind, act.text) for act in acts] == [
        ("message", "There is a pull request already."),
        ("interrupt", "Stop."),
        ("message", "from a pipe \x1b[2J"),
        ("interrupt", ""),
        ("suspend", ""),
    ]
    assert acts[1].person == "ada"
    assert "@" in acts[0].person
    assert {act.via for act in acts} == {"cli"}


def test_a_message_that_cannot_be_sent_is_one_line(routines: Command, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, of 1 MB, to nobody, to a session that is over: status 2, one line that says what to do, nothing is kept."""
    running(home)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x" * 1_000_000)))
    for arguments, words in (
        (["send", SESSION, " \n "], "empty"),
        (["send", SESSION, "-"], "characters"),
        (["send", "ses-zz", "hi"], "there is none"),
        (["send", SESSION, "hi", "--as", " "], "--as"),
        (["approve", SESSION], "waits for nothing"),
        (["watch", "ses-zz"], "there is none"),
    ):
        status, said = routines(*arguments)
        assert (status, said.count("\n")) == (2, 1), said
        assert words in said
    assert home.do(lambda store: store.acts(SESSION)) == []

    async def end(store: Store) -> None:
        lease = await store.acquire("ses-over")
        await store.append(lease, [verdict()])
        await store.update_session(lease, status="ended", verdict="done")

    home.do(lambda store: store.create_session(session_id="ses-over", routine="docs-sync", flow_run_id=None))
    home.do(end)
    for command in (["send", "ses-over", "hi"], ["interrupt", "ses-over"], ["cancel", "ses-over"], ["approve", "ses-over"]):
        status, said = routines(*command)
        assert (status, said.count("\n")) == (2, 1), said
        assert "routines resume ses-over" in said


def test_approve_answers_the_form_as_it_was_shown(routines: Command, home: Home, tmp_path: Path) -> None:
    """The call, its target and the decision are told; the answer is bound to the call, names the person, and counts once."""
    form = waiting_session(home, calls=[a_call(7, body="hi \u202e there")])
    status, said = routines("approve", SESSION, "--as", "ada")
    assert status == 0, said
    assert "github_comment: acme/docs#7" in said
    assert "ada (cli) approved" in said
    answered = form_of(home, form)
    assert answered.answer["decisions"]["toolu_7"]["decision"] == "approve"
    assert answered.answer["decisions"]["toolu_7"]["hash"] == a_call(7, body="hi \u202e there")["hash"]
    for name in (SESSION, form):
        status, said = routines("deny", name, "--reason", "no")
        assert (status, said.count("\n")) in ((2, 1), (2, 2)), said
        assert "ada has answered it already" in said


def test_several_calls_get_one_answer(routines: Command, home: Home, tmp_path: Path) -> None:
    """Without --call all get the same decision; with it the others are denied, never approved; changed arguments are for one call."""
    form = waiting_session(home, calls=[a_call(1), a_call(2), a_call(3)])
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({"repository": "acme/docs", "number": 2, "body": "Better."}))
    (tmp_path / "list.json").write_text("[1]")
    for arguments, words in (
        (["deny", SESSION, "--call", "2"], "3 calls"),
        (["approve", SESSION, "--call", "4"], "3 calls"),
        (["approve", SESSION, "--arguments", str(changed)], "--call"),
        (["approve", SESSION, "--call", "2", "--arguments", str(tmp_path / "list.json")], "JSON object"),
        (["approve", SESSION, "--call", "2", "--arguments", str(tmp_path / "none.json")], "No such file"),
        (["approve", SESSION, "--raise", "turns=20"], "--raise"),
        (["approve", SESSION, "--raise", "beers=20"], "turns=20"),
        (["approve", SESSION, "--reply", "yes"], "no questions"),
    ):
        status, said = routines(*arguments)
        assert status == 2, said
        assert words in said.splitlines()[-1], said
    assert form_of(home, form).status == "open"
    assert routines("approve", SESSION, "--call", "2", "--arguments", str(changed))[0] == 0
    decisions = form_of(home, form).answer["decisions"]
    assert [decisions[f"toolu_{number}"]["decision"] for number in (1, 2, 3)] == ["deny", "approve", "deny"]
    assert decisions["toolu_2"]["arguments"]["body"] == "Better."


def test_budgets_questions_and_suspensions_are_answered_too(routines: Command, home: Home) -> None:
    """A budget is raised, a question gets one of its choices, a suspended session goes on with a message or ends."""
    budget = waiting_session(home, kind="budget", reached="the budget of 3 turns is used up")
    status, said = routines("approve", budget)
    assert (status, "raise" in said) == (2, True)
    status, said = routines("approve", budget, "--raise", "turns=20", "--raise", "dollars=2.5")
    assert status == 0, said
    assert form_of(home, budget).answer["raise"] == {"turns": 20, "dollars": 2.5}

    question = waiting_session(home, kind="question", questions=[{"id": "q1", "question": "Which base?", "choices": ["main", "next"]}])
    assert "Which base?" in routines("approve", question)[1]
    assert "none of the choices" in routines("approve", question, "--reply", "other")[1]
    assert "cancel" in routines("deny", question)[1]
    assert routines("approve", question, "--reply", "next")[0] == 0
    assert form_of(home, question).answer["replies"] == {"q1": "next"}

    pause = waiting_session(home, kind="pause", person="ada")
    assert routines("approve", pause, "--message", "Only the tutorial, please.")[0] == 0
    assert form_of(home, pause).answer == {
        "action": "continue", "message": "Only the tutorial, please.", "decisions": {}, "replies": {},
    }  # fmt: skip
    ended = waiting_session(home, kind="pause", person="ada")
    assert "stopped the session" in routines("deny", ended)[1]


def test_a_form_that_takes_no_answer_says_why(routines: Command, home: Home) -> None:
    """Its time is over, it is gone, only others may answer."""
    late = waiting_session(home, calls=[a_call()], seconds=-1)
    assert "time for an answer is over" in routines("approve", late)[1]
    assert "no such form" in routines("approve", "frm-nothing")[1]
    named = waiting_session(home, calls=[a_call()], people=["grace"])
    assert "only grace may answer" in routines("approve", named)[1]
    assert "waits for several" in routines("approve", SESSION)[1]


def test_waiting_lists_who_waits_for_what(routines: Command, home: Home) -> None:
    """Session, what for, since when, until when; nothing is told in one line."""
    assert routines("waiting") == (0, "Nothing waits for a person.\n")
    form = waiting_session(home, calls=[a_call(7)])
    status, said = routines("waiting")
    assert status == 0
    for words in (SESSION, "docs-sync", "approval", "s ago", "min left", f"{form[:12]}  github_comment: acme/docs#7"):
        assert words in said, said
    [told] = json.loads(routines("waiting", "--json")[1])
    assert (told["session_id"], told["kind"], told["routine"]) == (SESSION, "approval", "docs-sync")
    said = routines("sessions", "--waiting")[1]
    assert "waits for approval" in said
    assert json.loads(routines("sessions", "--json")[1])[0]["waits_for"] == "approval"


def test_sessions_that_found_nothing_to_do_can_be_hidden(routines: Command, home: Home) -> None:
    """So that the real ones are not buried."""

    async def fill(store: Store) -> None:
        for name, word in (("ses-a", "nothing_to_do"), ("ses-b", "done")):
            await store.create_session(session_id=name, routine="docs-sync", flow_run_id=None)
            lease = await store.acquire(name)
            await store.update_session(lease, status="ended", verdict=word)
            await store.release(lease)

    home.do(fill)
    said = routines("sessions", "--hide-nothing-to-do", "-n", "1")[1]
    assert "ses-b" in said
    assert "ses-a" not in said


def test_cancel_ends_a_session_whose_process_is_gone(routines: Command, home: Home) -> None:
    """It ends here and now: its form is withdrawn, and nothing can be sent to it any more."""
    form = waiting_session(home, calls=[a_call()])
    status, said = routines("cancel", SESSION, "--as", "ada")
    assert status == 0, said
    assert "is cancelled" in said
    record = home.do(lambda store: store.session(SESSION))
    assert record is not None
    assert (record.status, record.verdict) == ("ended", None)
    assert form_of(home, form).status == "withdrawn"


def test_cancel_waits_for_the_end_of_a_session_at_work(routines: Command, home: Home) -> None:
    """A process is told by way of the store; one that does not end in time is said so, with status 1."""
    running(home)  # this very process holds it
    status, said = routines("cancel", SESSION, "--wait", "0.3")
    assert status == 1
    assert "has not ended within 0.3 s" in said
    assert [act.kind for act in home.do(lambda store: store.acts(SESSION))] == ["cancel"]


def test_an_answer_is_typed_line_by_line() -> None:
    """Each call and question in turn; what is no decision is a message to Claude and decides nothing."""
    question = {"id": "q1", "question": "Which base?", "choices": ["main", "next"]}
    draft = Draft("approval", {"calls": [a_call(1), a_call(2)], "questions": [question]})
    assert not draft.take("a word before I decide")
    assert draft.take("a")
    assert "2/3" in draft.hint
    assert draft.take("d not this one")
    assert draft.answer is None
    assert draft.take("2")
    assert draft.answer is not None
    assert [one["decision"] for one in draft.answer["decisions"].values()] == ["approve", "deny"]
    assert draft.answer["decisions"]["toolu_2"]["reason"] == "not this one"
    assert draft.answer["replies"] == {"q1": "next"}
    every = Draft("approval", {"calls": [a_call(1), a_call(2)], "questions": []})
    assert every.take("A")
    assert every.answer is not None
    assert {one["decision"] for one in every.answer["decisions"].values()} == {"approve"}
    budget = Draft("budget", {})
    assert budget.take("+20 turns, +2.5 dollars")
    assert budget.answer == {"action": "continue", "raise": {"turns": 20, "dollars": 2.5}}
