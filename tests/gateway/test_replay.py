"""A delivery once more: a new record, decided about like any other, or for the one deployment that is named."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.errors import SettingsError
from prefect_routines.gateway.dispatcher import Dispatcher
from prefect_routines.gateway.replay import once_more, replay, replayed
from prefect_routines.store import Delivery, Dispatch, Store

from .inbox_world import answering, became, deliver, deploy, issue, runs_of, unique

pytestmark = pytest.mark.timeout(180)
ORIGINAL = Delivery("d1", "github", "guid", "issues", '{"a": "\ud800"}', event="github.issues.opened", labels={"resource": {"a": "b"}})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def test_it_is_a_delivery_of_its_own() -> None:
    """Same content, other ids and digest, so that it counts as no duplicate; it says what it repeats where no sender can write."""
    again, dispatch = once_more(ORIGINAL, None)
    assert dispatch is None
    assert uuid.UUID(again.id)
    assert again.delivery_id == f"replay-{again.id}"
    assert again.body_sha256 not in (ORIGINAL.body_sha256, once_more(ORIGINAL, None)[0].body_sha256)
    assert (again.body, again.event, again.kind, again.status) == (ORIGINAL.body, ORIGINAL.event, "issues", "received")
    assert (replayed(again), replayed(ORIGINAL)) == ("d1", None)
    assert again.note == "replay of d1"


def test_what_cannot_be_replayed() -> None:
    """What was refused, is still under way, or starts nothing by itself; each says what to do instead."""
    cases = [
        (Delivery("d", "github", "g", "", "{", status="refused", note="no JSON"), None, "was refused \\(no JSON\\)"),
        (Delivery("d", "github", "g", "", "{", status="refused"), ("id", "a/b"), "has to send it again"),
        (Delivery("d", "github", "g", "issues", "{}", status="received", event="github.issues.opened"), None, "still being worked on"),
        (Delivery("d", "github", "g", "ping", "{}", status="ping"), None, "--deployment"),
        (Delivery("d", "person", "g", "text", "go"), None, "--deployment"),
    ]
    for delivery, to, told in cases:
        with pytest.raises(SettingsError, match=told):
            once_more(delivery, to)


@pytest.mark.usefixtures("prefect_server")
class TestOnAServer:
    """With the dispatcher of a gateway at work."""

    @pytest.fixture
    async def dispatcher(self, store: Store) -> AsyncIterator[Dispatcher]:
        async with Dispatcher(store) as dispatcher:
            yield dispatcher

    @pytest.fixture
    def repository(self) -> str:
        return f"acme/{unique('docs')}"

    async def _again(self, store: Store, dispatcher: Dispatcher, delivery: Delivery, to: tuple[str, str] | None = None) -> list[Dispatch]:
        whole = await store.delivery(delivery.id)
        assert whole is not None
        again, _ = await replay(store, whole, to)
        return await became(store, dispatcher, again)

    async def test_triggers_decide_about_it(self, store: Store, dispatcher: Dispatcher, repository: str) -> None:
        """A second run of the routine that it fits, with a session of its own; a filtered one is filtered again."""
        resource = {"prefect.resource.id": f"github.repository.{repository}"}
        runs = await deploy(answering(coalesce="new"), match=resource)
        filters = await deploy(answering(when=[{"path": "issue.title", "contains": "docs"}]), match=resource)
        delivery = await deliver(store, "issues", issue(repository))
        first = {one.deployment_id: one for one in await became(store, dispatcher, delivery)}
        second = {one.deployment_id: one for one in await self._again(store, dispatcher, delivery)}
        for both in (first, second):
            ours = {name: one.status for name, one in both.items() if name in (runs, filters)}  # other tests' routines may see it, too
            assert ours == {runs: "started", filters: "filtered"}
        assert first[runs].session_id != second[runs].session_id
        events = [run.parameters["event"] for run in await runs_of(runs)]
        assert events == [delivery.id, second[runs].delivery_id]
        assert await runs_of(filters) == []

    async def test_for_one_deployment(self, store: Store, dispatcher: Dispatcher, repository: str) -> None:
        """It runs though its trigger is about something else, once, with the session that was named; the other stays out of it."""
        other = await deploy(answering(coalesce="new"), match={"prefect.resource.id": f"github.repository.{repository}"})
        named = await deploy(answering(), expect="nothing.like.this")
        delivery = await deliver(store, "issues", issue(repository))
        await became(store, dispatcher, delivery)
        [dispatch] = await self._again(store, dispatcher, delivery, (named, "answer/named"))
        [run] = await runs_of(named)
        assert (dispatch.status, dispatch.flow_run_id) == ("started", str(run.id))
        assert run.parameters["event"] == dispatch.delivery_id
        assert run.labels["routines.session"] == dispatch.session_id
        assert len(await runs_of(other)) == 1

    async def test_a_call_goes_where_it_went(self, store: Store, dispatcher: Dispatcher) -> None:
        """A fire call named its deployment."""
        deployment = await deploy(answering(), expect="nothing.like.this")
        own = str(uuid.uuid4())
        call = Delivery(own, "api", own, "fire", "{}", event="routines.fire", status="received")
        await store.record_delivery(call, Dispatch(own, deployment, "answer/d", "waiting", "ses-1"))
        await became(store, dispatcher, call)
        settled = await store.delivery(own)
        assert settled is not None
        [dispatch] = await self._again(store, dispatcher, settled)
        assert (dispatch.deployment_id, dispatch.deployment) == (deployment, "answer/d")
        assert [run.parameters["event"] for run in await runs_of(deployment)] == [own, dispatch.delivery_id]
