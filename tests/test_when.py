"""Conditions on the fields of a payload."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_routines.when import MATCH_LENGTH, When, evaluate, segments, select

PAYLOAD: dict[str, Any] = {
    "action": "labeled",
    "number": 7,
    "ratio": 2.0,
    "draft": False,
    "assignee": None,
    "title": "Fix the\ndocs of Größe",
    "empty": [],
    "base": {"ref": "main", "labels": [{"name": "bug"}, {"name": "Docs"}]},
    "topics": ["docs", "sdk"],
    "commonLabels": {"app.kubernetes.io/name": "shop", "*": "star", "0": "zero"},
    "files": {"a.md": {"lines": 1}, "b.md": {"lines": 2}},
}


def holds(path: str, **operator: Any) -> bool:
    return evaluate([When(path=path, **operator)], PAYLOAD) is None


@pytest.mark.parametrize(
    ("path", "operator", "expected"),
    [
        ("action", {"equals": "labeled"}, True),
        ("action", {"equals": "Labeled"}, False),
        ("action", {"not_equals": "labeled"}, False),
        ("action", {"not_equals": "opened"}, True),
        ("nowhere", {"equals": ""}, False),
        ("nowhere", {"not_equals": "opened"}, True),
        ("nowhere", {"is_not_one_of": ["a"]}, True),
        ("nowhere", {"is_one_of": ["a"]}, False),
        ("number", {"equals": 7}, True),
        ("number", {"equals": "7"}, True),
        ("number", {"equals": 7.0}, True),
        ("number", {"equals": "07"}, False),
        ("number", {"is_one_of": [6, "7"]}, True),
        ("ratio", {"equals": 2}, True),
        ("draft", {"equals": False}, True),
        ("draft", {"equals": "false"}, True),
        ("draft", {"equals": 0}, False),
        ("draft", {"not_equals": True}, True),
        ("assignee", {"equals": "null"}, True),
        ("assignee", {"present": False}, True),
        ("assignee", {"present": True}, False),
        ("draft", {"present": True}, True),
        ("empty", {"present": True}, True),
        ("empty.*", {"present": True}, False),
        ("nowhere.at.all", {"present": False}, True),
        ("title", {"contains": "docs"}, True),
        ("title", {"contains": "Docs"}, False),
        ("title", {"starts_with": "Fix"}, True),
        ("title", {"starts_with": "fix"}, False),
        ("number", {"starts_with": "7"}, True),
        ("title", {"matches": ".*docs.*"}, True),
        ("title", {"matches": "docs"}, False),
        ("title", {"matches": "(?i)fix.*grÖße"}, True),
        ("base.ref", {"is_one_of": ["main", "release"]}, True),
        ("base.ref", {"is_not_one_of": ["main", "release"]}, False),
        ("base", {"equals": "main"}, False),
        ("base", {"not_equals": "main"}, True),
        ("base.labels.*.name", {"equals": "Docs"}, True),
        ("base.labels.*.name", {"equals": "docs"}, False),
        ("base.labels.*.name", {"not_equals": "Docs"}, False),
        ("base.labels.*.name", {"is_not_one_of": ["wontfix", "bug"]}, False),
        ("base.labels.*.name", {"is_not_one_of": ["wontfix"]}, True),
        ("base.labels.1.name", {"equals": "Docs"}, True),
        ("base.labels.2.name", {"present": True}, False),
        ("base.labels.-1.name", {"present": True}, False),
        ("topics", {"equals": "sdk"}, True),
        ("topics", {"contains": "oc"}, True),
        ("topics", {"not_equals": "sdk"}, False),
        ("topics.0", {"equals": "docs"}, True),
        ('commonLabels."app.kubernetes.io/name"', {"equals": "shop"}, True),
        ('commonLabels."*"', {"equals": "star"}, True),
        ("commonLabels.0", {"equals": "zero"}, True),
        ("files.*.lines", {"equals": 2}, True),
        ('files."b.md".lines', {"equals": 1}, False),
    ],
)
def test_operators(path: str, operator: dict[str, Any], expected: bool) -> None:
    """Each operator on text, numbers, truth, null, lists and what is absent."""
    assert holds(path, **operator) is expected


def test_all_conditions_must_hold_and_the_first_that_fails_is_named() -> None:
    """With what was found there, short and on one line."""
    conditions = [When(path="number", equals=7), When(path="base.labels.*.name", equals="needs-docs"), When(path="draft", equals=True)]
    assert evaluate(conditions[:1], PAYLOAD) is None
    assert evaluate(conditions, PAYLOAD) == "base.labels.*.name equals 'needs-docs': it is 'bug' and 'Docs'"
    assert evaluate([], PAYLOAD) is None
    assert evaluate([When(path="base.sha", present=True)], PAYLOAD) == "base.sha is present: it is absent"
    assert evaluate([When(path="number", is_one_of=[1, "a"])], PAYLOAD) == "number is one of '1', 'a': it is 7"


def test_what_a_stranger_wrote_is_shown_harmlessly() -> None:
    """No line ends, no escapes, no lone surrogates, not much of it."""
    said = evaluate([When(path="t.*", equals="x")], {"t": ["a\n\x1b[2J\ud83d\0" + "b" * 9000] * 50})
    assert said is not None
    assert said.isprintable()
    assert len(said) < 450
    assert said.endswith("and 47 more")


@pytest.mark.parametrize("payload", [None, "text", 7, [], [1], {}])
def test_a_payload_may_be_anything(payload: Any) -> None:
    """A path leads nowhere in it."""
    assert evaluate([When(path="a.b", present=True)], payload) is not None
    assert evaluate([When(path="a.*.0", not_equals="x")], payload) is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "needs exactly one of equals"),
        ({"equals": "a", "present": True}, "needs exactly one of equals"),
        ({"equals": "a", "path": "a..b"}, "is not a path"),
        ({"equals": "a", "path": "a."}, "is not a path"),
        ({"equals": "a", "path": ".a"}, "is not a path"),
        ({"equals": "a", "path": 'a."b'}, "is not a path"),
        ({"equals": "a", "path": 'a"b"'}, "is not a path"),
        ({"equals": "a", "path": "a b"}, "is not a path"),
        ({"equals": "a", "path": ""}, "at least 1 character"),
        ({"matches": "("}, "is not a regular expression: missing )"),
        ({"matches": "a{2}{3}**"}, "is not a regular expression"),
        ({"matches": "x" * 1001}, "at most 1000 characters"),
        ({"is_one_of": []}, "at least 1 item"),
        ({"contains": ""}, "at least 1 character"),
        ({"equal": "a"}, "Extra inputs are not permitted"),
    ],
)
def test_a_condition_that_cannot_work_is_refused_when_it_is_written(fields: dict[str, Any], says: str) -> None:
    """Not when the first delivery arrives."""
    with pytest.raises(ValidationError) as caught:
        When(**({"path": "a"} | fields))
    assert says in str(caught.value)


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+$b", "(a|a?)+b"])
def test_a_slow_pattern_is_given_up(pattern: str) -> None:
    """A stranger's text must not stop the gateway; several patterns share the time."""
    start = time.perf_counter()
    said = evaluate([When(path="t.*", matches=pattern), When(path="t.*", matches=pattern)], {"t": ["a" * 50_000] * 20})
    assert said is not None
    assert time.perf_counter() - start < 5
    assert "was given up; write the pattern more simply" in said or "it is 'aaa" in said


def test_a_pattern_is_not_tried_on_an_overlong_text() -> None:
    """Then the condition does not hold."""
    assert evaluate([When(path="t", matches=".*")], {"t": "a" * MATCH_LENGTH}) is None
    assert "was not tried on it" in str(evaluate([When(path="t", matches=".*")], {"t": "a" * (MATCH_LENGTH + 1)}))


def test_a_quoted_name_may_hold_anything() -> None:
    """Also a quote and a backslash."""
    assert segments(r'a."b\"c\\d. e".*.0') == ["a", r'b"c\d. e', None, "0"]
    assert select('"a b"', {"a b": 1}) == [1]


@given(st.text(max_size=60))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """And every path can be followed in every payload."""
    try:
        names = segments(text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017  # both outcomes are right
        return
    assert names
    select(text, PAYLOAD)


@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda name: name != "*"), min_size=1, max_size=4))
def test_every_key_can_be_reached(names: list[str]) -> None:
    """In quotes, with backslash before a quote and a backslash."""
    quoted = ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in names]
    value: Any = "found"
    for name in reversed(names):
        value = {name: value}
    assert select(".".join(quoted), value) == ["found"]
