"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .terminal import Terminal

HEAVY = ("prefect", "anthropic", "sqlalchemy", "alembic", "fastapi", "genai_prices")


def test_help_loads_none_of_the_heavy_packages() -> None:
    """`routines --help` answers at once because what takes seconds to import is imported by the commands only."""
    program = (
        "import sys\nfrom prefect_routines.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Proactive Claude agents" in done.stdout
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("command", ["run", "sessions", "show", "init", "sandbox"])
def test_each_command_explains_itself(terminal: Terminal, command: str) -> None:
    """`routines COMMAND --help` shows its arguments."""
    done = terminal.run(command, "--help")
    assert done.status == 0
    assert f"Usage: routines {command}" in done.out


def test_version(terminal: Terminal) -> None:
    """`routines --version` names the version that is installed."""
    assert terminal.run("--version").out.startswith("routines 0.")


def test_the_shell_can_complete_commands(terminal: Terminal) -> None:
    """Completion offers the commands that begin as what was typed."""
    done = terminal.run(_ROUTINES_COMPLETE="complete_bash", COMP_WORDS="routines ses", COMP_CWORD="1")
    assert done.out.split() == ["sessions"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'."),
        (["run"], "Missing argument 'PATH[:FLOW]'."),
        (["run", "x.py", "--nonsense"], "No such option"),
        (["sessions", "--limit", "0"], "Invalid value for '--limit'"),
        (["sandbox", "."], "Missing argument"),
    ],
)
def test_a_command_line_that_does_not_fit_is_told_in_one_line(terminal: Terminal, arguments: list[str], said: str) -> None:
    """A usage error is one line on stderr, with where to read on, and exit status 2."""
    done = terminal.run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert said in done.err
    assert "--help`" in done.err


def test_an_unexpected_error_shows_its_traceback_only_when_asked(terminal: Terminal) -> None:
    """What we did not foresee is one line too; `--debug` shows where it happened."""
    broken = {"ROUTINES_LEASE_SECONDS": "soon"}
    plain, debug = terminal.run("sessions", **broken), terminal.run("--debug", "sessions", **broken)
    assert plain.status == 1
    assert len(plain.err.splitlines()) == 1
    assert "--debug" in plain.err
    assert "Traceback" in debug.err


def test_a_reader_that_leaves_early_is_no_error(terminal: Terminal) -> None:
    """`routines --help | head -0` ends in silence."""
    with terminal.start("sessions", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
