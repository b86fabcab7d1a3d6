"""Keeps the run page up to date: artifacts updated in place, tags and labels. In the background: no turn waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

from prefect_routines.session import page
from prefect_routines.visible import slug

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.session.session import Session
    from prefect_routines.verdict import Outcome

PAUSE = 2.0  # seconds between two updates while the session works


class Publisher:
    """The artifacts of one session on the page of its run."""

    def __init__(self, session: Session, client: PrefectClient) -> None:
        self._session, self._client = session, client
        self._news = asyncio.Event()
        self._ids: dict[str, UUID] = {}
        self._found = session.flow_run.attempt < 2  # the first process of a run has none before it
        self._shown: dict[str, str] = {}
        self._outcome: Outcome | None = None
        self._turn = asyncio.Lock()  # the background and the end must not both make the same artifact

    @classmethod
    @asynccontextmanager
    async def open(cls, session: Session) -> AsyncIterator[Publisher]:
        """Publish while the block runs."""
        from prefect import get_client

        async with get_client() as client:
            publisher = cls(session, client)
            working = asyncio.create_task(publisher._work(), name="run page")
            try:
                yield publisher
            finally:
                working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await working

    def notice(self) -> None:
        """There is something new to show."""
        self._news.set()

    async def show_now(self) -> None:
        """Show where things stand, before the session waits; a page that cannot be reached holds nothing up."""
        with contextlib.suppress(Exception):
            await self._show()

    async def finish(self, outcome: Outcome) -> None:
        """Show the end. A page that cannot be reached does not undo the work: it is only logged."""
        try:
            self._outcome = outcome
            await self._show()
            run = await self._client.read_flow_run(UUID(self._session.flow_run.id))
            kept = [tag for tag in run.tags if not tag.startswith("verdict:") and tag != "rehearsal"]
            await self._client.update_flow_run(
                run.id, tags=[*kept, f"verdict:{outcome.verdict}", *(["rehearsal"] if outcome.rehearsal else [])]
            )
            if "routines.session" not in (run.labels or {}):
                await self._label()
        except Exception as error:
            self._session.log(f"The run page could not be updated: {error}")

    async def _work(self) -> None:
        with contextlib.suppress(Exception):  # made up for at the end
            await self._label()
        while True:
            await self._news.wait()
            await asyncio.sleep(PAUSE)  # before, not after: what a beginning session has to show would hold up its first turn
            self._news.clear()
            with contextlib.suppress(Exception):  # tried again with the next entry
                await self._show()

    async def _label(self) -> None:
        await self._client.update_flow_run_labels(UUID(self._session.flow_run.id), {"routines.session": self._session.id})

    async def _show(self) -> None:
        async with self._turn:
            await self._show_pages()

    async def _show_pages(self) -> None:
        session, state, outcome = self._session, self._session.transcript, self._outcome
        pages = {
            "summary": page.summary(
                state, session.settings, session_id=session.id, routine=session.routine, outcome=outcome, address=session.link or ""
            ),
            "transcript": page.transcript_page(session.journal),
            "usage": page.usage(session.journal),
        }
        if state.checks:
            pages["checks"] = page.checks(state)
        if state.outputs:
            pages["writes"] = page.writes(state)
        if state.pushes:
            pages["diff"] = page.diff(state)
        lines = page.headlines(state, outcome)
        for name, text in pages.items():
            await self._put(name, session.redact(lines[name]), session.redact(text))

    async def _put(self, name: str, line: str, text: str) -> None:
        from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate

        if self._shown.get(name) == line + text:
            return
        if not self._found:
            await self._find()
        if name in self._ids:
            await self._client.update_artifact(self._ids[name], ArtifactUpdate(description=line, data=text))
        else:
            run = UUID(self._session.flow_run.id)
            made = await self._client.create_artifact(
                ArtifactCreate(key=self._key(name), type="markdown", description=line, data=text, flow_run_id=run)
            )
            self._ids[name] = made.id
        self._shown[name] = line + text

    def _key(self, name: str) -> str:
        return f"{slug(self._session.routine)}-{slug(self._session.name)}-{name}"

    async def _find(self) -> None:
        """Artifacts that an earlier process of this run made are taken over, not made twice."""
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(self._session.flow_run.id)]))
        for artifact in await self._client.read_artifacts(artifact_filter=of_run):
            if artifact.key and artifact.key.startswith(self._key("")):
                self._ids.setdefault(artifact.key.removeprefix(self._key("")), artifact.id)
        self._found = True
