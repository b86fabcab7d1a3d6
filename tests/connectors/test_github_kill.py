"""kill -9 while a session writes to GitHub: whoever goes on looks there first, and each write has arrived once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.states import Crashed, Pending, Scheduled

from e2e.harness.pool import Pool, Run
from prefect_routines.store import Output, Store
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT

from . import github_routine
from .emulator import Emulator
from .github_world import DOCS, World, github_world

FLOW = f"{Path(github_routine.__file__)}:github_writes"
PULL = {"repository": DOCS, "head": "claude/new", "base": "main", "title": "New", "body": "It is new."}
COMMENT: dict[str, Any] = {"repository": DOCS, "number": 1, "body": "There is a pull request."}
SCRIPT = [say(call("github_open_pull_request", PULL)), say(call("github_comment", COMMENT)), REPORT]


@pytest.fixture(scope="module")
def pool(prefect_server: str) -> Iterator[Pool]:
    """A process that forks runners; the store has its tables, so all runs make the same writes."""
    assert prefect_server

    async def make_tables() -> None:
        await (await Store.open()).close()

    asyncio.run(make_tables())
    made = Pool()
    yield made
    made.close()


class Case:
    """A GitHub, a Claude and a flow run, which can be killed and retried."""

    def __init__(self, pool: Pool, place: Path, world: World) -> None:
        self._pool, self._place, self.world, self._runs = pool, place, world, 0
        world.branch("claude/new")
        name = f"kill-{uuid4().hex[:8]}"
        world.block().save(name)
        with get_client(sync_client=True) as client:
            settings = {"connectors": [f"github/{name}"], "model": "claude-opus-5-5"}
            made = client.create_flow_run(github_routine.github_writes, parameters={"settings": settings}, state=Pending())
        self.flow_run: UUID = made.id

    def start(self, claude: ScriptedClaude, **order: Any) -> Run:
        """Run it in a process of its own, which dies before or after its `kill`-th commit (of those that write `of`)."""
        self._runs += 1
        environment = claude.environment() | {"ROUTINES_LEASE_SECONDS": "600"}
        place = self._place / f"run-{self._runs}"
        return self._pool.start(place, environment=environment, flow=FLOW, flow_run=str(self.flow_run), **order)

    def retry(self, claude: ScriptedClaude) -> Run:
        """What a worker and `prefect flow-run retry` do."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self.flow_run, Crashed(message="killed by the test"), force=True)
            client.set_flow_run_state(self.flow_run, Scheduled(message="retried"), force=True)
        return self.start(claude)

    def outputs(self) -> list[Output]:
        """The session's writes as its store has them."""

        async def read() -> list[Output]:
            async with await Store.open() as store:
                return await store.outputs((await store.find(str(self.flow_run))).id)

        return asyncio.run(read())

    def arrived(self) -> tuple[int, int]:
        """How many pull requests and comments of the session GitHub has."""
        pulls = [item for item in self.world.get(f"/repos/{DOCS}/pulls", state="all") if item["head"]["ref"] == "claude/new"]
        return len(pulls), sum(text.startswith(COMMENT["body"]) for text in self.world.comments(self.world.issue))

    def judge(self) -> None:
        """One pull request and one comment, and the store says so."""
        assert self.arrived() == (1, 1)
        done = [("github_open_pull_request", "done"), ("github_comment", "done")]
        assert [(output.tool, output.status) for output in self.outputs()] == done


@pytest.mark.parametrize("write", ["pull request", "comment"])
@pytest.mark.parametrize(
    ("commit", "after", "arrived", "recorded"),
    [(1, False, 0, []), (1, True, 0, ["started"]), (2, False, 1, ["started"]), (2, True, 1, ["done"])],
    ids=["before it is recorded", "recorded and not sent", "sent and not recorded", "sent and recorded"],
)
def test_a_write_arrives_once(
    pool: Pool,
    emulator: Emulator,
    tmp_path: Path,
    write: str,
    commit: int,
    after: bool,
    arrived: int,
    recorded: list[str],
) -> None:
    """Killed at that moment, and gone on with: GitHub has one pull request and one comment. The emulator would take a second one."""
    earlier = 1 if write == "comment" else 0
    with github_world(emulator) as world, ScriptedClaude(SCRIPT) as claude:
        case = Case(pool, tmp_path, world)
        killed = case.start(claude, of="outputs", kill=2 * earlier + commit, after=after)
        assert killed.wait() == -signal.SIGKILL, killed.said[-3000:]
        assert case.arrived() == (1, arrived) if earlier else (arrived, 0)
        assert [output.status for output in case.outputs()] == ["done"] * earlier + recorded
        again = case.retry(claude)
        assert again.wait() == 0, again.said[-3000:]
        case.judge()
