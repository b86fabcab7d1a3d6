"""`routines resume` and `routines teleport`: on another machine, through a deployment, and into a folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.filesystems import LocalFileSystem
from prefect.states import Cancelled

from prefect_routines.testing import LocalForge, ScriptedClaude, call, say
from prefect_routines.testing.api import Scripts

from .conftest import FLOWS
from .terminal import Terminal

StartClaude = Callable[[Scripts], ScriptedClaude]
DONE = say(call("report", verdict="done", summary="It was done."))
WORK = "cd docs && echo committed > a && git add a && git commit -qm 'Add a' && echo changed >> README.md && echo new > untracked"
LOOK = "cd /workspace/docs && git log --format=%s && git status --porcelain && cat untracked"


def begin(terminal: Terminal, ask: str, url: str, **environment: str) -> dict[str, Any]:
    """Run the routine `ask` once; its session as data."""
    done = terminal.run("run", ask, "-p", "prompt=Begin.", "--set", f"repositories=[{url}]", "--json", **environment)
    assert done.status == 0, done.err
    [session] = json.loads(done.out)["sessions"]
    found: dict[str, Any] = session["session"]
    return found


def test_a_session_goes_on_on_another_machine(
    online: Terminal, claude: StartClaude, forge: LocalForge, ask: str, tmp_path: Path, let_others_in: Callable[[Path], None]
) -> None:
    """Another Prefect home, another workspace directory, the first machine's gone: only the database and the result storage are shared."""
    let_others_in(tmp_path)
    docs = forge.repository("docs", {"README.md": "# Docs\n"})
    (tmp_path / "shared").mkdir()
    LocalFileSystem(basepath=str(tmp_path / "shared")).save("snapshots", overwrite=True, _sync=True)  # type: ignore[call-arg]
    script = claude([say(call("bash", command=WORK)), DONE, say("I look.", call("bash", command=LOOK)), DONE])

    def machine(name: str) -> dict[str, str]:
        place = {"PREFECT_HOME": f"{name}/prefect", "ROUTINES_HOME": f"{name}/home", "ROUTINES_WORKSPACES": f"{name}/workspaces"}
        shared = {"ROUTINES_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/shared/store.db"}
        shared |= {"PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": "local-file-system/snapshots"}
        return {variable: str(tmp_path / path) for variable, path in place.items()} | shared | script.environment()

    session = begin(online, ask, docs.url, **machine("one"))["id"]
    shutil.rmtree(tmp_path / "one")
    done = online.run("resume", session, "Go on.", "--as", "ada", "--path", ask, **machine("two"))
    assert done.status == 0, done.err
    told = script.requests[3].result("bash").text
    assert [line for line in told.splitlines() if not line.startswith("[")] == ["Add a", "Commit 1", " M README.md", "?? untracked", "new"]
    assert "restored from a snapshot" in told
    assert "the workspace was restored from a snapshot" in done.out
    assert re.findall(r"^Turn \d", done.out, re.MULTILINE) == ["Turn 3", "Turn 4"], "what was shown once is not shown again"
    assert f"It runs here, in this process, with {ask}." in done.err
    shown = online.run("show", session, **machine("two"))
    assert "Follow-up by ada" in shown.out


def test_what_cannot_be_resumed_is_refused_in_one_line(online: Terminal, claude: StartClaude, forge: LocalForge, ask: str) -> None:
    """No deployment, no workspace, no such session, nothing said, a point that is none."""
    docs = forge.repository("docs", {"README.md": "# Docs\n"})
    script = claude([say(call("bash", command=WORK)), DONE, DONE])
    session = begin(online, ask, docs.url, **script.environment())
    given = [session["id"], "Go on."]
    for arguments, said in [
        (given, "was not started by a deployment; run its routine here, with --path FILE.py"),
        (["ses-none", "Go on."], "there is none"),
        ([session["id"], " "], "the message is empty"),
        ([*given, "--at", "3"], "--at goes with --fork"),
        ([*given, "--fork", "--at", "9999"], "is beyond its end"),
    ]:
        refused = online.run("resume", *arguments, **script.environment())
        assert (refused.status, refused.out) == (2, "")
        assert said in refused.err
        assert refused.err.count("\n") == 1
    shutil.rmtree(Path(os.environ["ROUTINES_WORKSPACES"]) / session["id"])
    lost = {"PREFECT_LOCAL_STORAGE_PATH": str(online.directory / "elsewhere")}
    shutil.rmtree(Path(os.environ["PREFECT_HOME"]) / "storage/routines/snapshots" / session["id"])
    refused = online.run("resume", *given, "--path", ask, **script.environment(), **lost)
    assert refused.status != 0
    assert "is neither on this machine nor in the result storage" in refused.out + refused.err
    assert "--transcript-only" in refused.out + refused.err
    alone = online.run("resume", *given, "--path", ask, "--transcript-only", **script.environment(), **lost)
    assert alone.status == 0, alone.err


async def deploy(ask: str) -> UUID:
    """The routine `ask` as a deployment."""
    from prefect_routines.cli.loading import load_flow

    async with get_client() as client:
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name="resumed", type="process"))
        flow = load_flow(ask)
        return await client.create_deployment(
            flow_id=await client.create_flow(flow),
            name="resumed",
            entrypoint=f"{FLOWS}/ask.py:ask",
            work_pool_name="resumed",
            parameter_openapi_schema=flow.parameters.model_dump(),
            enforce_parameter_schema=True,
        )


ENGINE = """
import sys
from uuid import UUID
from prefect import get_client
from prefect.flow_engine import run_flow
from prefect_routines.cli.loading import load_flow
import asyncio
with get_client(sync_client=True) as client:
    run = client.read_flow_run(UUID(sys.argv[2]))
print(asyncio.run(run_flow(load_flow(sys.argv[1]), flow_run=run, return_type="state")).message)
"""


def execute(terminal: Terminal, ask: str, flow_run: str, environment: dict[str, str]) -> str:
    """What a worker does with a flow run; the message of its final state."""
    command = [sys.executable, "-c", ENGINE, ask, flow_run]
    env = {**terminal.environment, **environment}
    return subprocess.run(command, cwd=terminal.directory, env=env, capture_output=True, text=True, check=True, timeout=120).stdout.strip()


async def test_two_who_resume_through_the_deployment_at_once(online: Terminal, claude: StartClaude, ask: str) -> None:
    """One wins and the other is told so; the same words twice are the same run; the parameters are those of the former run."""
    script = claude([DONE, DONE, DONE])
    deployment = await deploy(ask)
    async with get_client() as client:
        first = await client.create_flow_run_from_deployment(
            deployment, parameters={"prompt": "Begin.", "settings": {"budget": {"turns": 9}}}
        )
    execute(online, ask, str(first.id), script.environment())
    [listed] = json.loads(online.run("sessions", "--json").out)
    both = [online.start("resume", listed["id"], said) for said in ("Add one.", "Add two.")]
    ended = [(*process.communicate(timeout=100), process.returncode) for process in both]
    assert sorted(status for *_, status in ended) == [0, 2], ended
    won = next(number for number, (*_, status) in enumerate(ended) if status == 0)
    assert "is being resumed already, by flow run" in ended[1 - won][1]
    same = online.run("resume", listed["id"], ("Add one.", "Add two.")[won])
    assert same.out == ended[won][0]
    run = re.search(r"flow-run/(\S+)", same.out)
    assert run is not None
    assert execute(online, ask, run[1], script.environment()) == "done: It was done."
    assert [request.text for request in script.requests] == ["Begin.", ("Add one.", "Add two.")[won]]
    async with get_client() as client:
        resumed = await client.read_flow_run(UUID(run[1]))
        parameters = resumed.parameters
        assert parameters["prompt"] == "Begin."
        assert parameters["settings"]["budget"] == {"turns": 9}
        third = online.run("resume", resumed.name, "Add three.", "--set", "budget.dollars=2")  # the run's name stands for its session
        run = re.search(r"flow-run/(\S+)", third.out)
        assert run is not None
        await client.set_flow_run_state(UUID(run[1]), Cancelled(), force=True)
        fourth = online.run("resume", listed["id"], "Add four.", "--set", "budget.dollars=2")
        again = re.search(r"flow-run/(\S+)", fourth.out)
        assert again is not None, fourth.err
        assert again[1] != run[1], "a run that was cancelled before it began is no hindrance"
        assert (await client.read_flow_run(UUID(again[1]))).parameters["settings"]["budget"] == {"turns": 9, "dollars": 2.0}


HOSTILE = r"""
cd /workspace/docs && echo committed > a && git add a && git commit -qm 'Add a' && echo changed >> README.md && echo new > untracked
printf '#!/bin/sh\ntouch %s\n' OWNED > .git/hooks/post-checkout; chmod +x .git/hooks/*
cp .git/hooks/post-checkout .git/hooks/post-index-change
git config core.fsmonitor 'touch OWNED'; git config core.pager 'touch OWNED; cat'; git config alias.status '!touch OWNED'
git config filter.x.clean 'touch OWNED; cat'; echo '* filter=x' > .git/info/attributes
git init -q --bare nested; git -C nested config core.fsmonitor 'touch OWNED'; git -C nested config core.bare false
ln -s /etc/passwd leads-out; ln -s README.md stays; ln -s .git/config config; mkfifo pipe; chmod 4755 untracked
"""


@pytest.mark.parametrize("source", ["directory", "snapshot"])
def test_a_teleported_workspace_is_whole_and_runs_nothing(
    online: Terminal, claude: StartClaude, forge: LocalForge, ask: str, source: str
) -> None:
    """Commits, changes and untracked files are there; of hooks, configuration, links out and special files nothing is."""
    docs = forge.repository("docs", {"README.md": "# Docs\n"})
    owned = online.directory / "owned"
    script = claude([say(call("bash", command=HOSTILE.replace("OWNED", str(owned)))), DONE])
    session = begin(online, ask, docs.url, **script.environment())["id"]
    if source == "snapshot":
        shutil.rmtree(Path(os.environ["ROUTINES_WORKSPACES"]) / session)
    (online.directory / "full").mkdir()
    (online.directory / "full" / "x").touch()
    refused = online.run("teleport", session, "full")
    assert refused.status == 2
    assert "is not an empty folder; name a new one" in refused.err
    done = online.run("teleport", session, "here")
    assert done.status == 0, done.err
    assert re.search(r"^    docs: branch main at \w{12} · nothing was pushed$", done.out, re.MULTILINE), done.out
    for said in ("docs/leads-out: a link that leads out", "docs/nested: a bare git repository", "docs/pipe: neither a file"):
        assert f"    left out {said}" in done.out
    here = online.directory / "here" / "docs"

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout

    assert git("log", "--format=%s").splitlines() == ["Add a", "Commit 1"]
    assert git("status", "--porcelain").splitlines() == [" M README.md", "?? stays", "?? untracked"]
    assert git("rev-parse", "--abbrev-ref", "HEAD").strip() == "main"
    assert git("rev-parse", "origin/main").strip() == docs.sha("main")
    assert git("fsck", "--strict") == ""
    git("add", "-A")
    git("checkout", "-q", "-b", "mine")
    assert not owned.exists()
    assert list(here.glob(".git/hooks/*")) == []
    assert (here / "untracked").stat().st_mode & 0o7000 == 0
    assert (here / "stays").read_text() == "# Docs\nchanged\n"
