"""Forking a session: a new one with the conversation up to some point, its counts and its workspace; the old one stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.errors import SettingsError
from prefect_routines.events import Event
from prefect_routines.policy import Policy
from prefect_routines.routines import Routine
from prefect_routines.session.forking import cut
from prefect_routines.settings import Settings
from prefect_routines.store import Entry, Store
from prefect_routines.testing import LocalForge, ScriptedClaude, call, say
from prefect_routines.testing.forge import ForgeRepository
from prefect_routines.tools.tool import tool

from .journals import START, agent, config, result, started, use, user
from .test_resume import go, session_of
from .world import REPORT, found, is_continued


def entries(*written: tuple[str, dict[str, Any]]) -> list[Entry]:
    return [Entry(number, kind, data, START) for number, (kind, data) in enumerate(written, 1)]


JOURNAL = entries(
    ("session.status_running", {"flow_run": "1"}),
    config(),
    user("Go.", prompt=1),
    ("turn.start", {"turn": 1}),
    agent(use("a"), use("b")),
    started("a"),
    result("a"),
    result("b"),
    ("turn.start", {"turn": 2}),
    agent({"type": "text", "text": "Done."}),
)


@pytest.mark.parametrize(("at", "found"), [(3, 3), (4, 3), (5, 3), (6, 3), (7, 3), (8, 8), (9, 8), (10, 10), (None, 10)])
def test_a_fork_begins_where_the_conversation_is_whole(at: int | None, found: int) -> None:
    """Never with a turn under way or a call without its result: the last point before is taken."""
    assert cut(JOURNAL, at) == found


@pytest.mark.parametrize(("at", "said"), [(2, "nothing was said that a new session could go on from"), (11, "beyond its end")])
def test_a_point_without_a_conversation_is_refused(at: int, said: str) -> None:
    """One line says why."""
    with pytest.raises(SettingsError, match=said):
        cut(JOURNAL, at)


@pytest.fixture
def docs(tmp_path: Path) -> ForgeRepository:
    return LocalForge(tmp_path).repository("docs", files={"README.md": "# Docs\n"})


def commit(name: str) -> Any:
    return call("bash", command=f"cd /workspace/docs && echo {name} > {name} && git add {name} && git commit -qm 'Add {name}'")


async def test_a_fork_pushes_to_a_branch_of_its_own_what_its_parent_began(prefect: str, docs: ForgeRepository) -> None:
    """Pushed and unpushed commits of the parent are in its workspace; counts of the policy go on, what was spent does not."""
    push = say(call("push", repository="docs"))
    script = [say(commit("a")), push, say(commit("b")), say(call("report", verdict="needs_attention", summary="Half.")), say(commit("c"))]
    script += [push, REPORT]
    fields: dict[str, Any] = {"repositories": [docs.url], "policy": Policy(allow=["push x2"])}
    with ScriptedClaude(script) as claude:
        parent = await go(claude, **fields)
        session = await session_of(parent)
        forked = await go(claude, **fields, resume={"session": session, "message": "Finish it otherwise.", "fork": True, "by": "ada"})
        again = await go(claude, **fields, resume={"session": session, "message": "Finish it.", "fork": True})
    assert forked.state.is_completed(), forked.message
    new = await session_of(forked)
    assert new not in (session, await session_of(again))
    async with await Store.open() as store:
        assert await store.entries(session) == parent.journal
        record = await store.session(session)
        assert record is not None
        assert (record.verdict, record.flow_run_id) == ("needs_attention", str(parent.run.id))
    assert is_continued(claude.requests[:7])
    first, second, _ = docs.pushes
    assert second.old is None
    assert second.branch != first.branch
    assert docs.log(second.branch) == ["Add c", "Add b", "Add a", "Commit 1"]
    [told] = forked.entries("session.forked")
    assert (told["from"], told["at"], told["by"]) == (session, parent.journal[-1].seq, "ada")
    assert told["dollars"] == pytest.approx(parent.transcript.dollars)
    assert forked.spent.dollars == pytest.approx(forked.transcript.dollars, abs=1e-5)
    assert forked.outcome.turns == 3
    assert [push["branch"] for push in forked.transcript.pushes] == [second.branch]


async def test_what_a_rule_allows_once_stays_used_in_a_fork(prefect: str) -> None:
    """For writes outside and for other calls, when they were made before the fork; those made after it do not count."""
    sent: list[str] = []

    @tool(writes=True, target="team")
    def page(team: str) -> str:
        """Page.

        Args:
            team: Whom.
        """
        sent.append(team)
        return "paged"

    def work() -> str:
        return "Go."

    policy = Policy(allow=["page(team=web) x1", "page(team=db) x1"])
    flow = Routine(work, settings=Settings(policy=policy), tools=[page], name="pager")
    web, db = say(call("page", team="web")), say(call("page", team="db"))
    with ScriptedClaude([web, db, REPORT]) as claude:
        os.environ.update(claude.environment())
        state: Any = await flow(return_state=True)
        parent = await found(state, claude)
    at = next(entry.seq for entry in parent.journal if entry.kind == "tool.result")
    both = say(call("page", team="web"), call("page", team="db"))
    with ScriptedClaude([both] * 2 + [say(call("report", verdict="needs_attention", summary="x"))], strict=False) as claude:
        os.environ.update(claude.environment())
        resume = {"session": await session_of(parent), "message": "Page both.", "fork": True, "at": at}
        state = await flow(settings={"resume": resume}, return_state=True)
        forked = await found(state, claude)
    assert sent == ["web", "db", "db"]
    first, second = claude.requests[1].results
    assert "used up" in first.text
    assert second.text == "paged"
    assert [output.link for output in forked.outputs] == [None] * len(forked.outputs)


@pytest.mark.parametrize("fork", [False, True])
async def test_a_session_that_a_stranger_began_stays_under_the_rules_for_it(prefect: str, fork: bool) -> None:
    """The event is the session's, whoever resumes it: a rule must fix the whole target still."""

    @tool(writes=True, target="team")
    def page(team: str) -> str:
        """Page.

        Args:
            team: Whom.
        """
        raise AssertionError(team)

    def work(event: Event | None = None) -> str:
        return "Go."

    flow = Routine(work, settings=Settings(policy=Policy(allow=["page"])), tools=[page], name="pager")
    outside = Event(id="e1", source="github", kind="issues", repository="acme/docs", number=7)
    script = [REPORT, say(call("page", team="web")), say(call("report", verdict="needs_attention", summary="x"))]
    with ScriptedClaude(script) as claude:
        os.environ.update(claude.environment())
        parent = await found(await flow(event=outside, return_state=True), claude)  # type: ignore[misc,call-overload]
        resume = {"session": await session_of(parent), "message": "Page web.", "fork": fork}
        await found(await flow(settings={"resume": resume}, return_state=True), claude)  # type: ignore[misc,call-overload]
    assert "Refused" in claude.requests[2].result("page").text
