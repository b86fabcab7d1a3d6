"""`routines init`: a project that runs at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from prefect_routines.testing import ScriptedClaude, call, say
from prefect_routines.testing.api import Scripts

from .terminal import Terminal

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"


def test_what_it_makes_runs_at_once(online: Terminal, claude: Callable[[Scripts], ScriptedClaude]) -> None:
    """The reference project is copied, and the command that init names works in it as it stands."""
    made = online.run("init", "project")
    assert made.status == 0, made.err
    project = online.directory / "project"
    assert {path.name for path in project.iterdir()} == {"flows", "blocks", "deployments", "README.md", ".gitignore"}
    assert not list(project.rglob("__pycache__"))
    assert "routines run flows/ask.py --param prompt=" in made.out
    script = claude([say(call("report", verdict="nothing_to_do", summary="Nothing is in it."))])
    inside = Terminal(project, online.environment)
    ran = inside.run("run", "flows/ask.py", "--param", "prompt=What is in the workspace?", **script.environment())
    assert ran.status == 0, ran.err
    assert "nothing to do" in ran.out


def test_what_its_texts_have_people_type_is_there() -> None:
    """Each command of its README, and of the first line of its deployments: none of an older time."""
    from typer.main import get_command

    from prefect_routines.cli.app import app
    from prefect_routines.cli.init import README

    texts = [README, *(path.read_text().partition("deployments:")[0] for path in DEPLOYMENTS.glob("*-*.yaml"))]
    named = {word for text in texts for word in re.findall(r"(?:`|^# |^    )routines ([a-z]+)", text, re.MULTILINE)}
    assert {"run", "up", "deploy", "doctor", "token", "sessions", "waiting", "watch"} <= named
    assert named <= set(vars(get_command(app))["commands"])
    assert not [text for text in texts if "prefect deploy" in text or "work-pool" in text]


def test_a_directory_with_files_is_left_alone(terminal: Terminal) -> None:
    """Without --force nothing is written where something is; a fresh git repository counts as empty."""
    (terminal.directory / "full").mkdir()
    (terminal.directory / "full" / "mine.txt").write_text("mine")
    refused = terminal.run("init", "full")
    assert refused.status == 2
    assert "full is not empty" in refused.err
    assert [path.name for path in (terminal.directory / "full").iterdir()] == ["mine.txt"]
    (terminal.directory / "repo" / ".git").mkdir(parents=True)
    assert terminal.run("init", "repo").status == 0


def test_force_completes_and_overwrites_nothing_that_differs(terminal: Terminal) -> None:
    """With --force what is missing comes in; a file that differs is kept and named."""
    assert terminal.run("init", "project").status == 0
    readme, ask = terminal.directory / "project" / "README.md", terminal.directory / "project" / "flows" / "ask.py"
    readme.write_text("ours")
    ask.unlink()
    again = terminal.run("init", "--force", "project")
    assert again.status == 0
    assert "kept README.md" in again.out
    assert readme.read_text() == "ours"
    assert ask.is_file()


def test_what_cannot_be_a_project_is_refused(terminal: Terminal) -> None:
    """A file in the way, and a directory that cannot be made, are told in one line."""
    (terminal.directory / "file").write_text("")
    for place in ("file", "/proc/project", "file/deeper"):
        refused = terminal.run("init", place)
        assert refused.status == 2
        assert len(refused.err.splitlines()) == 1
        assert Path(place).name in refused.err or "file" in refused.err
