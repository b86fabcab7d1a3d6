"""Rules over tool calls."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from prefect_routines.policy import Circumstances, Decision, Policy, Rule, decide, declaration

TOOLS = {"bash": ["command", "timeout"], "push": ["repository"], "slack_post": ["channel", "text"]}
MAIN = {"bash": "command", "push": "repository", "slack_post": "channel"}


def ask(policy: Policy, tool: str, used: dict[str, int] | None = None, *, writes: bool = False, **arguments: Any) -> Decision:
    return decide(policy, tool, arguments, main=MAIN[tool], writes=writes, given=Circumstances(used or {}))


@pytest.mark.parametrize(
    ("text", "tool", "arguments", "count"),
    [
        ("bash", "bash", (), None),
        ("bash x3", "bash", (), 3),
        ("bash(git *)", "bash", ((None, "git *"),), None),
        ("bash(make A=1 B=2)", "bash", ((None, "make A=1 B=2"),), None),
        ("push(repository=docs) x1", "push", (("repository", "docs"),), 1),
        ("slack_post( channel = #docs , text = *release* )", "slack_post", (("channel", "#docs"), ("text", "*release*")), None),
        ("comment(acme/docs, number=7) x1", "comment", ((None, "acme/docs"), ("number", "7")), 1),
        ("bash(echo a, b)", "bash", ((None, "echo a, b"),), None),
        ("  github_*  x12 ", "github_*", (), 12),
        ("bash(echo (a) x2)", "bash", ((None, "echo (a) x2"),), None),
    ],
)
def test_a_rule_is_read(text: str, tool: str, arguments: Any, count: int | None) -> None:
    """`tool`, `tool(glob)`, `tool(name=glob, ...)`, each with a count if need be."""
    rule = Rule.parse(text)
    assert (rule.tool, rule.arguments, rule.count) == (tool, arguments, count)


@pytest.mark.parametrize(
    "text", ["", "push x0", "push x", "push(", "push)", "push(docs) y2", "push docs", "(x)", "push x1 x2", "push x9999999"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    """With the form it should have."""
    with pytest.raises(ValidationError, match="is not a rule; write TOOL"):
        Policy(allow=[text])


def test_deny_before_ask_before_allow() -> None:
    """Whatever the order in which they were written."""
    policy = Policy(allow=["bash(git *)"], ask=["bash(git push *)"], deny=["bash(git push --force*)"])
    assert ask(policy, "bash", command="git log").answer == "allow"
    assert ask(policy, "bash", command="git push origin").answer == "ask"
    assert ask(policy, "bash", command="git push --force").answer == "deny"
    assert ask(policy, "bash", command="ls").answer == "allow"


def test_without_a_rule_writes_are_asked_for() -> None:
    """Work inside the workspace needs none."""
    assert ask(Policy(), "push", writes=True, repository="docs").answer == "ask"
    assert ask(Policy(), "bash", command="rm -rf .").answer == "allow"


def test_a_count_is_used_up() -> None:
    """After that many calls the rule allows no more, and the reason names it; another rule may."""
    policy = Policy(allow=["push(repository=docs) x2"])
    assert ask(policy, "push", {"push(repository=docs) x2": 1}, writes=True, repository="docs").answer == "allow"
    spent = ask(policy, "push", {"push(repository=docs) x2": 2}, writes=True, repository="docs")
    assert (spent.answer, spent.reason) == ("ask", "rule 'push(repository=docs) x2' is used up")
    both = Policy(allow=["push(repository=docs) x2", "push x9"])
    assert ask(both, "push", {"push(repository=docs) x2": 2}, writes=True, repository="docs").rule == Rule.parse("push x9")


def test_a_count_limits_work_in_the_workspace_too() -> None:
    """A tool that needs no rule is limited when one says so."""
    assert ask(Policy(allow=["bash x1"]), "bash", {"bash x1": 1}, command="ls").answer == "ask"


@pytest.mark.parametrize(
    "channel",
    [
        "#docs) x9",
        "#docs, text=*",
        "#docs ",
        " #docs",
        "#DOCS",
        "#docs\n",
        "#docs\n#docs",
        "#docs)",
        "slack_post(channel=#docs)",
        "*",
        "#doc?",
    ],
)
def test_only_parsed_arguments_count(channel: str) -> None:
    """Nothing that Claude writes into an argument can pass for the rule's own text."""
    policy = Policy(allow=["slack_post(channel=#docs) x1"])
    assert ask(policy, "slack_post", writes=True, channel=channel, text="hi").answer == "ask"
    assert ask(policy, "slack_post", writes=True, channel="#docs", text=channel).answer == "allow"


@given(st.text(max_size=30))
def test_a_rule_for_one_value_matches_that_value_only(value: str) -> None:
    """Whatever the value is."""
    decision = ask(Policy(allow=["slack_post(channel=#docs) x1"]), "slack_post", writes=True, channel=value, text=value)
    assert (decision.answer == "allow") == (value == "#docs")


@given(st.text(max_size=30), st.text(max_size=30))
@example("*", "docs")
@example("d[o]cs", "docs")
@example("a,b", "axb")
def test_the_rule_that_a_refusal_suggests_allows_no_other_call(value: str, other: str) -> None:
    """An author who copies it must not open more than the call at hand: a repository called `*` stays one repository."""
    rule = declaration("push", {"repository": value}, ["repository"])
    parsed = Rule.parse(rule)
    assert parsed.tool == "push"
    assert parsed.count is None
    if parsed.matches("push", {"repository": other}, "repository"):
        assert other == value


@pytest.mark.parametrize("value", ["docs", "acme/docs", "*", "do[c]s", "docs) x9", "a=b", "#docs, text=x", "a,b"])
def test_the_rule_that_a_refusal_suggests_allows_the_call(value: str) -> None:
    """It can be copied as it stands."""
    assert Rule.parse(declaration("push", {"repository": value}, ["repository"])).matches("push", {"repository": value}, ["repository"])


def test_arguments_that_are_no_text_are_compared_as_json() -> None:
    """Numbers, lists and truth values have one spelling."""
    assert ask(Policy(deny=["bash(timeout=600)"]), "bash", command="x", timeout=600).answer == "deny"
    assert ask(Policy(deny=["bash(timeout=true)"]), "bash", command="x", timeout=True).answer == "deny"
    assert ask(Policy(deny=["bash(timeout=null)"]), "bash", command="x", timeout=None).answer == "deny"


def test_rules_that_can_never_match_are_found() -> None:
    """A slip in a tool's or an argument's name; a glob over names may match nothing else."""
    policy = Policy(allow=["pusch", "push(repo=docs)", "slack_*", "github_*"], deny=["bash(cmd=rm *)", "bash(rm *)"])
    assert policy.unknown(TOOLS) == ["bash(cmd=rm *)", "pusch", "push(repo=docs)", "github_*"]


def test_arguments_of_any_shape_are_matched_as_their_json() -> None:
    """A list of models, such as the comments of a review."""

    class Comment(BaseModel):
        path: str

    rule = Rule.parse("review(comments=*secret.md*)")
    assert rule.matches("review", {"comments": [Comment(path="docs/secret.md")]}, None)
    assert not rule.matches("review", {"comments": [Comment(path="docs/a.md")]}, None)
    assert not rule.matches("review", {"comments": None}, None)


def test_a_rule_may_name_what_the_event_names() -> None:
    """Only trusted fields, each as itself: a value never becomes a wildcard."""
    rule = Rule.parse("comment(repository={event.repository}, number={event.number}) x1")
    event = {"repository": "acme/do*s", "number": "7"}
    assert rule.matches("comment", {"repository": "acme/do*s", "number": 7}, None, event)
    assert not rule.matches("comment", {"repository": "acme/docs", "number": 7}, None, event)
    assert not rule.matches("comment", {"repository": "acme/do*s", "number": 77}, None, event)
    assert not rule.matches("comment", {"repository": "acme/do*s", "number": 7}, None, {"number": "7"})
    with pytest.raises(ValueError, match="an event has no trusted field 'title'; there is repository, number"):
        Rule.parse("comment(text={event.title})")


@pytest.mark.parametrize(
    ("rule", "open_ends"),
    [
        ("comment", ["repository", "number"]),
        ("comment(repository=acme/docs)", ["number"]),
        ("comment(acme/docs, number=7)", []),
        ("comment(acme/docs)", ["number"]),
        ("comment(repository=acme/*, number=7)", ["repository"]),
        ("comment(repository=acme/doc?, number=[7])", ["repository"]),
        ("comment(repository=acme/[dD]ocs, number=[!7])", ["repository", "number"]),
        ("comment(repository=acme/docs, number={event.number})", []),
        ("comment(repository=a[*]b, number=7)", []),
    ],
)
def test_what_a_rule_leaves_to_claude(rule: str, open_ends: list[str]) -> None:
    """A part of the target that is not named, or named with a wildcard; one that stands for itself in brackets is none."""
    assert Rule.parse(rule).open_ends(["repository", "number"], "repository") == open_ends


def test_a_run_from_outside_needs_the_whole_target() -> None:
    """Else the rule covers the call, but does not allow it."""
    arguments = {"repository": "acme/docs", "number": 7}

    def ask_for(rule: str, *, from_outside: bool) -> Decision:
        given = Circumstances(from_outside=from_outside)
        targets = ["repository", "number"]
        return decide(Policy(allow=[rule]), "comment", arguments, main="repository", writes=True, targets=targets, given=given)

    assert ask_for("comment(repository=acme/docs)", from_outside=False).answer == "allow"
    refused = ask_for("comment(repository=acme/docs)", from_outside=True)
    assert refused.answer == "ask"
    assert "leaves number open" in refused.reason
    assert ask_for("comment(repository=acme/docs, number=7)", from_outside=True).answer == "allow"
    assert declaration("comment", arguments, ["repository", "number"]) == "comment(repository=acme/docs, number=7)"


def test_of_a_list_all_items_must_be_allowed_and_one_is_enough_to_deny() -> None:
    """Nobody is written to because somebody else may be."""

    def ask_for(policy: Policy, *to: str) -> str:
        return decide(policy, "send", {"to": list(to)}, main="to", writes=True).answer

    allowed = Policy(allow=["send(to=*@acme.com)"])
    assert ask_for(allowed, "a@acme.com", "b@acme.com") == "allow"
    assert ask_for(allowed, "press@news.com", "a@acme.com") == "ask"
    assert ask_for(allowed) == "ask"
    denied = Policy(allow=["send"], deny=["send(to=boss@acme.com)"])
    assert ask_for(denied, "a@acme.com", "boss@acme.com") == "deny"
    assert ask_for(denied, "a@acme.com") == "allow"
    assert declaration("send", {"to": ["a@acme.com"]}, ["to"]) == "send(to=a@acme.com)"
    assert declaration("send", {"to": ["a@acme.com", "b@acme.com"]}, ["to"]) == "send(to=*@acme.com)"


def test_a_comma_in_a_named_glob_is_said() -> None:
    """Such a rule would match nothing, and a `deny` with it deny nothing."""
    for rule in ("slack_post(text=*hi, all*)", "email_send(to=a@acme.com, b@acme.com)"):
        with pytest.raises(ValueError, match=r"a comma within a glob is written \[,\]"):
            Rule.parse(rule)
    assert Rule.parse("slack_post(text=*hi[,] all*)").matches("slack_post", {"text": "oh hi, all of you"}, None)
