"""What holds for every journal: a legal conversation that only grows."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_routines.session.transcript import Transcript

from .journals import Written, agent, compacted, config, entries, result, started, text, thought, use, user
from .world import blocks, stripped

WORDS = st.text(min_size=1, max_size=8)


@st.composite
def journals(draw: st.DrawFn, compactions: bool = False) -> list[Written]:
    """A journal as a session could write it: replies with calls, results in any order, words of people in between."""
    written: list[Written] = [config(), user("Go.", prompt=1)]
    number = 0
    for _ in range(draw(st.integers(0, 8))):
        if compactions and draw(st.integers(0, 5)) == 0:
            written += [compacted(draw(WORDS)), user("Go on from the summary.")]
        ids = [f"call-{number + i}" for i in range(draw(st.integers(0, 4)))]
        number += len(ids)
        content: list[dict[str, Any]] = [thought(draw(WORDS))] if draw(st.booleans()) else []
        content += [text(words) for words in draw(st.lists(WORDS, max_size=2))]
        content += [use(id, value=draw(WORDS)) for id in ids]
        if content and content[-1]["type"] == "thinking":
            content.append(text("so"))
        stop = None if ids else draw(st.sampled_from(["end_turn", "max_tokens", "pause_turn"]))
        written.append(agent(*content, stop=stop if content or stop != "pause_turn" else "end_turn"))
        for id in draw(st.permutations(ids)):
            if draw(st.integers(0, 3)) == 0:
                written.append(user(draw(WORDS)))
            written += [started(id), result(id, draw(WORDS), is_error=draw(st.booleans()))]
        if written[-1][0] == "agent.message" and written[-1][1]["stop_reason"] != "pause_turn":
            written.append(user("Go on."))
        if draw(st.integers(0, 4)) == 0:
            written.append(("session.weather", {}))
    return written


def legal(messages: list[dict[str, Any]]) -> None:
    """Roles alternate; the results of a message are first in it, and answer exactly the calls of the one before, in their order."""
    roles = [message["role"] for message in messages]
    assert all(one != next for one, next in pairwise(roles)), roles
    open_calls: list[str] = []
    for message in messages:
        assert message["content"]
        kinds = [block["type"] == "tool_result" for block in message["content"]]
        assert kinds == sorted(kinds, reverse=True)
        assert [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"] == open_calls
        open_calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
    assert not open_calls


def requests(written: list[Written]) -> list[dict[str, Any]]:
    """The request before each reply, and the one at the end."""
    state, made = Transcript(), []
    for entry in entries(*written):
        if entry.kind == "agent.message":
            made.append(state.request())
        state.apply(entry)
    return [*made, *([state.request()] if not state.open_calls else [])]


@given(journals(compactions=True))
@settings(max_examples=150, deadline=None)
def test_every_request_is_a_legal_conversation(written: list[Written]) -> None:
    """However results and words interleave."""
    for request in requests(written):
        legal(request["messages"])


@given(journals())
@settings(max_examples=150, deadline=None)
def test_each_request_begins_with_the_one_before(written: list[Written]) -> None:
    """Markers aside, what was sent once is sent again, byte for byte, with more behind it."""
    rows = [blocks(request) for request in requests(written)]
    for earlier, later in pairwise(rows):
        assert later[: len(earlier)] == earlier


@given(journals(compactions=True), st.data())
@settings(max_examples=100, deadline=None)
def test_folding_in_two_pieces_is_folding_at_once(written: list[Written], data: st.DataObject) -> None:
    """A process that takes over at any entry builds the very same request."""
    journal = entries(*written)
    at = data.draw(st.integers(0, len(journal)))
    state = Transcript.of(journal[:at])
    for entry in journal[at:]:
        state.apply(entry)
    whole = Transcript.of(journal)
    assert json.dumps(state.request()) == json.dumps(whole.request())
    assert state == whole


@given(journals(compactions=True))
@settings(max_examples=100, deadline=None)
def test_at_most_four_breakpoints_and_none_on_thinking(written: list[Written]) -> None:
    """What the API refuses is never sent."""
    for request in requests(written):
        row = [*request["system"], *(block for message in request["messages"] for block in message["content"])]
        marked = [block for block in row if "cache_control" in block]
        assert 1 <= len(marked) <= 4
        assert not any(block["type"] in ("thinking", "redacted_thinking") for block in marked)
        assert stripped(request["tools"]) == request["tools"]
