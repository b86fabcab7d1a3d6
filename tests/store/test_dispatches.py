"""What became of a delivery at each deployment: decided once, claimed by one run, one run at a time for each key."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from prefect_routines.errors import StoreError
from prefect_routines.store import Delivery, Dispatch, DispatchStatus, Store
from prefect_routines.store.dispatches import WhenBusy

KEY = "acme/docs#7"


def _dispatch(delivery: str, status: DispatchStatus = "waiting", key: str | None = KEY, **changes: str) -> Dispatch:
    return replace(Dispatch(delivery, "dep-1", "docs/weekly", status, f"ses-{delivery}", key=key), **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
async def deliveries(store: Store) -> None:
    """Those that the tests dispatch."""
    for name in ("d1", "d2", "d3", *(f"n{number}" for number in range(12))):
        await store.record_delivery(Delivery(name, "github", name, "issues", name))


async def _write(store: Store, delivery: str, when_busy: WhenBusy = "queue", key: str | None = KEY) -> Dispatch:
    [written] = await store.write_dispatches([(_dispatch(delivery, key=key), when_busy)])
    return written


async def _statuses(store: Store) -> dict[str, str]:
    return {one.delivery_id: one.status for one in await store.dispatches()}


class TestDeciding:
    """What is written down first holds."""

    async def test_it_comes_back_as_it_was(self, store: Store) -> None:
        """Every field; text of strangers too."""
        made = replace(_dispatch("d1", "filtered", reason="\x00 \ud800 é"), depth=2, flow_run_id="run-1")
        assert await store.write_dispatches([(made, "new")]) == [made]
        assert await store.dispatches() == [made]

    async def test_a_second_decision_changes_nothing(self, store: Store) -> None:
        """A gateway that takes over after another decides again: the first decision, with its session, is returned."""
        first = _dispatch("d1", "filtered")
        await store.write_dispatches([(first, "new")])
        assert await store.write_dispatches([(_dispatch("d1", session_id="ses-other"), "new")]) == [first]
        assert await store.dispatches() == [first]

    async def test_all_or_nothing(self, store: Store) -> None:
        """One that cannot be written (its delivery is not there) takes the others along."""
        with pytest.raises(StoreError):
            await store.write_dispatches([(_dispatch("d1"), "new"), (_dispatch("never"), "new")])
        assert await store.dispatches() == []

    async def test_nothing_decided(self, store: Store) -> None:
        """No deployment, no row."""
        assert await store.write_dispatches([]) == []

    async def test_with_the_delivery(self, store: Store) -> None:
        """A call that names its deployment is recorded together with its dispatch; the same call again records neither."""
        delivery = Delivery("call", "api", "call", "fire", "{}", status="received")
        await store.record_delivery(delivery, _dispatch("call", key=None))
        again = replace(delivery, id="again")
        recorded, created = await store.record_delivery(again, _dispatch("again", key=None))
        assert (recorded.id, created) == ("call", False)
        assert [one.delivery_id for one in await store.dispatches()] == ["call"]


class TestOneAtATime:
    """A key that a run is busy with."""

    async def test_the_newest_waits_and_supersedes(self, store: Store) -> None:
        """Of three the first goes, the third waits; the second says which came after it."""
        first, second, third = [await _write(store, name) for name in ("d1", "d2", "d3")]
        assert (first.status, second.status, third.status) == ("waiting", "queued", "queued")
        assert "ses-d1" in (second.reason or "")
        assert await _statuses(store) == {"d1": "waiting", "d2": "superseded", "d3": "queued"}
        [superseded] = await store.dispatches(delivery_ids=["d2"])
        assert superseded.ended_at is not None
        assert "d3" in (superseded.reason or "")

    @pytest.mark.parametrize(("when_busy", "status"), [("skip", "skipped"), ("new", "waiting"), ("message", "messaged")])
    async def test_other_ways(self, store: Store, when_busy: WhenBusy, status: str) -> None:
        """It is left out, runs beside, or is a message to the session that is at it."""
        await _write(store, "d1")
        second = await _write(store, "d2", when_busy)
        assert second.status == status
        assert second.session_id == ("ses-d1" if when_busy == "message" else "ses-d2")

    async def test_another_key_deployment_or_none_is_free(self, store: Store) -> None:
        """Each runs beside."""
        await _write(store, "d1")
        assert (await _write(store, "d2", key="acme/docs#8")).status == "waiting"
        assert (await _write(store, "d3", key=None)).status == "waiting"
        [elsewhere] = await store.write_dispatches([(_dispatch("n0", deployment_id="dep-2"), "queue")])
        assert elsewhere.status == "waiting"

    async def test_what_starts_nothing_does_not_wait(self, store: Store) -> None:
        """A filtered one stays filtered, and what waits is not superseded by it."""
        await _write(store, "d1")
        await _write(store, "d2")
        [filtered] = await store.write_dispatches([(_dispatch("d3", "filtered"), "queue")])
        assert filtered.status == "filtered"
        assert (await _statuses(store))["d2"] == "queued"

    async def test_the_queue_moves_on(self, store: Store) -> None:
        """Not before the run has ended; then the newest goes, once."""
        first = await _write(store, "d1")
        await _write(store, "d2")
        assert await store.next_in_queue(first) is None
        await store.move_dispatch(first, "ended")
        moved = await store.next_in_queue(first)
        assert moved is not None
        assert (moved.delivery_id, moved.status) == ("d2", "waiting")
        assert await store.next_in_queue(first) is None
        assert await _statuses(store) == {"d1": "ended", "d2": "waiting"}

    async def test_twelve_at_once(self, store: Store) -> None:
        """However they come, one goes and one waits."""
        await asyncio.gather(*(_write(store, f"n{number}") for number in range(12)))
        found = list((await _statuses(store)).values())
        assert (found.count("waiting"), found.count("queued"), found.count("superseded")) == (1, 1, 10)


class TestClaiming:
    """One run for a delivery at a deployment."""

    def _by(self, run: str, delivery: str = "d1") -> Dispatch:
        return _dispatch(delivery, "started", flow_run_id=run, session_id=f"ses-of-{run}")

    async def test_the_first_run_has_it(self, store: Store) -> None:
        """With the session that was named when the delivery came in; a second run gets to see the first."""
        await _write(store, "d1")
        claimed = await store.claim(self._by("run-1"))
        assert (claimed.status, claimed.flow_run_id, claimed.session_id) == ("started", "run-1", "ses-d1")
        assert (await store.claim(self._by("run-2"))).flow_run_id == "run-1"

    async def test_the_same_run_again(self, store: Store) -> None:
        """A run that was restarted, also after it was thought to have ended."""
        await _write(store, "d1")
        claimed = await store.claim(self._by("run-1"))
        await store.move_dispatch(claimed, "ended")
        again = await store.claim(self._by("run-1"))
        assert (again.status, again.ended_at) == ("started", None)
        assert (await store.claim(self._by("run-2"))).flow_run_id == "run-1"

    async def test_what_nobody_decided_about(self, store: Store) -> None:
        """The run's own session counts: one of Prefect's events that no gateway saw."""
        claimed = await store.claim(self._by("run-1"))
        assert (claimed.flow_run_id, claimed.session_id) == ("run-1", "ses-of-run-1")

    @pytest.mark.parametrize("status", ["filtered", "queued", "superseded", "messaged", "skipped", "own", "too-deep", "paused", "refused"])
    async def test_what_was_decided_against(self, store: Store, status: DispatchStatus) -> None:
        """No run gets it, and the reason is told."""
        await store.write_dispatches([(_dispatch("d1", status, reason="because"), "new")])
        claimed = await store.claim(self._by("run-1"))
        assert (claimed.status, claimed.reason, claimed.flow_run_id) == (status, "because", None)

    async def test_ten_runs_at_once(self, store: Store) -> None:
        """All are told the same one."""
        await _write(store, "d1")
        answers = await asyncio.gather(*(store.claim(self._by(f"run-{number}")) for number in range(10)))
        assert len({one.flow_run_id for one in answers}) == 1


class TestMoving:
    """What is told about a dispatch changes only from the state it is believed to be in."""

    async def test_a_change_that_comes_too_late(self, store: Store) -> None:
        """A run has claimed it meanwhile; the change is not made, and that is told."""
        seen = await _write(store, "d1")
        await store.claim(replace(seen, status="started", flow_run_id="run-1"))
        assert not await store.move_dispatch(seen, "refused", reason="deleted")
        assert await store.move_dispatch(seen, "refused", reason="deleted", among=["waiting", "started"])

    async def test_what_is_kept(self, store: Store) -> None:
        """Reason and run stay unless they are given; the time of the end is set by states that are an end."""
        seen = await _write(store, "d1")
        await store.move_dispatch(seen, "started", flow_run_id="run-1")
        [started] = await store.dispatches(statuses=["started"])
        assert (started.flow_run_id, started.ended_at) == ("run-1", None)
        await store.move_dispatch(started, "ended", reason="over")
        [ended] = await store.dispatches()
        assert (ended.status, ended.flow_run_id, ended.reason) == ("ended", "run-1", "over")
        assert ended.ended_at is not None

    async def test_a_session_that_was_promised_and_is_not_run_ends(self, store: Store) -> None:
        """Whoever got its id in the answer to a call does not wait for ever; one that has begun is its run's own affair."""
        seen, busy = await _write(store, "d1", key=None), await _write(store, "d2", key=None)
        for one in (seen, busy):
            await store.create_session(session_id=one.session_id, routine="docs-sync", flow_run_id=None)
        lease = await store.acquire(busy.session_id)
        await store.move_dispatch(seen, "filtered", reason="issue.title contains 'docs'")
        await store.move_dispatch(busy, "filtered", reason="issue.title contains 'docs'")
        ended, going_on = [await store.session(one.session_id) for one in (seen, busy)]
        assert ended is not None
        assert (ended.status, ended.verdict, ended.shown) == ("ended", None, "not run")
        assert ended.summary == "filtered: issue.title contains 'docs'"
        assert going_on is not None
        assert going_on.status != "ended"
        await store.release(lease)

    async def test_only_that_one(self, store: Store) -> None:
        """Another delivery of the deployment, and another deployment of the delivery, stay as they are."""
        one, two = await _write(store, "d1", key=None), await _write(store, "d2", key=None)
        [three] = await store.write_dispatches([(_dispatch("d1", key=None, deployment_id="dep-2"), "new")])
        await store.move_dispatch(one, "ended")
        assert {(each.delivery_id, each.deployment_id): each.status for each in await store.dispatches()} == {
            ("d1", "dep-1"): "ended",
            (two.delivery_id, two.deployment_id): "waiting",
            (three.delivery_id, three.deployment_id): "waiting",
        }


async def test_choosing(store: Store) -> None:
    """By delivery, deployment, key, session and status; an empty choice of deliveries chooses none."""
    await _write(store, "d1")
    await store.write_dispatches([(_dispatch("d2", "filtered", key="k", deployment_id="dep-2"), "new")])
    choices: list[dict[str, object]] = [
        {"delivery_ids": ["d2"]}, {"deployment_id": "dep-2"}, {"key": "k"}, {"session_id": "ses-d2"}, {"statuses": ["filtered"]},
    ]  # fmt: skip
    for choice in choices:
        assert [one.delivery_id for one in await store.dispatches(**choice)] == ["d2"], choice  # type: ignore[arg-type]
    assert await store.dispatches(delivery_ids=[]) == []
    assert len(await store.dispatches(limit=1)) == 1


async def test_what_started_a_run_and_how_deep_it_is(store: Store) -> None:
    """A message does not make the session that it goes to deeper."""
    made = replace(_dispatch("d1", "started"), depth=2, flow_run_id="run-1")
    told = replace(_dispatch("d2", "messaged", session_id="ses-d1"), depth=5)
    await store.write_dispatches([(made, "new"), (told, "new")])
    assert await store.dispatch_of_run("run-1") == made
    assert await store.dispatch_of_run("run-2") is None
    assert (await store.depth("ses-d1"), await store.depth("ses-nobody")) == (2, 0)
