"""`routines doctor` as a person sees it: a line for each matter, a remedy for each trouble, an exit status, and an end in any case."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefect_routines.testing import LocalForge, ScriptedClaude
from prefect_routines.testing.api import Scripts

from .terminal import Finished, Terminal

ROUTINE = '''
from prefect_routines import Repository, routine

@routine(repositories=["{url}"], connectors=[{connectors}], policy={{"allow": ["push"]}})
def tidy() -> str:
    """Tidy up."""
    return "Tidy up."
'''


@pytest.fixture
def silent_service() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _write(terminal: Terminal, url: str, connectors: str = "") -> str:
    (terminal.directory / "tidy.py").write_text(ROUTINE.format(url=url, connectors=connectors))
    return "tidy.py"


def _findings(done: Finished) -> dict[str, dict[str, str]]:
    return {one["check"]: one for one in json.loads(done.out)}


def test_a_routine_in_a_file_is_looked_at(
    terminal: Terminal, online: Terminal, claude: Callable[[Scripts], ScriptedClaude], forge: LocalForge
) -> None:
    """Its code, Claude's login, its repository with the right to push; no token is spent."""
    file = _write(terminal, forge.repository("docs", files={"a.md": "a"}).url)
    scripted = claude([])
    done = online.run("doctor", "--routine", file, "--json", **scripted.environment())
    found = _findings(done)
    for name in ("Prefect", "store", "sandbox", "git", "tidy.py", "repository docs"):
        assert found[name]["status"] == "ok", found[name]
    [login] = [one for name, one in found.items() if name.startswith("Claude ")]
    assert login["status"] == "ok"
    assert found["repository docs"]["saw"].endswith("may be pushed to")
    assert scripted.requests == []
    assert found["work pool routines"]["status"] == "red"
    assert done.status == 1


def test_each_trouble_has_its_remedy(terminal: Terminal, online: Terminal) -> None:
    """A wrong key, a block that is not there, a repository that is not there: red lines, each with what to do."""
    file = _write(terminal, str(terminal.directory / "nowhere.git"), '"prometheus/nobody"')
    done = online.run("doctor", "--routine", file, ANTHROPIC_API_KEY="", ROUTINES_NOTIFY="notice-webhook/nobody, email/nobody#a@b.c")
    assert done.status == 1
    lines = done.out.splitlines()
    for begin, remedy in (
        ("✗ Claude ", "set ANTHROPIC_API_KEY"),
        ("✗ prometheus/nobody ", "create it with"),
        ("✗ notice-webhook/nobody ", "create it with"),
        ("✗ email/nobody ", "create it with"),
        ("✗ repository nowhere ", "check the"),
        ("✗ work pool routines ", "prefect work"),  # another test may have made the pool: then it lacks a worker
    ):
        [at] = [number for number, line in enumerate(lines) if line.startswith(begin)]
        assert remedy in lines[at + 1], lines[at : at + 2]
    assert lines[-1].endswith(" red")
    assert done.err == ""


def test_a_slip_in_who_is_told_is_a_red_line(terminal: Terminal) -> None:
    """The rest is looked at all the same."""
    (terminal.directory / "tidy.py").write_text(ROUTINE.format(url="https://docs.invalid/x.git", connectors=""))
    elsewhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "ROUTINES_NOTIFY": "slack"}
    found = _findings(terminal.run("doctor", "--routine", "tidy.py", "--json", **elsewhere))
    assert found["ROUTINES_NOTIFY"]["status"] == "red"
    assert "'slack' names nobody" in found["ROUTINES_NOTIFY"]["saw"]
    assert "repository x" in found


def test_without_prefect_the_rest_is_looked_at(terminal: Terminal, done: dict[str, str], forge: LocalForge) -> None:
    """It says so, and goes on with the machine and with a routine in a file."""
    file = _write(terminal, forge.repository("docs", files={"a.md": "a"}).url)
    ended = terminal.run("doctor", "--routine", file, "--json", PREFECT_API_URL="http://127.0.0.1:9/api", **done)
    found = _findings(ended)
    assert ended.status == 1
    assert (found["Prefect"]["status"], "cannot be reached" in found["Prefect"]["saw"]) == ("red", True)
    assert "run `prefect server start`" in found["Prefect"]["remedy"]
    assert {name: one["status"] for name, one in found.items() if name != "Prefect"} == {
        name: "ok" for name in found if name != "Prefect"
    }, found
    assert "repository docs" in found


@pytest.mark.timeout(120)
def test_services_that_hang_do_not_hang_it(terminal: Terminal, silent_service: str) -> None:
    """Prefect, Claude and the repository take the connection and say nothing: red lines, and an end within a minute."""
    file = _write(terminal, f"{silent_service}/docs.git")
    environment = {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": silent_service, "PREFECT_API_URL": f"{silent_service}/api"}
    began = time.monotonic()
    ended = terminal.run("doctor", "--routine", file, "--json", **environment)
    assert time.monotonic() - began < 100
    found = _findings(ended)
    assert ended.status == 1
    assert found["Prefect"]["saw"] == "no answer within 10 s"
    assert {found[name]["status"] for name in found if name.startswith(("Claude", "repository"))} == {"red"}
    assert found["sandbox"]["status"] == "ok"


def test_code_that_does_not_load_or_end_is_told(terminal: Terminal) -> None:
    """With the line that is wrong; the doctor does not wait for a module that never comes back."""
    (terminal.directory / "wrong.py").write_text("import prefect_routines\nraise KeyError('x')\n")
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    found = _findings(terminal.run("doctor", "--routine", "wrong.py", "--json", **nowhere))
    assert "KeyError: 'x' (line 2)" in found["wrong.py"]["saw"]
    (terminal.directory / "stuck.py").write_text("import threading\nthreading.Event().wait()\n")
    found = _findings(terminal.run("doctor", "--routine", "stuck.py", "--json", **nowhere))
    assert found["stuck.py"]["saw"] == "stuck.py did not load within 30 s"


@pytest.mark.timeout(120)
def test_deployments_are_found_by_name(terminal: Terminal, online: Terminal, done: dict[str, str], forge: LocalForge) -> None:
    """Their code where it was deployed from, their overrides, the zones of their schedules; a name that fits none is a mistake."""
    file = _write(terminal, forge.repository("docs", files={"a.md": "a"}).url)
    (terminal.directory / "prefect.yaml").write_text(
        json.dumps(
            {
                "deployments": [
                    {
                        "name": "doctored",
                        "entrypoint": f"{file}:tidy",
                        "work_pool": {"name": "doctored-pool"},
                        "schedules": [{"cron": "0 9 * * 1", "timezone": "Asia/Tokyo"}],
                        "parameters": {"settings": {"connectors": ["slack/nobody"]}},
                    }
                ]
            }
        )
    )
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (["work-pool", "create", "doctored-pool", "--type", "process"], ["deploy", "--all"]):
        subprocess.run([*prefect, *command], cwd=terminal.directory, env=dict(terminal.environment), check=True, capture_output=True)
    try:
        elsewhere = Terminal(Path("/"), terminal.environment)
        found = _findings(elsewhere.run("doctor", "--routine", "tidy/doctored", "--json", **done))
        assert (found["tidy/doctored"]["status"], found["tidy/doctored"]["saw"].endswith("loads; 1 schedule")) == ("ok", True)
        assert found["time zones"]["saw"] == "Asia/Tokyo known"
        assert "there is no block 'slack/nobody'" in found["slack/nobody"]["saw"]
        assert found["work pool doctored-pool"]["remedy"].startswith("prefect worker start --pool doctored-pool")
        wrong = online.run("doctor", "--routine", "no-such")
        assert (wrong.status, "no-such" in wrong.err) == (2, True)
    finally:
        subprocess.run([*prefect, "deployment", "delete", "tidy/doctored"], env=dict(terminal.environment), check=True, capture_output=True)
