"""A session that waits for a person: it is kept with its workspace, and goes on where that was never seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prefect_routines.config import config
from prefect_routines.deploying.resuming import resume
from prefect_routines.errors import SettingsError
from prefect_routines.testing import ScriptedClaude, call, say

from .asking_world import REPORT, World
from .place import ENDED, Place


@pytest.mark.timeout(300)
def test_a_suspended_session_goes_on_with_its_snapshot(place: Place, tmp_path: Path) -> None:
    """The directory is gone when the answer comes; while it waits, a follow-up is refused in favour of the answer."""
    note, look = "echo kept > /workspace/note", "cat /workspace/note"
    script = [say(call("bash", command=note)), say(call("tell", room="all", text="Hi")), say(call("bash", command=look)), REPORT]
    with ScriptedClaude(script) as claude:
        world = World(place, "asks-elsewhere", tmp_path, claude)
        run = world.start()
        world.form(run)
        session = world.session(run)
        with pytest.raises(SettingsError, match="waits for an answer in its run"):
            world.in_store(lambda store: resume(store, session.id, "Go on.", by="ada"))
        shutil.rmtree(config().workspaces / session.id)
        assert place.api(f"/flow_runs/{run}/resume", {"run_input": {"decision": "approve"}})["status"] == "ACCEPT"
        place.until(run, *ENDED)
    assert world.told == ["all: Hi"]
    told = claude.requests[3].result("bash").text
    assert told.startswith("kept")
    assert "restored from a snapshot" in told
