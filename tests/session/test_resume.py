"""Going on with an earlier session: the conversation, the workspace, the counts - here, on another machine, or as a fork."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.config import config
from prefect_routines.routines import Routine
from prefect_routines.settings import Settings
from prefect_routines.steering.acts import Person, cancel
from prefect_routines.store import SessionRecord, Store
from prefect_routines.testing import LocalForge, ScriptedClaude, call, fail, say
from prefect_routines.testing.forge import ForgeRepository
from waiting import until_async

from .test_waiting import steered
from .world import NOTHING, REPORT, Ran, found, is_continued

pytestmark = pytest.mark.usefixtures("prefect")

WORK = "cd docs && echo committed > a && git add a && git commit -qm 'Add a' && echo changed >> README.md && echo new > untracked"
LOOK = "cd /workspace/docs && git log --format=%s && git status --porcelain && cat untracked"
SEEN = ["Add a", "Commit 1", " M README.md", "?? untracked", "new"]


async def go(claude: ScriptedClaude, *, resume: dict[str, Any] | None = None, name: str = "work", **fields: Any) -> Ran:
    """Run the routine, or resume a session of it."""
    os.environ.update(claude.environment())

    def work() -> str:
        return "Do the work."

    flow = Routine(work, settings=Settings(**fields), name=name)
    state: Any = await flow(settings={"resume": resume} if resume else None, return_state=True)
    return await found(state, claude)


async def session_of(ran: Ran) -> str:
    """The id of its session."""
    async with await Store.open() as store:
        [record] = await store.sessions(flow_run_id=str(ran.run.id))
    return record.id


@pytest.fixture
def docs(tmp_path: Path) -> ForgeRepository:
    return LocalForge(tmp_path).repository("docs", files={"README.md": "# Docs\n"})


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
async def test_a_session_goes_on_with_all_that_was_in_its_workspace(docs: ForgeRepository, elsewhere: bool) -> None:
    """Commits, changes and files that git does not know; from the directory, or from the snapshot when that is gone."""
    with ScriptedClaude([say(call("bash", command=WORK)), REPORT, say(call("bash", command=LOOK)), REPORT]) as claude:
        first = await go(claude, repositories=[docs.url])
        session = await session_of(first)
        if elsewhere:
            shutil.rmtree(config().workspaces / session)
        second = await go(claude, repositories=[docs.url], resume={"session": session, "message": "Go on, please.", "by": "ada"})
    assert second.state.is_completed(), second.message
    assert second.run.id != first.run.id
    assert await session_of(second) == session
    assert second.journal[: len(first.journal)] == first.journal
    assert is_continued(second.requests)
    assert second.requests[2].text == "Go on, please."
    told = second.requests[3].result("bash").text
    assert [line for line in told.splitlines() if not line.startswith("[")] == SEEN
    assert ("restored from a snapshot" in told) == elsewhere
    assert [entry.get("by") for entry in second.entries("user.message")] == [None, "ada"]
    assert len(second.transcript.verdicts) == 2


async def test_of_two_resumes_one_wins_and_the_other_delivers_nothing(docs: ForgeRepository) -> None:
    """One that was asked for before another run went on with the session ends at once, also when it comes to its turn later."""
    with ScriptedClaude([REPORT, REPORT, REPORT]) as claude:
        first = await go(claude)
        resume = {"session": await session_of(first), "seen": first.journal[-1].seq}
        winner = await go(claude, resume={**resume, "message": "Add one thing."})
        loser = await go(claude, resume={**resume, "message": "Add another thing."})
        assert loser.state.is_failed()
        assert f"was resumed by flow run {winner.run.id} in the meantime, and this message was not delivered" in loser.message
        assert len(claude.requests) == 2
        third = await go(claude, resume={**resume, "seen": winner.journal[-1].seq, "message": "Add a third thing."})
    assert third.state.is_completed(), third.message
    assert [request.text for request in claude.requests] == ["Do the work.", "Add one thing.", "Add a third thing."]


async def test_a_session_that_is_being_run_cannot_be_resumed() -> None:
    """The lease decides; the other run ends in one line and the session is left alone."""
    with ScriptedClaude([REPORT]) as claude:
        first = await go(claude)
        session = await session_of(first)
        async with await Store.open() as store, store.keep(await store.acquire(session)):
            refused = await go(claude, resume={"session": session, "message": "Go on."})
            assert await store.entries(session) == first.journal
    assert refused.state.is_failed()
    assert f"session {session} is being run by process" in refused.message


@pytest.mark.parametrize(("resume", "said"), [
    ({"session": "ses-none"}, "there is no such session"),
    ({"session": "SESSION"}, "is one of work, not of other"),
])  # fmt: skip
async def test_only_a_session_of_the_routine_can_be_resumed(resume: dict[str, Any], said: str) -> None:
    """Another one's has other rules."""
    with ScriptedClaude([REPORT]) as claude:
        session = resume["session"].replace("SESSION", await session_of(await go(claude)))
        refused = await go(claude, name="other", resume={"session": session, "message": "Go on."})
    assert said in refused.message
    assert len(claude.requests) == 1


async def test_calls_that_were_left_open_are_answered_and_not_made(docs: ForgeRepository) -> None:
    """A run that failed in the middle of a turn: the follow-up comes before anything else is done."""
    script = [say(call("bash", command="touch /workspace/first")), fail(400, "odd")]
    with ScriptedClaude(script) as claude:
        failed = await go(claude, repositories=[docs.url])
    session = await session_of(failed)
    assert failed.state.is_failed()
    assert failed.transcript.verdict is None
    asked = {"content": [{"type": "tool_use", "id": f"toolu_{n}", "name": "bash", "input": {"command": f"touch {n}"}} for n in "12"]}
    reply = {"turn": 2, "stop_reason": "tool_use", "dollars": 0.0, "tokens": {}, "model": "claude-opus-5-5", "id": "msg_1", **asked}
    async with await Store.open() as store, store.keep(await store.acquire(session)) as lease:  # as a killed process leaves it
        await store.append(lease, [("agent.message", reply), ("tool.start", {"id": "toolu_1", "name": "bash", "rule": None})])
        form = {"key": "turn-2-approval-1", "kind": "approval", "content": {"calls": [], "questions": []}}
        await store.append(lease, [("form.opened", {"form": "frm-left-open", **form})])
        await store.open_form(lease, "frm-left-open", **form, flow_run_id=str(failed.run.id), seconds=600)
    with ScriptedClaude([NOTHING] * 3, strict=False) as claude:
        resumed = await go(claude, repositories=[docs.url], resume={"session": session, "message": "Stop, please."})
    [request] = claude.requests
    assert [result.text.split(":")[0] for result in request.results] == ["Interrupted", "Not run"]
    assert request.text == "Stop, please."
    assert resumed.state.is_completed(), resumed.message
    assert not (config().workspaces / session / "workspace" / "2").exists()
    async with await Store.open() as store:
        assert [form.status for form in await store.forms(session_id=session)] == ["withdrawn"]


async def test_a_cancelled_session_goes_on(docs: ForgeRepository) -> None:
    """Its process was gone within seconds, with a snapshot; a wish to cancel that came too late stops nothing that is asked for since."""

    async def stop(store: Store, session: SessionRecord) -> None:
        async def at_work() -> bool:
            return any(entry.kind == "tool.start" for entry in await store.entries(session.id))

        await until_async(at_work)
        await cancel(store, session, Person("ada", "cli"))

    script = [say(call("bash", command=f"{WORK}; sleep 300")), say(call("bash", command=LOOK)), REPORT]
    with ScriptedClaude(script) as claude:
        first = await steered(claude, stop, tools=[], repositories=[docs.url])
        assert first.state.is_cancelled()
        assert first.transcript.snapshot is not None
        session = await session_of(first)
        shutil.rmtree(config().workspaces / session)
        async with await Store.open() as store:
            await store.send_act(session, "cancel", person="ada", via="cli")
        second = await go(claude, repositories=[docs.url], resume={"session": session, "message": "Go on after all."})
    assert second.state.is_completed(), second.message
    assert [line for line in claude.requests[2].result("bash").text.splitlines() if not line.startswith("[")] == SEEN
    async with await Store.open() as store:
        record = await store.session(session)
    assert record is not None
    assert (record.status, record.verdict, record.data["cancelled"]) == ("ended", "done", False)
