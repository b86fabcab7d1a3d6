"""Resuming when the workspace is lost, kept elsewhere, damaged or too large: said plainly, and the conversation is never lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import get_current_settings

from prefect_routines.config import config
from prefect_routines.testing import LocalForge, ScriptedClaude, call, say
from prefect_routines.testing.forge import ForgeRepository

from .test_resume import LOOK, WORK, go, session_of
from .world import REPORT

pytestmark = pytest.mark.usefixtures("prefect")

LIST = say(call("bash", command="ls /workspace /workspace/docs"))


@pytest.fixture
def docs(tmp_path: Path) -> ForgeRepository:
    return LocalForge(tmp_path).repository("docs", files={"README.md": "# Docs\n"})


@pytest.fixture
def storage() -> Path:
    """The directory of Prefect's result storage."""
    return Path(get_current_settings().results.local_storage_path)


def parts(storage: Path, session: str) -> list[Path]:
    """The files of the session's snapshots."""
    return sorted((storage / "routines/snapshots" / session).rglob("0*"))


@pytest.mark.parametrize("damage", ["gone", "changed"])
async def test_a_workspace_that_is_lost_is_said_and_the_transcript_goes_on_alone(docs: ForgeRepository, storage: Path, damage: str) -> None:
    """Without --transcript-only it is refused in one line before Claude is asked; with it Claude is told."""
    with ScriptedClaude([say(call("bash", command=WORK)), REPORT, LIST, REPORT]) as claude:
        session = await session_of(await go(claude, repositories=[docs.url]))
        shutil.rmtree(config().workspaces / session)
        [part] = parts(storage, session)
        if damage == "gone":
            part.unlink()
        else:
            part.write_bytes(part.read_bytes() + b"x")
        resume: dict[str, Any] = {"session": session, "message": "Go on."}
        refused = await go(claude, repositories=[docs.url], resume=resume)
        assert f"session {session}: its workspace is neither on this machine nor in the result storage" in refused.message
        assert "--transcript-only" in refused.message
        assert "\n" not in refused.message
        assert len(claude.requests) == 2
        alone = await go(claude, repositories=[docs.url], resume={**resume, "transcript_only": True})
    assert alone.state.is_completed(), alone.message
    told = claude.requests[3].result("bash").text
    assert "README.md" in told
    assert "the workspace was lost and has been cloned anew; what was not pushed is gone" in told


async def test_a_directory_that_another_machine_has_overtaken_is_not_taken_for_the_workspace(docs: ForgeRepository) -> None:
    """The session went on elsewhere meanwhile: what is restored is that, not what was left here."""
    steps = ["cd docs && echo one > one", "cd docs && ls && echo two > two", "cd docs && ls"]
    script = [turn for step in steps for turn in (say(call("bash", command=step)), REPORT)]
    with ScriptedClaude(script) as claude:
        session = await session_of(await go(claude, repositories=[docs.url]))
        here, aside = config().workspaces / session, config().workspaces / "aside"
        here.rename(aside)
        await go(claude, repositories=[docs.url], resume={"session": session, "message": "Go on."})
        shutil.rmtree(here)
        aside.rename(here)
        await go(claude, repositories=[docs.url], resume={"session": session, "message": "Go on."})
    assert claude.requests[5].result("bash").text.split("\n[")[0].split() == ["README.md", "one", "two"]


async def test_a_workspace_too_large_for_a_snapshot_is_said_and_changes_nothing_else(docs: ForgeRepository) -> None:
    """The run ends as it ended; elsewhere the reason is told."""
    fill = say(call("bash", command="head -c 3000000 /dev/urandom > /workspace/big"))
    with ScriptedClaude([fill, REPORT]) as claude:
        ran = await go(claude, repositories=[docs.url], limits={"snapshot_mb": 1})
        assert ran.state.is_completed(), ran.message
        [why] = ran.entries("workspace.not_kept")
        assert "larger than 1 MB compressed; raise limits.snapshot_mb" in why["reason"]
        session = await session_of(ran)
        shutil.rmtree(config().workspaces / session)
        refused = await go(claude, repositories=[docs.url], resume={"session": session, "message": "Go on."})
    assert "no snapshot was made: it is larger than 1 MB" in refused.message


async def test_a_session_that_has_changed_nothing_needs_no_snapshot(docs: ForgeRepository, storage: Path) -> None:
    """Its clones are made anew, as they were; the directory may be gone."""
    with ScriptedClaude([say(call("read", path="docs/README.md")), REPORT, LIST, REPORT]) as claude:
        first = await go(claude, repositories=[docs.url])
        session = await session_of(first)
        assert first.transcript.snapshot is None
        assert parts(storage, session) == []
        docs.commit({"later.md": "later"})
        shutil.rmtree(config().workspaces / session)
        second = await go(claude, repositories=[docs.url], resume={"session": session, "message": "Go on."})
    assert second.state.is_completed(), second.message
    assert "later.md" not in claude.requests[3].result("bash").text


async def test_what_a_snapshot_costs(docs: ForgeRepository) -> None:
    """A tenth of a second or so at the end of a run that has changed something small; a second snapshot only after a further change."""
    with ScriptedClaude([say(call("bash", command=WORK)), REPORT, REPORT, say(call("bash", command=LOOK)), REPORT]) as claude:
        first = await go(claude, repositories=[docs.url])
        [kept] = first.entries("workspace.snapshot")
        assert kept["seconds"] < 2
        assert kept["bytes"] < 100_000
        resume = {"session": await session_of(first), "message": "Go on."}
        second = await go(claude, repositories=[docs.url], resume=resume)
        assert second.entries("workspace.snapshot") == [kept]
        third = await go(claude, repositories=[docs.url], resume=resume)
    assert len(third.entries("workspace.snapshot")) == 2
