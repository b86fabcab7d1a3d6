"""What the session tests share: run a script against the real machinery, and look at what came of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

from prefect import State, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun

from prefect_routines.errors import RoutinesError
from prefect_routines.events import Event
from prefect_routines.routines import Routine
from prefect_routines.session.transcript import Transcript
from prefect_routines.settings import Settings
from prefect_routines.store import Entry, Output, Store
from prefect_routines.store.records import Spent
from prefect_routines.testing import Request, ScriptedClaude, call, say
from prefect_routines.tools.tool import Tool
from prefect_routines.verdict import Outcome, WorkNotDone

PROMPT = "Do the work."
REPORT = say(call("report", verdict="done", summary="All is done. And well."))
NOTHING = say(call("report", verdict="nothing_to_do", summary="There was nothing to do."))


@dataclass
class Ran:
    """A finished run."""

    state: State[Any]
    claude: ScriptedClaude
    run: FlowRun
    journal: list[Entry] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    @property
    def requests(self) -> list[Request]:
        return self.claude.requests

    @property
    def message(self) -> str:
        return self.state.message or ""

    @property
    def outcome(self) -> Outcome:
        data = self.state.data
        value = getattr(data, "result", data)
        return value.outcome if isinstance(value, WorkNotDone) else value

    @property
    def error(self) -> RoutinesError:
        data = self.state.data
        value = getattr(data, "result", data)
        assert isinstance(value, RoutinesError), value
        return value

    @property
    def transcript(self) -> Transcript:
        return Transcript.of(self.journal)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """The data of the journal's entries of one kind."""
        return [entry.data for entry in self.journal if entry.kind == kind]

    @property
    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.journal]


async def run(
    claude: ScriptedClaude,
    /,
    *,
    tools: Sequence[Tool] = (),
    prompt: str = PROMPT,
    event: Event | None = None,
    settings: Settings | None = None,
    override: dict[str, Any] | None = None,
    **fields: Any,
) -> Ran:
    """Run a routine once against `claude`, as Prefect would, and read back what the store and Prefect kept of it."""
    os.environ.update(claude.environment())

    def work(event: Event | None = None) -> str:
        return prompt

    flow = Routine(work, settings=settings or Settings(**fields), tools=tools)
    state = await flow(event=event, settings=override, return_state=True)
    return await found(state, claude)


async def found(state: State[Any], claude: ScriptedClaude) -> Ran:
    """A run by its final state."""
    async with get_client() as client:
        flow_run = await client.read_flow_run(state.state_details.flow_run_id)
    ran = Ran(state, claude, flow_run)
    async with await Store.open() as store:
        for record in await store.sessions(limit=20):
            if record.flow_run_id == str(flow_run.id):
                ran.journal = list(await store.entries(record.id))
                ran.outputs = await store.outputs(record.id)
                ran.spent = await store.spent(session_id=record.id)
    return ran


async def artifacts(flow_run_id: UUID) -> dict[str, Any]:
    """The run's artifacts by key; fails if there are two of one key."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    async with get_client() as client:
        listed = await client.read_artifacts(artifact_filter=of_run)
    assert len({artifact.key for artifact in listed}) == len(listed)
    return {str(artifact.key): artifact.data for artifact in listed}


def stripped(value: Any) -> Any:
    """The value without cache markers, which are no content."""
    if isinstance(value, dict):
        return {name: stripped(item) for name, item in value.items() if name != "cache_control"}
    return [stripped(item) for item in value] if isinstance(value, list) else value


def blocks(body: dict[str, Any]) -> list[str]:
    """All of a prompt as one row: tools, system and the blocks of the messages, as the very bytes that were sent, markers aside."""
    row = [*body["tools"], *body["system"]]
    row += [{"role": message["role"], "block": block} for message in body["messages"] for block in message["content"]]
    return [json.dumps(stripped(item), ensure_ascii=False) for item in row]


def is_continued(requests: Sequence[Request]) -> bool:
    """Whether each request begins with the whole of the one before it."""
    rows = [blocks(request.body) for request in requests]
    return all(later[: len(earlier)] == earlier for earlier, later in pairwise(rows))
