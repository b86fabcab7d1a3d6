"""`routines deploy`: all problems at once, or everything deployed and told."""

from __future__ import annotations

import shutil
import uuid

import pytest

from .conftest import FLOWS
from .terminal import Terminal

GOOD = """\
deployments:
  - name: {name}
    entrypoint: flows/ask.py:ask
    work_pool: {{name: routines}}
    parameters: {{prompt: Look around.}}
    schedules:
      - {{cron: "0 10 * * 1", timezone: Europe/Paris}}
    triggers:
      - expect: [github.issues.opened]
        match: {{github.repository: acme/docs}}
        parameters: {{event: "{{{{ event.id | string }}}}"}}
"""


@pytest.fixture
def project(online: Terminal) -> tuple[Terminal, str]:
    """A project with one deployment, whose name no other test has; beside it a compose file."""
    name = f"d{uuid.uuid4().hex[:8]}"
    (online.directory / "flows").mkdir()
    shutil.copy(FLOWS / "ask.py", online.directory / "flows")
    deployments = online.directory / "deployments"
    deployments.mkdir()
    (deployments / "good.yaml").write_text(GOOD.format(name=name))
    (deployments / "compose.yaml").write_text("services: {}\n")
    return online, name


def test_everything_in_deployments_is_deployed_and_told(project: tuple[Terminal, str]) -> None:
    """What starts it, where senders reach it, and the next five times in the schedule's own zone."""
    terminal, name = project
    done = terminal.run("deploy", "--all")
    assert done.status == 0, done.out + done.err
    assert f"✓ ask/{name}" in done.out
    assert "every Monday at 10:00 Europe/Paris" in done.out
    assert "on github.issues.opened where github.repository is acme/docs" in done.out
    assert "http://127.0.0.1:4280/hooks/github" in done.out
    times = [line for line in done.out.splitlines() if " 10:00 CE" in line]
    assert len(times) == 5
    assert times[0].split()[:2] == ["next", "Mon"]


def test_one_problem_keeps_everything_back(project: tuple[Terminal, str]) -> None:
    """All of them are told, by file and line; nothing is deployed, not even what is right."""
    terminal, name = project
    bad = GOOD.format(name=f"{name}-bad").replace("issues.opened", "issues.open").replace("0 10 * * 1", "0 0 30 2 *")
    (terminal.directory / "deployments" / "bad.yaml").write_text(bad)
    done = terminal.run("deploy", "--all")
    assert done.status == 2
    lines = done.err.splitlines()
    assert any(line.startswith("deployments/bad.yaml:9: error: ") and "did you mean 'opened'?" in line for line in lines), lines
    assert any(line.startswith("deployments/bad.yaml:7: error: ") and "never fires" in line for line in lines), lines
    assert "2 problems; nothing was deployed" in lines[-1]
    assert name not in terminal.run("list").out


def test_checking_deploys_nothing(project: tuple[Terminal, str]) -> None:
    """`--check` says that all could be deployed."""
    terminal, name = project
    done = terminal.run("deploy", "--check", "deployments/good.yaml")
    assert (done.status, done.out.strip()) == (0, "✓ 1 deployment in 1 file can be deployed")
    assert name not in terminal.run("list").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name prefect files, or use --all"),
        (("--all", "x.yaml"), "give files or --all, not both"),
        (("--all",), "deployments: there is no such directory"),
    ],
)
def test_a_command_that_names_nothing_is_refused(terminal: Terminal, arguments: tuple[str, ...], said: str) -> None:
    """In one line, before any server is asked."""
    done = terminal.run("deploy", *arguments)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err


def test_a_server_that_is_not_there_is_one_line(project: tuple[Terminal, str]) -> None:
    """With what to do."""
    terminal, _ = project
    done = terminal.run("deploy", "--all", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "run `prefect server start`, or correct PREFECT_API_URL" in done.err
