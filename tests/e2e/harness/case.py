"""One session to be killed: its own forge, its own Claude, its own flow run; started, retried, and judged at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from prefect import State, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Crashed, Pending, Scheduled

from prefect_routines.config import config
from prefect_routines.session import pricing
from prefect_routines.session.transcript import Transcript
from prefect_routines.store import Entry, Output, SessionRecord, Store
from prefect_routines.store.records import Spent
from prefect_routines.testing import ScriptedClaude
from prefect_routines.testing.forge import LocalForge
from waiting import until

from . import routine
from .pool import Pool, Run
from .processes import Process, alive

FLOW = f"{Path(routine.__file__)}:two_repositories"


class Case:
    """A session and the world around it.

    Example:
        ```python
        with Case(pool, tmp_path) as case:
            killed = case.start(kill=12)
            killed.wait()
            case.retry().wait()
            case.judge(killed.tree)
        ```
    """

    def __init__(
        self,
        pool: Pool,
        place: Path,
        *,
        database_url: str | None = None,
        script: Any = None,
        deployed: bool = False,
        **environment: str,
    ) -> None:
        self._pool, self.place, self.database_url, self._deployed = pool, place, database_url, deployed
        forge = LocalForge(place / "forge")
        self.docs = forge.repository("docs", files=routine.DOCS)
        self.sdk = forge.repository("sdk", files=routine.SDK)
        self.claude = ScriptedClaude(script or routine.play())
        # a lease that long would not run out: whoever goes on has seen that its holder is dead
        self._environment = {"ROUTINES_LEASE_SECONDS": "600"} | environment
        if database_url:
            self._environment["ROUTINES_DATABASE_URL"] = database_url
        self.workspaces: Path | None = None
        """Where the runs keep their workspaces, if not where all tests do."""
        self._runs = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.claude.start()
        self._client = self._stack.enter_context(get_client(sync_client=True))
        self.settings: dict[str, Any] = {"repositories": [self.sdk.url, self.docs.url], "model": "claude-opus-5-5"}
        settings = self.settings
        if self._deployed:
            deployment = asyncio.run(_deploy())
            flow_run = self._client.create_flow_run_from_deployment(deployment, parameters={"settings": settings}, state=Pending())
        else:
            flow_run = self._client.create_flow_run(routine.two_repositories, parameters={"settings": settings}, state=Pending())
        self.flow_run: UUID = flow_run.id
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        self.claude.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a run of this session to its Claude and its store."""
        return self.claude.environment() | self._environment

    def start(self, *, kill: int | None = None, after: bool = False, of: str = "", **environment: str) -> Run:
        """Run the flow run in a process of its own, which dies before or after its `kill`-th commit (of those that write `of`)."""
        self._runs += 1
        place = self.place / f"run-{self._runs}"
        order = {"flow": FLOW, "flow_run": str(self.flow_run), "kill": kill, "after": after, "of": of}
        return self._pool.start(place, environment=self.environment | environment, **order)

    def resume(self, message: str) -> None:
        """Make a flow run that goes on with the session; it is the one that is started from now on."""
        settings = self.settings | {"resume": {"session": self.found().record.id, "message": message}}
        made = self._client.create_flow_run(routine.two_repositories, parameters={"settings": settings}, state=Pending())
        self.flow_run = made.id

    def crash(self) -> None:
        """What a worker does when the process of a run has died."""
        self._client.set_flow_run_state(self.flow_run, Crashed(message="killed by the test"), force=True)

    def retry(self, **options: Any) -> Run:
        """What `prefect flow-run retry` does; the command itself has a test of its own."""
        self.crash()
        self._client.set_flow_run_state(self.flow_run, Scheduled(message="retried"), force=True)
        return self.start(**options)

    # what became of it

    def found(self) -> Found:
        """The session as the store has it."""
        return asyncio.run(self._found())

    async def _found(self) -> Found:
        async with await Store.open(self.database_url) as store:
            record = await store.find(str(self.flow_run))
            entries, outputs = await store.entries(record.id), await store.outputs(record.id)
            return Found(record, entries, outputs, await store.spent(session_id=record.id))

    def has_session(self) -> bool:
        """Whether the flow run has begun its session."""
        return any(record.flow_run_id == str(self.flow_run) for record in asyncio.run(self._sessions()))

    def lease_ran_out(self) -> bool:
        """Whether the session's lease is over."""
        until = self.found().record.leased_until
        return until is None or until < datetime.now(UTC)

    async def _sessions(self) -> list[SessionRecord]:
        async with await Store.open(self.database_url) as store:
            return await store.sessions(limit=10)

    @property
    def workspace(self) -> Path:
        """The session's workspace on the host."""
        return (self.workspaces or config().workspaces) / self.found().record.id / "workspace"

    def ran(self, log: str = "runs.log") -> list[str]:
        """The names of the commands that have begun, or of those that were repeated (`again.log`)."""
        path = self.workspace / log
        return path.read_text().split() if path.exists() else []

    def go(self) -> None:
        """Let the commands end that wait for it."""
        (self.workspace / "go").touch()

    @property
    def state(self) -> State[Any]:
        """The flow run's state."""
        state = self._client.read_flow_run(self.flow_run).state
        assert state is not None
        return state

    def judge(self, *trees: list[Process], kills: int = 1) -> None:
        """The oracle: what must hold of every session that was killed and has come to its end."""
        for tree in trees:
            until(lambda tree=tree: not alive(tree), what="nothing of the killed process is left")  # type: ignore[misc]
        found = self.found()
        found.check_journal()
        self._check_end(found)
        self._check_remotes(found)
        self._check_requests(found, kills)
        self._check_calls(found)
        self._check_page()

    def _check_end(self, found: Found) -> None:
        flow_run = self._client.read_flow_run(self.flow_run)
        assert flow_run.state is not None
        assert (flow_run.state.name, flow_run.state.message) == ("Completed", "done: Documented.")
        assert "verdict:done" in flow_run.tags
        assert (found.record.status, found.record.verdict, found.record.leased_until) == ("ended", "done", None)

    def _check_remotes(self, found: Found) -> None:
        pushed = {push["repository"]: push for push in found.transcript.pushes}
        assert set(pushed) == {"docs", "sdk"}
        for repository in (self.docs, self.sdk):
            branch, sha = pushed[repository.name]["branch"], pushed[repository.name]["sha"]
            assert [(push.branch, push.old, push.new) for push in repository.pushes] == [(branch, None, sha)]
            assert set(repository.branches()) == {"main", branch}
        assert "loud=False" in self.docs.show(pushed["docs"]["branch"], "api.md")
        assert self.docs.log(pushed["docs"]["branch"]) == ["Spell it", "Document it", "Commit 1"]
        assert self.sdk.log(pushed["sdk"]["branch"]) == ["Say that it is documented", "Commit 1"]
        assert [output.status for output in found.outputs] == ["done", "done"]

    def _check_requests(self, found: Found, kills: int) -> None:
        assert self.claude.problems == []
        asked = Counter(request.turn for request in self.claude.requests)
        begun = Counter(entry.data["turn"] - 1 for entry in found.entries if entry.kind == "turn.start")
        assert set(asked) == set(range(found.transcript.turns))
        assert all(asked[turn] <= begun[turn] for turn in asked), "a turn was asked for that no journal entry had announced"
        again = [turn for turn in asked if asked[turn] > 1]
        assert sum(asked[turn] - 1 for turn in again) <= kills, f"turns {again} were asked for again"
        billed = [pricing.tokens_of(request.reply["usage"]) for request in self.claude.requests if request.reply]
        rounding = 1e-6 * len(billed)  # the store keeps whole millionths
        assert found.spent.dollars >= sum(pricing.dollars("claude-opus-5-5", tokens) for tokens in billed) - rounding
        assert found.spent.tokens >= sum(sum(tokens.values()) for tokens in billed)

    def _check_calls(self, found: Found) -> None:
        runs = Counter(self.ran())
        unknown = 0
        for call in found.transcript.all_calls.values():
            assert call.result is not None
            name = str(call.input.get("command", "")).partition("runs.log")[0].split()[1:2]
            if call.result["note"] == "interrupted":
                unknown += 1
                assert call.name in ("bash", "edit"), f"{call.name} finds out by itself what became of it"
                assert not name or runs[name[0]] <= 1
            elif name and "runs.log" in call.input["command"]:
                assert runs[name[0]] == 1, f"{name[0]} ran {runs[name[0]]} times"
        assert unknown or not self.ran("again.log")

    def _check_page(self) -> None:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.flow_run]))
        keys = [str(artifact.key) for artifact in self._client.read_artifacts(artifact_filter=of_run)]
        names = ["checks", "diff", "summary", "transcript", "usage", "writes"]
        assert sorted(keys) == [f"two-repositories-main-{name}" for name in names]


class Found:
    """A session read back from its store."""

    def __init__(self, record: SessionRecord, entries: list[Entry], outputs: list[Output], spent: Spent) -> None:
        self.record, self.entries, self.outputs, self.spent = record, entries, outputs, spent
        self.transcript = Transcript.of(entries)

    def check_journal(self) -> None:
        """Dense numbers, each call answered once, and a conversation that the Messages API would take."""
        assert [entry.seq for entry in self.entries] == list(range(1, len(self.entries) + 1))
        asked = [
            block["id"]
            for entry in self.entries
            if entry.kind == "agent.message"
            for block in entry.data["content"]
            if block["type"] == "tool_use"
        ]
        answered = [entry.data["id"] for entry in self.entries if entry.kind == "tool.result"]
        assert len(set(asked)) == len(asked)
        assert sorted(answered) == sorted(asked)
        roles = [message["role"] for message in self.transcript.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


async def _deploy() -> UUID:
    """A deployment of the routine on a pool of processes."""
    async with get_client() as client:
        with contextlib.suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name="kill-tests", type="process"))
        return await client.create_deployment(
            flow_id=await client.create_flow(routine.two_repositories),
            name="kill-tests",
            entrypoint=FLOW,
            work_pool_name="kill-tests",
            enforce_parameter_schema=False,
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(Path(FLOW).parent)}}],
        )
