"""A session that a worker runs, watched and approved from a terminal while its process comes and goes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from prefect_routines.testing import ScriptedClaude, call, say

from .asking_world import World
from .place import ENDED, Place

ROUTINES = str(Path(sys.executable).with_name("routines"))
REPORT = say(call("report", verdict="done", summary="The end."))


@pytest.mark.timeout(300)
def test_a_suspended_session_goes_on_when_it_is_approved_in_a_terminal(place: Place, tmp_path: Path) -> None:
    """The call is made once, in a new process; who watches sees the form, the answer and the end, and exits with the verdict."""
    with ScriptedClaude([say("I ask first.", call("tell", room="all", text="Hello")), REPORT]) as claude:
        world = World(place, "asks-terminal", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        with subprocess.Popen([ROUTINES, "watch", run], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as watching:
            done = subprocess.run([ROUTINES, "approve", run, "--as", "ada"], capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode == 0, done.stderr
            assert "tell: all" in done.stdout
            place.until(run, *ENDED)
            said = watching.communicate(timeout=100)[0]
        assert world.told == ["all: Hello"]
        answered = world.in_store(lambda store: store.form(form.id))
        assert (answered.person, answered.via) == ("ada", "cli")
        assert watching.returncode == 0, said
        assert said.count("I ask first.") == 1
        for words in ("waits for approval", "text: Hello", "ada (cli) approved tell: all", "goes on where it was", "✓ done"):
            assert words in said
        again = subprocess.run([ROUTINES, "approve", form.id], capture_output=True, text=True, timeout=100, check=False)
        assert (again.returncode, "ada has answered it already" in again.stderr) == (2, True)
