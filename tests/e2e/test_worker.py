"""A deployed routine: `prefect deploy` puts it to work, a process worker runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.testing import LocalForge, ScriptedClaude, call, say

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def prefect(*arguments: str, cwd: Path) -> None:
    """Run Prefect's own command."""
    done = subprocess.run([*PREFECT, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def api(server: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server}{path}", data, {"content-type": "application/json"})) as answer:
        return json.load(answer)


@pytest.mark.timeout(240)
def test_a_process_worker_runs_a_deployed_routine(prefect_server: str, tmp_path: Path) -> None:
    """The deployment's parameters carry prompt and settings; the work is pushed, the run is Completed with its verdict."""
    docs = LocalForge(tmp_path / "forge").repository("docs", files={"index.md": "# Helo"})
    shutil.copytree(ROOT / "flows", tmp_path / "project" / "flows")
    (tmp_path / "project" / "mend.yaml").write_text(f"""\
deployments:
  - name: mend
    entrypoint: flows/ask.py:ask
    work_pool: {{name: local}}
    parameters:
      prompt: Mend the heading.
      settings:
        repositories: ["{docs.url}"]
        policy: {{allow: ["push(repository=docs) x1"]}}
""")
    prefect("work-pool", "create", "local", "--type", "process", "--overwrite", cwd=tmp_path)
    prefect("deploy", "--prefect-file", "mend.yaml", "--all", cwd=tmp_path / "project")
    script = [
        say(call("bash", command="cd docs && sed -i s/Helo/Hello/ index.md && git commit -qam 'Mend the heading'")),
        say(call("push", repository="docs")),
        say(call("report", verdict="done", summary="The heading is mended.")),
    ]
    [deployment] = [found for found in api(prefect_server, "/deployments/filter", {}) if found["name"] == "mend"]
    with ScriptedClaude(script) as claude, (tmp_path / "worker.log").open("wb") as log:
        made = api(prefect_server, f"/deployments/{deployment['id']}/create_flow_run", {})
        worker = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "local", "--run-once"],
            cwd=tmp_path, env={**os.environ, **claude.environment()}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            worker.wait(180)
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        run = api(prefect_server, f"/flow_runs/{made['id']}")
        deadline = time.monotonic() + 30
        while run["state_type"] in ("SCHEDULED", "PENDING", "RUNNING") and time.monotonic() < deadline:
            run = api(prefect_server, f"/flow_runs/{made['id']}")
    assert (run["state_type"], run["state"]["message"]) == ("COMPLETED", "done: The heading is mended."), (
        tmp_path / "worker.log"
    ).read_text()
    assert "verdict:done" in run["tags"]
    assert run["labels"]["routines.session"].startswith("ses-")
    [push] = docs.pushes
    assert docs.show(push.branch, "index.md") == "# Hello"
