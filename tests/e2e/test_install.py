"""What a user installs: the wheel, by plain pip, into an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ports import free_port
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import answers, until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` directory of a new virtual environment with the wheel in it."""
    directory = tmp_path_factory.mktemp("install")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(directory), str(ROOT)], check=True)
    [wheel] = directory.glob("prefect_routines-*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True)
    python = directory / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)], check=True)
    return python.parent


@pytest.mark.timeout(900)
def test_the_wheel_installs_by_plain_pip_and_its_prefect_server_starts(environment: Path, tmp_path: Path) -> None:
    """No flags, nothing that contradicts itself, and a server that serves: today's newest FastAPI would break it."""
    subprocess.run([str(environment / "python"), "-m", "pip", "check"], check=True)
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ROUTINES_", "ANTHROPIC_"))}
    clean |= {"PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [str(environment / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=clean, stdout=log, stderr=subprocess.STDOUT) as server:
        try:
            said = (tmp_path / "log").read_text
            until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{port}/api/health"), what=said)
            assert server.poll() is None, said()
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.timeout(300)
def test_what_init_makes_runs_at_once(environment: Path, tmp_path: Path, prefect_server: str) -> None:
    """`routines init` copies the reference project out of the wheel; its routine runs by the README's command."""
    tmp_path.chmod(0o755)
    project = tmp_path / "my-routines"
    subprocess.run([str(environment / "routines"), "init", str(project)], check=True, cwd=tmp_path)
    with ScriptedClaude([say("Hello.", call("report", verdict="done", summary="Said hello."))]) as claude:
        command = [str(environment / "routines"), "run", "flows/ask.py", "--param", "prompt=Say hello"]
        done = subprocess.run(command, cwd=project, env={**os.environ, **claude.environment()}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Said hello." in done.stdout


@pytest.mark.timeout(60)
def test_the_wheel_is_typed_and_carries_its_entry_points(environment: Path) -> None:
    """Type checkers look into it; Prefect finds its blocks by themselves."""
    code = (
        "import importlib.metadata as m, importlib.resources as r\n"
        "assert (r.files('prefect_routines') / 'py.typed').is_file()\n"
        "assert (r.files('prefect_routines.gateway') / 'static' / 'session.js').is_file()\n"
        "[found] = [e for e in m.entry_points(group='prefect.collections') if e.name == 'prefect_routines']\n"
        "assert found.load().AnthropicCredentials"
    )
    subprocess.run([str(environment / "python"), "-c", code], check=True)
