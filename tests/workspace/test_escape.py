"""Nothing gets out of a sandbox: each attempt of `escape_probes`, as root and as an ordinary user; and the attempts are real ones."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.workspace.escape_probes import CONTROLS, PROBES, run_probes

import prefect_routines

Results = dict[str, tuple[int, str]]
ORDINARY_UID = 59_990


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results as the user who runs the tests."""
    return asyncio.run(run_probes(tmp_path_factory.mktemp("own"), "bubblewrap"))


def run_as_ordinary_user(mode: str) -> Results:
    """Run the probes in a process that has given up root, if it had it."""
    with tempfile.TemporaryDirectory(prefix="probes-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        code = directory / "code"
        shutil.copytree(Path(prefect_routines.__file__).parent, code / "prefect_routines", ignore=shutil.ignore_patterns("__pycache__"))
        home = directory / "user"
        home.mkdir(0o700)
        uid = os.getuid() or ORDINARY_UID
        os.chown(home, uid, uid)
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(code), "HOME": str(home)}
        command = [sys.executable, str(Path(__file__).with_name("escape_probes.py")), str(uid), mode, str(home)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=directory, timeout=120)
        assert done.returncode == 0, done.stderr
        results: Results = json.loads(done.stdout)
        return results


@pytest.fixture(scope="module")
def ordinary(own: Results) -> Results:
    """Results as an ordinary user."""
    return own if os.getuid() != 0 else run_as_ordinary_user("bubblewrap")


@pytest.mark.parametrize("name", PROBES)
def test_is_contained(own: Results, name: str) -> None:
    """The attempt fails in a sandbox of the user who runs the tests."""
    status, output = own[name]
    assert status == 0, output


@pytest.mark.parametrize("name", PROBES)
def test_is_contained_for_an_ordinary_user(ordinary: Results, name: str) -> None:
    """The attempt fails in a sandbox that an ordinary user started."""
    status, output = ordinary[name]
    assert status == 0, output


@pytest.mark.parametrize("name", CONTROLS)
def test_work_can_be_done(own: Results, ordinary: Results, name: str) -> None:
    """What a session needs works in the sandbox, whoever started it."""
    assert own[name][0] == 0, own[name][1]
    assert ordinary[name][0] == 0, ordinary[name][1]


def test_the_probes_can_fail() -> None:
    """Without a sandbox many attempts succeed, so they test something. Never as root: they would take this machine apart."""
    results = run_as_ordinary_user("none")
    escaped = [name for name in PROBES if results[name][0] != 0]
    assert len(escaped) >= len(PROBES) // 2, f"only these got out: {escaped}"
