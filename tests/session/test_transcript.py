"""The fold from journal entries to the next request."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from prefect_routines.session.transcript import COMPACTION_BETA

from .journals import agent, compacted, config, entries, fold, result, started, text, thought, use, user, verdict
from .world import stripped

BASE = (config(), user("Go.", prompt=1))


def last(written: Any) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = stripped(written.request()["messages"][-1]["content"])
    return content


def marks(value: Any, path: str = "") -> list[str]:
    """Paths of all cache markers."""
    if isinstance(value, dict):
        here = [path] if "cache_control" in value else []
        return here + [mark for name, item in value.items() for mark in marks(item, f"{path}.{name}")]
    return [mark for i, item in enumerate(value) for mark in marks(item, f"{path}.{i}")] if isinstance(value, list) else []


def test_results_stand_in_claudes_order() -> None:
    """Whatever order calls end in, their results are in the order in which Claude made them, in one message."""
    state = fold(*BASE, agent(use("a"), use("b"), use("c")), result("c", "3"), result("a", "1"), result("b", "2", is_error=True))
    assert last(state) == [
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {"type": "tool_result", "tool_use_id": "b", "content": "2", "is_error": True},
        {"type": "tool_result", "tool_use_id": "c", "content": "3"},
    ]


def test_a_call_without_a_result_stays_open() -> None:
    """No request is due while a call is open; the open ones are told in Claude's order."""
    state = fold(*BASE, agent(use("a"), use("b"), use("c")), started("b"), result("b"))
    assert [call.id for call in state.open_calls] == ["a", "c"]
    assert [call.started for call in state.calls] == [False, True, False]
    assert state.messages[-1]["role"] == "assistant"


def test_a_second_result_of_a_call_changes_nothing() -> None:
    """The first result counts: it may have been sent already."""
    before = fold(*BASE, agent(use("a")), result("a", "first"))
    after = fold(*BASE, agent(use("a")), result("a", "first"), result("a", "second"))
    assert before.request() == after.request()


def test_a_result_of_an_unknown_call_is_passed_over() -> None:
    """A result that belongs to nothing never reaches Claude, who would refuse it."""
    assert fold(*BASE, agent(use("a")), result("zzz")).open_calls[0].id == "a"


def test_words_that_come_while_tools_run_stand_behind_the_results() -> None:
    """Results come first in the message, then what people wrote meanwhile, in its order."""
    state = fold(*BASE, agent(use("a"), use("b")), result("b"), user("Faster!"), user("And mind the tests."), result("a"))
    kinds = [(block["type"], block.get("text") or block.get("tool_use_id")) for block in last(state)]
    assert kinds == [("tool_result", "a"), ("tool_result", "b"), ("text", "Faster!"), ("text", "And mind the tests.")]
    assert [message["role"] for message in state.request()["messages"]] == ["user", "assistant", "user"]


def test_words_that_were_said_are_not_said_again() -> None:
    """What was held until the results of one turn is not with those of the next."""
    state = fold(*BASE, agent(use("a")), user("Faster!"), result("a"), agent(use("b")), result("b"))
    assert [block["type"] for block in last(state)] == ["tool_result"]


def test_words_after_the_results_join_their_message() -> None:
    """Two user messages in a row are one."""
    state = fold(*BASE, agent(use("a")), result("a"), user("Faster!"))
    assert [block["type"] for block in last(state)] == ["tool_result", "text"]


def test_a_call_of_a_reply_that_was_cut_off_is_marked() -> None:
    """Only `tool_use` as the stop reason means that the calls are whole."""
    assert [call.cut_off for call in fold(*BASE, agent(use("a"), stop="max_tokens")).calls] == [True]
    assert [call.cut_off for call in fold(*BASE, agent(use("a"))).calls] == [False]


def test_a_paused_turn_goes_on_in_the_same_message() -> None:
    """After `pause_turn` the conversation is sent as it stands; what comes then is the rest of that turn."""
    paused = fold(*BASE, agent(thought(), text("I begin"), stop="pause_turn"))
    assert paused.waits_for_reply
    assert paused.request()["messages"][-1]["role"] == "assistant"
    assert paused.unanswered_ends == 0
    state = fold(*BASE, agent(thought(), text("I begin"), stop="pause_turn"), agent(text("and end"), use("a")), result("a"))
    assert [message["role"] for message in state.request()["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in state.request()["messages"][1]["content"]] == ["thinking", "text", "text", "tool_use"]


def test_an_empty_reply_adds_no_message() -> None:
    """The API refuses an assistant message without content."""
    state = fold(*BASE, agent())
    assert [message["role"] for message in state.request()["messages"]] == ["user"]
    assert state.unanswered_ends == 1


def test_ends_without_a_report_are_counted_and_forgotten() -> None:
    """Only ends in a row count: a call, or a new piece of work, begins anew."""
    assert fold(*BASE, agent(text("Done?")), user("Go on."), agent(text("Done!"))).unanswered_ends == 2
    assert fold(*BASE, agent(text("Done?")), user("Go on."), agent(use("a"))).unanswered_ends == 0
    assert fold(*BASE, agent(text("Done?")), user("Next.", prompt=2)).unanswered_ends == 0


def test_a_summary_takes_the_place_of_what_it_summarises() -> None:
    """It comes first, under its beta, and the conversation grows behind it."""
    state = fold(*BASE, agent(thought(), use("a")), result("a"), compacted(), user("Go on."))
    request = state.request()
    assert request["betas"] == [COMPACTION_BETA]
    assert [block["type"] for message in request["messages"] for block in message["content"]] == ["compaction", "text"]
    assert [message["role"] for message in request["messages"]] == ["assistant", "user"]
    assert state.context_tokens == 0
    assert state.turns == 1


def test_a_compaction_asks_for_the_summary_of_the_very_same_prefix() -> None:
    """The summary is asked for with the unchanged conversation: all of it comes from the cache."""
    state = fold(*BASE, agent(use("a")), result("a"))
    asked = state.compaction_request()
    assert asked["compaction"] == {"type": "summarize"}
    assert asked["betas"] == [COMPACTION_BETA]
    assert {name: asked[name] for name in state.request()} == state.request()


def test_no_beta_without_a_summary() -> None:
    """An ordinary conversation needs none."""
    assert "betas" not in fold(*BASE).request()


def test_an_attempt_that_was_lost_is_paid_as_reserved() -> None:
    """The process died while a reply was under way: it may have been billed, so it counts."""
    lost = ("turn.start", {"turn": 1, "attempt": 1, "reserved": 0.75})
    again = ("turn.start", {"turn": 1, "attempt": 2, "reserved": 0.25})
    assert fold(*BASE, lost).dollars == 0
    assert fold(*BASE, lost).reserved == 0.75
    state = fold(*BASE, lost, again, agent(use("a"), dollars=0.1))
    assert state.dollars == pytest.approx(0.85)
    assert state.reserved == 0
    assert state.attempts == 2


def test_a_failed_attempt_is_paid_as_billed() -> None:
    """An attempt that broke off costs what it had used, not what was reserved for it."""
    start = ("turn.start", {"turn": 1, "attempt": 1, "reserved": 0.75})
    failed = ("turn.failed", {"turn": 1, "attempt": 1, "error": "cut", "dollars": 0.125})
    state = fold(*BASE, start, failed)
    assert (state.dollars, state.reserved) == (0.125, 0)


def test_tokens_and_dollars_add_up_over_turns_and_summaries() -> None:
    """All four kinds of tokens count; those of the last turn tell how full the window is."""
    state = fold(*BASE, agent(use("a")), result("a"), agent(text("x")), compacted())
    assert state.total_tokens == 300
    assert state.dollars == pytest.approx(1.25)
    assert fold(*BASE, agent(use("a"))).context_tokens == 100


def test_an_unknown_kind_is_passed_over() -> None:
    """An older version reads a newer journal."""
    odd = ("session.weather", {"sky": "blue"})
    assert fold(*BASE, odd, agent(use("a")), odd, result("a")).request() == fold(*BASE, agent(use("a")), result("a")).request()


def test_time_between_two_processes_does_not_count() -> None:
    """Wall time is the time the session ran: a night between a crash and the retry is none of it."""
    state = fold(*BASE, agent(text("x")), ("session.status_running", {}), user("y"), seconds=10)
    assert state.seconds == 30


def test_counts_of_rules_are_those_of_calls_that_began() -> None:
    """A call that is started again after a crash does not count twice."""
    state = fold(*BASE, agent(use("a"), use("b")), started("a", "bash x2"), started("a", "bash x2"), started("b", "bash x2"))
    assert state.used == {"bash x2": 2}


def test_a_new_piece_of_work_takes_the_verdict_away_and_keeps_the_old_one() -> None:
    """A follow-up in the same session ends with a verdict of its own."""
    state = fold(*BASE, agent(use("a")), result("a"), verdict(), user("More.", prompt=2))
    assert state.verdict is None
    assert [told["verdict"] for told in state.verdicts] == ["done"]
    assert state.prompts == 2


def test_pushes_and_checks_are_read_from_results() -> None:
    """What left the workspace is told by the results of the calls that sent it."""
    state = fold(*BASE, agent(use("a")), result("a", pushed=[{"sha": "1"}], checks=[{"passed": True}]))
    assert (state.pushes, state.checks) == ([{"sha": "1"}], [{"passed": True}])


def test_breakpoints() -> None:
    """End of system, end of the former request, end of this one: three, never on thinking."""
    state = fold(*BASE, agent(thought(), use("a"), use("b")), result("a"), result("b"), agent(use("c")), result("c"))
    assert marks(state.request()) == [".system.0", ".messages.2.content.1", ".messages.4.content.0"]
    assert marks(fold(*BASE).request()) == [".system.0", ".messages.0.content.0"]


def test_no_breakpoint_on_thinking() -> None:
    """A paused turn may end in thinking: the marker goes to the block before."""
    state = fold(*BASE, agent(text("I begin"), thought(), stop="pause_turn"))
    assert marks(state.request()) == [".system.0", ".messages.0.content.0", ".messages.1.content.0"]
    only = fold(*BASE, agent(thought(), stop="pause_turn"))
    assert marks(only.request()) == [".system.0", ".messages.0.content.0"]


def test_breakpoints_are_not_stored() -> None:
    """A marker sits on a copy: neither the state nor the journal ever holds one."""
    journal = entries(*BASE, agent(use("a")), result("a"), agent(use("b")), result("b"))
    before = copy.deepcopy(journal)
    state = fold()
    for entry in journal:
        state.apply(entry)
        if state.config:
            state.request()
            state.compaction_request()
    assert journal == before
    assert marks(state.messages) == []
    assert marks(state.config) == []


def test_a_request_does_not_change_what_was_kept() -> None:
    """The same state gives the same request, byte for byte, and keys stay in the order in which they came."""
    given = {"zebra": 1.0, "apple": [1, None], "mango": {"b": 1, "a": 2}}
    state = fold(*BASE, agent(thought(), use("a", **given)), result("a"))
    first, second = json.dumps(state.request()), json.dumps(state.request())
    assert first == second
    assert json.dumps(given) in first
    assert json.dumps(state.request()["tools"]) == json.dumps(config()[1]["tools"])
    assert state.request()["messages"][1]["content"][0] == thought()


def test_effort_is_sent_only_when_it_is_set() -> None:
    """The model's own default is not the same as a value."""
    assert "output_config" not in fold(*BASE).request()
    assert fold(("session.config", {**config()[1], "effort": "low"})).request()["output_config"] == {"effort": "low"}
