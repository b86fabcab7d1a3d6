"""What "approve all like this" allows: never more than the targets that were shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_routines.policy import Policy, Rule
from prefect_routines.session.approval import rule_for_all_like
from prefect_routines.steering.acts import answer
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.tools.tool import Tool

from .test_waiting import ADA, open_form, steered
from .world import REPORT

TOKEN = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"  # looks like one, is none
AWKWARD = [*"*?[]!{}(),=\\-a \n\x1f\x00\u2028", " x2", "{event.number}"]

unhurried = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.lists(st.sampled_from(AWKWARD) | st.characters(), max_size=4).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.frozensets(texts, max_size=3) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
arguments = st.fixed_dictionaries({}, optional={"room": values, "number": values, "text": values})


async def _nothing(context: Any, given: Any) -> str:
    return ""


def tool(*targets: str, main: str | None = "room") -> Tool:
    return Tool(name="tell", description="", schema={}, call=_nothing, main=main, targets=targets, writes=True)


def shown(value: Any) -> list[str]:
    """A value as rules see it; one item alone is that item."""
    items = value if isinstance(value, list | frozenset) else [value]
    return sorted({item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, default=str) for item in items})


def covers(rule: str, made: dict[str, Any]) -> bool:
    return Rule.parse(rule).matches("tell", made, "room", {"number": "7"}, whole=True)


@unhurried
@given(arguments, arguments, st.sampled_from([tool(), tool("room"), tool("room", "number"), tool(main=None)]))
def test_a_rule_covers_the_call_that_was_shown_and_none_with_another_target(
    asked: dict[str, Any], other: dict[str, Any], used: Tool
) -> None:
    """Whatever the targets are made of; where no rule says just that, there is none."""
    rule = rule_for_all_like(used, asked)
    if not rule:
        return
    assert covers(rule, asked)
    ends = used.targets or (used.main,)
    if covers(rule, other):
        assert [shown(other[end]) for end in ends if end] == [shown(asked[end]) for end in ends if end]


@unhurried
@given(texts, texts)
def test_a_text_is_covered_as_it_stands(room: str, other: str) -> None:
    """With all that would be a wildcard, a field of an event or the end of a rule."""
    rule = rule_for_all_like(tool("room"), {"room": room})
    assert rule
    assert covers(rule, {"room": other}) == (room == other)


@pytest.mark.parametrize(
    "asked",
    [{"room": ["a@acme.com", "b@acme.com"]}, {"room": frozenset({"a@acme.com", "b@acme.com"})}, {"room": []}, {"number": 1}, {}],
    ids=["a list", "a set", "an empty list", "one target is missing", "all are missing"],
)
def test_there_is_no_rule_for(asked: dict[str, Any]) -> None:
    """What several targets have in common, or a rule without a target, would cover others, too."""
    assert rule_for_all_like(tool("room"), asked) == ""


@pytest.mark.usefixtures("prefect")
async def test_a_target_that_looks_like_a_secret_is_approved_alone() -> None:
    """What is kept of it is a mark in brackets: as a rule that would be a wildcard."""
    likes: list[str] = []

    async def decide(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        likes.extend(one["like"] for one in form.content["calls"])
        await answer(store, form, uniform_answer(form.content, "deny"), ADA)

    calls = [call("bash", command=f"echo {word}") for word in (TOKEN, "all")]
    with ScriptedClaude([say(*calls), REPORT]) as claude:
        await steered(claude, decide, policy=Policy(ask=["bash"]))
    assert likes == ["", "bash(command=echo all)"]
