"""From the inbox to runs: each delivery is accounted for at each deployment whose trigger fits, and starts it once."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.gateway.dispatcher import Dispatcher
from prefect_routines.store import Delivery, Dispatch, Store
from waiting import until_async

from .inbox_world import answering, became, deliver, deploy, issue, runs_of, set_state, unique

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(180)]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}") as store:
        yield store


@pytest.fixture
async def dispatcher(store: Store) -> AsyncIterator[Dispatcher]:
    async def identities(source: str) -> list[str]:
        return ["docs-bot"]

    async with Dispatcher(store, identities) as dispatcher:
        yield dispatcher


@pytest.fixture
def repository() -> str:
    """A repository of the test's own, so that tests do not trigger each other's deployments."""
    return f"acme/{unique('docs')}"


async def test_a_delivery_starts_each_matching_deployment_once(store: Store, dispatcher: Dispatcher, repository: str) -> None:
    """The automation makes the run with the event's id as its parameter; one for another repository stays out of it."""
    resource = {"prefect.resource.id": f"github.repository.{repository}"}
    one, two = await deploy(answering(), match=resource), await deploy(answering(), match=resource, gated=False)
    other = await deploy(answering(), match={"prefect.resource.id": "github.repository.acme/elsewhere"})
    delivery = await deliver(store, "issues", issue(repository))
    dispatches = await became(store, dispatcher, delivery)
    assert {(d.deployment_id, d.status) for d in dispatches} == {(one, "started"), (two, "started")}
    for dispatch in dispatches:
        [run] = await runs_of(dispatch.deployment_id)
        assert (str(run.id), run.parameters["event"]) == (dispatch.flow_run_id, delivery.id)
        assert run.created_by is not None
        assert run.created_by.type == "AUTOMATION"
    assert await runs_of(other) == []


async def test_what_no_trigger_fits_is_said_to_be_unmatched(store: Store, dispatcher: Dispatcher, repository: str) -> None:
    """It is told so, not left open."""
    delivery = await deliver(store, "issues", issue(repository, action="pinned"))
    assert await became(store, dispatcher, delivery, status="unmatched") == []


@pytest.mark.parametrize("gated", [True, False])
async def test_a_filter_on_the_payload_is_asked_before_there_is_a_run(
    store: Store, dispatcher: Dispatcher, repository: str, gated: bool
) -> None:
    """A gated trigger makes no run; of one that is not gated Prefect makes a run, which finds the delivery filtered."""
    resource = {"prefect.resource.id": f"github.repository.{repository}"}
    deployment = await deploy(answering(when=[{"path": "issue.title", "contains": "docs"}]), match=resource, gated=gated)
    fits = [await deliver(store, "issues", issue(repository, number=number, title="About the docs")) for number in (1, 2)]
    [dispatch] = await became(store, dispatcher, fits[0])
    assert dispatch.status == "started"
    delivery = await deliver(store, "issues", issue(repository))
    [dispatch] = await became(store, dispatcher, delivery)
    assert dispatch.status == "filtered"
    assert "issue.title" in (dispatch.reason or "")
    await became(store, dispatcher, fits[1])
    expected = {one.id for one in fits} | (set() if gated else {delivery.id})

    async def as_expected() -> bool:
        return {run.parameters["event"] for run in await runs_of(deployment)} == expected

    await until_async(as_expected)


async def test_a_deployment_may_say_otherwise_than_its_routine(store: Store, dispatcher: Dispatcher, repository: str) -> None:
    """Its own `settings.when` replaces the author's."""
    resource = {"prefect.resource.id": f"github.repository.{repository}"}
    authors = answering(when=[{"path": "issue.title", "contains": "docs"}])
    await deploy(authors, match=resource, settings={"when": [{"path": "issue.title", "contains": "broken"}]})
    [dispatch] = await became(store, dispatcher, await deliver(store, "issues", issue(repository)))
    assert dispatch.status == "started"


async def test_a_paused_routine_starts_nothing(store: Store, dispatcher: Dispatcher, repository: str) -> None:
    """The inbox says why."""
    deployment = await deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"}, paused=True)
    [dispatch] = await became(store, dispatcher, await deliver(store, "issues", issue(repository)))
    assert (dispatch.status, await runs_of(deployment)) == ("paused", [])


async def test_what_prefect_counts_is_left_to_prefect(store: Store, dispatcher: Dispatcher, repository: str) -> None:
    """A trigger with a threshold fires at its second event; no single delivery is held to start a run."""
    deployment = await deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"}, threshold=2, gated=False)
    for number in (1, 2):
        await became(store, dispatcher, await deliver(store, "issues", issue(repository, number=number)), status="unmatched")

    async def started() -> list[object]:
        return list(await runs_of(deployment))

    assert len(await until_async(started)) == 1


class TestOurOwnDoings:
    """Events that our own routines cause."""

    @pytest.mark.parametrize(("own_events", "status"), [("ignore", "own"), ("others", "started"), ("all", "started")])
    async def test_what_a_session_wrote(self, store: Store, dispatcher: Dispatcher, repository: str, own_events: str, status: str) -> None:
        """An issue whose address is among our outputs was opened by that session; another routine answers only if told to."""
        await _wrote(store, f"https://github.com/{repository}/issues/7", deployment_id="another")
        await deploy(answering(own_events=own_events), match={"prefect.resource.id": f"github.repository.{repository}"})
        [dispatch] = await became(store, dispatcher, await deliver(store, "issues", issue(repository)))
        assert dispatch.status == status
        if status == "started":
            assert dispatch.depth == 1
        else:
            assert "one of our sessions" in (dispatch.reason or "")

    @pytest.mark.parametrize(("own_events", "status"), [("others", "own"), ("all", "started")])
    async def test_a_routine_does_not_answer_to_itself(
        self, store: Store, dispatcher: Dispatcher, repository: str, own_events: str, status: str
    ) -> None:
        """Unless it says 'all'."""
        deployment = await deploy(answering(own_events=own_events), match={"prefect.resource.id": f"github.repository.{repository}"})
        await _wrote(store, f"https://github.com/{repository}/issues/7", deployment_id=deployment)
        [dispatch] = await became(store, dispatcher, await deliver(store, "issues", issue(repository)))
        assert dispatch.status == status

    async def test_a_chain_ends(self, store: Store, dispatcher: Dispatcher, repository: str) -> None:
        """Each run carries its depth along; at the limit nothing more is started."""
        deployment = await deploy(
            answering(own_events="all", chain_depth=3, coalesce="new"), match={"prefect.resource.id": f"github.repository.{repository}"}
        )
        statuses = []
        for number in range(1, 5):
            delivery = await deliver(store, "issues", issue(repository, number=number))
            [dispatch] = await became(store, dispatcher, delivery)
            statuses.append((dispatch.status, dispatch.depth))
            address = f"https://github.com/{repository}/issues/{number + 1}"
            await _wrote(store, address, deployment_id=deployment, session_id=dispatch.session_id)
        assert statuses == [("started", 0), ("started", 1), ("started", 2), ("too-deep", 3)]

    async def test_our_identity(self, store: Store, dispatcher: Dispatcher, repository: str) -> None:
        """What our login did, and no session has on record, could go round for ever: it starts nothing."""
        await deploy(answering(own_events="all"), match={"prefect.resource.id": f"github.repository.{repository}"})
        delivery = await deliver(store, "issues", issue(repository, sender="Docs-Bot", user={"login": "Docs-Bot"}))
        [dispatch] = await became(store, dispatcher, delivery)
        assert dispatch.status == "own"
        assert "an identity of our routines" in (dispatch.reason or "")


async def _wrote(store: Store, link: str, *, deployment_id: str, session_id: str | None = None) -> None:
    """A session of ours has a finished write on record."""
    made = await store.create_session(
        session_id=session_id or unique("ses"), routine="r", flow_run_id=unique("run"), deployment_id=deployment_id
    )
    lease = await store.acquire(made.id)
    output, _ = await store.begin_output(
        lease, tool_use_id="t", tool="github_open_issue", target="acme/docs", rule=None, request={}, max_per_rule=None
    )
    await store.finish_output(lease, output.id, status="done", result={}, link=link)
    await store.release(lease)


class TestOneAtATime:
    """A further delivery about the same thing, while a run is at it."""

    async def test_the_newest_waits(self, store: Store, dispatcher: Dispatcher, repository: str) -> None:
        """Of three the first runs, the second is superseded, the third runs when the first has ended; one about something else at once."""
        deployment = await deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"})
        three = []
        for _ in range(3):
            delivery = await deliver(store, "issues", issue(repository))
            await became(store, dispatcher, delivery)
            three.append(delivery)
        other = await deliver(store, "issues", issue(repository, number=8))
        assert [d.status for d in await became(store, dispatcher, other)] == ["started"]
        assert await _statuses(store, three) == ["started", "superseded", "queued"]
        first = next(run for run in await runs_of(deployment) if run.parameters["event"] == three[0].id)
        await set_state(first.id, "COMPLETED")

        async def released() -> bool:
            dispatcher.wake()
            return await _statuses(store, three) == ["ended", "superseded", "started"]

        await until_async(released)
        assert [run.parameters["event"] for run in await runs_of(deployment)] == [three[0].id, other.id, three[2].id]

    @pytest.mark.parametrize(("coalesce", "statuses"), [("new", ["started", "started"]), ("skip", ["started", "skipped"])])
    async def test_other_ways(self, store: Store, dispatcher: Dispatcher, repository: str, coalesce: str, statuses: list[str]) -> None:
        """A run of its own, or none."""
        await deploy(answering(coalesce=coalesce), match={"prefect.resource.id": f"github.repository.{repository}"})
        two = [await deliver(store, "issues", issue(repository)) for _ in range(2)]
        for delivery in two:
            await became(store, dispatcher, delivery)
        assert await _statuses(store, two) == statuses

    async def test_a_message_goes_to_the_session_that_is_at_it(self, store: Store, dispatcher: Dispatcher, repository: str) -> None:
        """Its dispatch names that session."""
        await deploy(answering(coalesce="message"), match={"prefect.resource.id": f"github.repository.{repository}"})
        two = [await deliver(store, "issues", issue(repository)) for _ in range(2)]
        [first], [second] = [await became(store, dispatcher, delivery) for delivery in two]
        assert (second.status, second.session_id) == ("messaged", first.session_id)


async def _statuses(store: Store, deliveries: list[Delivery]) -> list[str]:
    found = await store.dispatches(delivery_ids=[delivery.id for delivery in deliveries])
    by_id = {dispatch.delivery_id: dispatch.status for dispatch in found}
    return [by_id[delivery.id] for delivery in deliveries]


async def test_a_fire_call_needs_no_trigger(store: Store, dispatcher: Dispatcher) -> None:
    """The run is asked for directly, once, whatever happens in between; it carries the delivery and the session that were named."""
    deployment = await deploy(answering(), expect="nothing.like.this")
    delivery_id = str(uuid.uuid4())
    delivery = Delivery(delivery_id, "api", delivery_id, "fire", "{}", event="routines.fire", status="received")
    named = Dispatch(delivery_id, deployment, "answer/d", "waiting", "ses-1")
    await store.record_delivery(delivery, named)
    [dispatch] = await became(store, dispatcher, delivery)
    [run] = await runs_of(deployment)
    assert (dispatch.status, dispatch.flow_run_id) == ("started", str(run.id))
    assert (run.parameters["event"], run.labels["routines.delivery"], run.labels["routines.session"]) == (delivery_id, delivery_id, "ses-1")


async def test_a_deleted_deployment_is_refused(store: Store, dispatcher: Dispatcher) -> None:
    """It does not hold up the inbox."""
    delivery_id = str(uuid.uuid4())
    delivery = Delivery(delivery_id, "api", delivery_id, "fire", "{}", event="routines.fire", status="received")
    await store.record_delivery(delivery, Dispatch(delivery_id, str(uuid.uuid4()), "answer/gone", "waiting", "ses-1"))
    [dispatch] = await became(store, dispatcher, delivery)
    assert (dispatch.status, dispatch.reason) == ("refused", "the deployment was deleted")


async def test_a_second_gateway_takes_over(store: Store, repository: str) -> None:
    """A delivery that was recorded, and whose gateway died before it looked, is dispatched by the next one."""
    await deploy(answering(), match={"prefect.resource.id": f"github.repository.{repository}"})
    delivery = await deliver(store, "issues", issue(repository))
    async with Dispatcher(store) as one, Dispatcher(store) as two:
        two.wake()
        [dispatch] = await became(store, one, delivery)
    assert dispatch.status == "started"
    assert len(await runs_of(dispatch.deployment_id)) == 1
