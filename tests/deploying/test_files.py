"""Prefect files as they are written: what cannot be read, and keys that Prefect would leave out without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefect_routines.deploying.files import find_files, read_file

ROOT = Path(__file__).parents[2]


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    """What is said of a file with this text, as `LINE: what`."""
    file = tmp_path / "one.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [f"{problem.line}: {problem.text}" for problem in read_file(file)[1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deployments:\n  - name: a\n   entrypoint: x\n", "3: no valid YAML: "),
        ("deployments: [\n", "no valid YAML: "),
        (b"\xff\xfe", "it is not UTF-8 text"),
        ("services: {}\n", "it holds no `deployments:` list"),
        ("deployments: []\n", "it holds no `deployments:` list"),
        ("- a\n", "it holds no `deployments:` list"),
        ("deployments:\n  - name: a\n    entrypont: x:y\n", "3: a deployment has no key 'entrypont'; did you mean 'entrypoint'?"),
        ("deployments:\n  - {name: a}\nschedule: x\n", "3: a prefect file has no key 'schedule'"),
        ("deployments:\n  - just text\n", "2: a deployment must hold names and values, not 'just text'"),
        ("deployments:\n  - name: a\n    name: b\n", "3: the key 'name' stands twice; only the last would count"),
        ("deployments:\n  - name: a\n    schedules:\n      - {crn: x}\n", "4: a schedule has no key 'crn'; did you mean 'cron'?"),
        ("deployments:\n  - name: a\n    schedules: {cron: x}\n", "3: schedules must be a list: put `- ` before each"),
        ("deployments:\n  - name: a\n    triggers:\n      - expects: [x]\n", "4: a trigger has no key 'expects'; did you mean 'expect'?"),
        ("deployments:\n  - name: a\n    work_pool: routines\n", "3: work_pool must hold names and values, not 'routines'"),
        ("deployments:\n  - name: a\n    concurrency_limit: {limt: 1}\n", "3: concurrency_limit has no key 'limt'; did you mean 'limit'?"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    """Each in one line, with what was probably meant."""
    assert any(said in problem for problem in problems(tmp_path, text)), problems(tmp_path, text)


def test_anchors_and_definitions_are_no_mistake(tmp_path: Path) -> None:
    """YAML's own means to write something once are for the author to use."""
    text = "definitions:\n  pool: &pool {name: routines}\ndeployments:\n  - {name: a, work_pool: *pool}\n  - {name: b, work_pool: *pool}\n"
    assert problems(tmp_path, text) == []


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    """With its name and no traceback."""
    [problem] = read_file(tmp_path / "nowhere.yaml")[1]
    assert "nowhere.yaml: it cannot be read: No such file" in str(problem)


def test_only_prefect_files_are_found(tmp_path: Path) -> None:
    """A compose file beside them is left alone; one that cannot be read is not, so that somebody hears of it."""
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "good.yaml").write_text("deployments: [{name: a}]\n")
    (tmp_path / "torn.yml").write_text("deployments: [\n")
    (tmp_path / "notes.txt").write_text("deployments: []\n")
    assert [path.name for path in find_files(tmp_path)] == ["good.yaml", "torn.yml"]


@pytest.mark.parametrize("path", find_files(ROOT / "deployments"), ids=lambda path: path.name)
def test_the_files_we_ship_have_nothing_unknown(path: Path) -> None:
    """They are what people copy."""
    stanzas, found = read_file(path)
    assert found == []
    assert all(stanza.schedules() or stanza.triggers() for stanza in stanzas)
