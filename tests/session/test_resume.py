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
from prefect_routines.store import Store
from prefect_routines.testing import LocalForge, ScriptedClaude, call, say
from prefect_routines.testing.forge import ForgeRepository

from .world import REPORT, Ran, found, is_continued

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
