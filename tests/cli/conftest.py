"""What the tests of the command line share: a terminal, a scripted Claude, routines in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from prefect_routines.cli.app import _status
from prefect_routines.testing import LocalForge, ScriptedClaude, call, say
from prefect_routines.testing.api import Scripts

from .sessions_by_hand import Home
from .terminal import Terminal

FLOWS = Path(__file__).parents[2] / "flows"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A directory of its own, and a session store of its own."""
    return Terminal(tmp_path, {**os.environ, "ROUTINES_HOME": str(tmp_path / "home")})


@pytest.fixture
def online(terminal: Terminal, prefect_server: str) -> Terminal:
    """The same with a Prefect server."""
    assert prefect_server
    return terminal


@pytest.fixture
def ask() -> str:
    """The routine whose prompt is its parameter."""
    return str(FLOWS / "ask.py")


@pytest.fixture
def claude() -> Iterator[Callable[[Scripts], ScriptedClaude]]:
    """Start a Claude that plays a script."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(ScriptedClaude(script))


@pytest.fixture
def done(claude: Callable[[Scripts], ScriptedClaude]) -> dict[str, str]:
    """The environment of a Claude that reports done at once."""
    return claude([say("All well.", call("report", verdict="done", summary="It was done."))]).environment()


@pytest.fixture
def forge(tmp_path: Path) -> LocalForge:
    """Real git repositories."""
    return LocalForge(tmp_path / "forge")


@pytest.fixture
def home(tmp_path: Path, configure: Callable[..., None]) -> Home:
    """A store and a place for workspaces of their own, for commands that run in this process."""
    configure(ROUTINES_HOME=str(tmp_path / "home"), ROUTINES_WORKSPACES=str(tmp_path / "workspaces"))
    return Home(tmp_path / "home")


@pytest.fixture
def routines(home: Home, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command here: exit status and all that it said."""

    def run(*arguments: str) -> tuple[int, str]:
        status = _status([*arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run
