"""The README does what it says: its routine loads, its test passes, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
LINES = [line for language, text in BLOCKS if language == "console" for line in text.splitlines()]
CONSOLE = [line.removeprefix("$ ").partition("#")[0].strip() for line in LINES]


def test_the_routine_and_its_test_work(prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both pieces of Python, as they stand there: the smallest routine, and the few lines that test it."""
    names: dict[str, Any] = {"__name__": "readme"}
    # a file, since a flow wants to know where it was written
    source = tmp_path / "readme.py"
    source.write_text("\n".join(text for text in PYTHON if "pager" not in text))
    exec(compile(source.read_text(), str(source), "exec"), names)
    names["test_fix_typos"](tmp_path / "forge", monkeypatch)
    [custom] = [text for text in PYTHON if "pager" in text]
    exec(custom, names)
    assert names["page"].writes
    assert list(names["page"].schema["properties"]) == ["team", "text"]


def test_the_commands_exist() -> None:
    """Each `make` target and each `routines` command of the README; what they do is tested where they live."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in CONSOLE:
        for command in line.split(" && "):
            program, *arguments = command.split()
            if program == "make":
                assert arguments[0] in targets
            elif program == "routines":
                done = subprocess.run([Path(sys.executable).parent / "routines", arguments[0], "--help"], capture_output=True, check=False)
                assert done.returncode == 0, command
            elif program == "python":
                assert (ROOT / arguments[0]).exists(), command
            else:
                assert program in ("pip", "cd", "prefect"), command


def test_every_file_it_links_to_is_there() -> None:
    """No link into nowhere."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_setting_is_in_the_table() -> None:
    """What `@routine` takes is what the README lists."""
    from prefect_routines.settings import Settings

    table = README.partition("## Settings")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|"))))
    assert set(Settings.model_fields) <= listed


def test_the_deployment_is_one() -> None:
    """Its file, its function and its settings exist; its event is one that GitHub sends."""
    import yaml

    from prefect_routines.deploying.event_names import name_problem
    from prefect_routines.settings import Settings

    [text] = [text for language, text in BLOCKS if language == "yaml"]
    [deployment] = yaml.safe_load(text)["deployments"]
    file, _, name = deployment["entrypoint"].partition(":")
    assert f"def {name}(" in (ROOT / file).read_text()
    assert Settings.model_validate(deployment["parameters"]["settings"]).when[0].path == "issue.title"
    [name] = deployment["triggers"][0]["expect"]
    assert name_problem(name, []) is None
