"""What a person sees of a run: states, tags, artifacts, names, the form."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun

from prefect_routines import Session, Settings
from prefect_routines.testing import Request, ScriptedClaude, call, say
from prefect_routines.testing.forge import LocalForge
from waiting import until, until_async

from .world import NOTHING, REPORT, Ran, artifacts, run

pytestmark = pytest.mark.usefixtures("prefect")


async def task_names(ran: Ran, count: int) -> list[str]:
    """Names of the run's task runs; the server hears of them by events, so they are waited for."""
    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[ran.run.id]))
    async with get_client() as client:

        async def look() -> list[TaskRun] | None:
            listed = await client.read_task_runs(flow_run_filter=of_run)
            ended = all(task.state is not None and task.state.is_final() for task in listed)
            return listed if ended and len(listed) >= count else None

        listed = await until_async(look, 30, every=0.1)
        return [task.name for task in sorted(listed, key=lambda task: task.expected_start_time or task.start_time)]


async def test_tasks_are_named_for_the_person_who_reads() -> None:
    """Each turn and each call is a task run."""
    script = [
        say("Look.", call("bash", command="echo   a\necho b"), call("glob", pattern="*.py")),
        say(call("write", path="a.txt", content="x" * 500)),
        NOTHING,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    names = await task_names(ran, 8)
    assert sorted(names) == sorted(
        ["Prepare", "Turn 1", "bash: echo a echo b", "glob: *.py", "Turn 2", "write: a.txt", "Turn 3", "report: nothing_to_do"]
    )


async def test_names_hide_nothing() -> None:
    """Escape codes and direction marks in a command are shown, not obeyed; a long one is cut."""
    script = [say(call("bash", command="true \x1b[2J\u202e" + "x" * 300)), NOTHING]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    [name] = [name for name in await task_names(ran, 5) if name.startswith("bash")]
    assert name.startswith("bash: true \\x1b[2J\\u202exxx")
    assert len(name) <= 100


async def test_artifacts_and_tag_of_a_run_that_pushed(tmp_path: Path) -> None:
    """Summary, transcript, usage, checks and diff are there, once each; the verdict is a tag; the session a label."""
    docs = LocalForge(tmp_path).repository("docs", files={"api.md": "# API\n"})
    tmp_path.chmod(0o755)
    script = [
        say("I mend it.", call("bash", command="cd docs && echo '`<b>hello`' >> api.md && git commit -qam 'Say hello'")),
        say(call("push", repository="docs")),
        REPORT,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(
            claude,
            repositories=[docs.url],
            policy={"allow": ["push(repository=docs) x1"]},
            checks=[{"repository": "docs", "command": "grep hello api.md"}],
        )
    assert ran.state.is_completed(), ran.message
    pages = await artifacts(ran.run.id)
    assert sorted(pages) == [f"work-main-{name}" for name in ("checks", "diff", "summary", "transcript", "usage", "writes")]
    assert "done" in pages["work-main-summary"]
    assert "+`<b>hello`" in pages["work-main-diff"]
    assert "✓ docs" in pages["work-main-checks"]
    assert "I mend it" in pages["work-main-transcript"]
    assert pages["work-main-usage"].count("\n| ") >= 3
    assert "verdict:done" in ran.run.tags
    assert [push.branch for push in docs.pushes] == [re.sub(r"docs: (.*) @ .*", r"\1", ran.outcome.branches[0])]
    assert ran.run.labels["routines.session"] == ran.outcome.session_id


async def test_the_page_is_there_while_the_session_works() -> None:
    """The same artifacts, updated in place: before the end they say that it is working."""
    seen: dict[str, Any] = {}

    def look(request: Request) -> Any:
        url = os.environ["PREFECT_API_URL"]

        def read() -> dict[str, Any]:
            found = httpx.post(f"{url}/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 20}).json()
            return {one["id"]: one for one in found if one["key"] == "work-watched-summary"}

        seen.update(until(read))
        return NOTHING

    @flow(name="work")
    async def watched() -> None:
        async with Session("watched", Settings()) as session:
            await session.run("Do it.")

    with ScriptedClaude([look]) as claude:
        os.environ.update(claude.environment())
        await asyncio.to_thread(asyncio.run, watched())
    [(id, before)] = seen.items()
    assert "working" in before["data"]
    async with get_client() as client:
        after = (await client.request("GET", f"/artifacts/{id}")).json()
    assert "nothing\\_to\\_do" in after["data"]


async def test_failed_runs_have_their_verdict_too() -> None:
    """needs_attention is red: the work is not done."""
    script = [say(call("report", verdict="needs_attention", summary="A person must decide.\nOn this."))]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    assert ran.state.is_failed()
    assert ran.state.name == "Failed"
    assert ran.message == "needs_attention: A person must decide."
    assert "verdict:needs_attention" in ran.run.tags
    assert "work-main-summary" in await artifacts(ran.run.id)
