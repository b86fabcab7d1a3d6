"""The inbox: each delivery once, its body exactly as it came."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from prefect_routines.errors import SettingsError
from prefect_routines.store import FAILED, Delivery, Dispatch, DispatchStatus, SessionChanges, Store

DELIVERY = Delivery(
    id="d1",
    source="github",
    delivery_id="guid-1",
    kind="issues",
    action="opened",
    repository="acme/docs",
    number=7,
    sha="0" * 40,
    body='{"a": 1}',
)


async def test_it_comes_back_as_it_was(store: Store) -> None:
    """Every field, the time to the microsecond, the body with NUL, surrogates and bytes that are no UTF-8."""
    raw = b'{"t": "\\u0000 \x00 \xff\xfe"}'.decode("utf-8", "surrogateescape") + "\ud83d é"
    delivery = dataclasses.replace(DELIVERY, body=raw, body_sha256="")
    assert await store.record_delivery(delivery) == (delivery, True)
    assert await store.delivery("d1") == delivery
    assert await store.delivery("d2") is None


async def test_the_same_delivery_is_recorded_once(store: Store) -> None:
    """Same id, or another id (it is not signed) with the same body: the first record is returned, and counts how often that happened."""
    await store.record_delivery(DELIVERY)
    same_id = dataclasses.replace(DELIVERY, id="d2", body="other", body_sha256="")
    same_body = dataclasses.replace(DELIVERY, id="d3", delivery_id="guid-2")
    assert await store.record_delivery(same_id) == (dataclasses.replace(DELIVERY, repeats=1), False)
    assert await store.record_delivery(same_body) == (dataclasses.replace(DELIVERY, repeats=2), False)
    found = await store.delivery("d1")
    assert found is not None
    assert found.repeats == 2
    other_source = dataclasses.replace(DELIVERY, id="d4", source="gitlab")
    assert await store.record_delivery(other_source) == (other_source, True)


async def test_twenty_redeliveries_at_once(store: Store) -> None:
    """Exactly one is new, and all get its id."""
    answers = await asyncio.gather(*(store.record_delivery(dataclasses.replace(DELIVERY, id=f"d{n}")) for n in range(20)))
    assert sum(created for _, created in answers) == 1
    assert len({delivery.id for delivery, _ in answers}) == 1
    assert [delivery.repeats for delivery in await store.deliveries()] == [19]


async def test_whoever_writes_down_the_same_record_again_is_no_sender(store: Store) -> None:
    """Each run of one of Prefect's own events records it under the event's id; that counts as no repeat."""
    await store.record_delivery(DELIVERY)
    assert await store.record_delivery(DELIVERY) == (DELIVERY, False)


def _delivery(name: str, minutes: float = 0, **changes: object) -> Delivery:
    """One received so many minutes ago."""
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    fields: dict[str, object] = {"id": name, "delivery_id": f"guid-{name}", "body": name, "body_sha256": "", "received_at": at}
    return dataclasses.replace(DELIVERY, **{**fields, **changes})  # type: ignore[arg-type]


def _dispatch(delivery: str, status: DispatchStatus, minutes: float = 0, **changes: str) -> Dispatch:
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    made = Dispatch(delivery, "id-1", "docs_sync/weekly", status, f"ses-{delivery}", created_at=at)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


class TestTheList:
    """Which deliveries are chosen."""

    async def test_newest_first_and_without_bodies(self, store: Store) -> None:
        """Page by page; a body may be large, and a list does not need it."""
        for number in range(5):
            await store.record_delivery(_delivery(f"d{number}", minutes=number))
        first = await store.deliveries(limit=3)
        assert [one.id for one in first] == ["d0", "d1", "d2"]
        assert {one.body for one in first} == {""}
        assert [one.id for one in await store.deliveries(before=first[-1].received_at)] == ["d3", "d4"]

    async def test_by_source_status_and_deployment(self, store: Store) -> None:
        """A status is the delivery's own, or that of what became of it; a deployment is found by a part of its name, as it is written."""
        await store.record_delivery(_delivery("new", status="received"))
        await store.record_delivery(_delivery("no", minutes=1, status="refused"))
        await store.record_delivery(_delivery("out", minutes=2, source="gitlab"), _dispatch("out", "filtered"))
        await store.record_delivery(_delivery("not", minutes=3), _dispatch("not", "refused", deployment="other/one", deployment_id="id-2"))
        assert [one.id for one in await store.deliveries(source="gitlab")] == ["out"]
        assert [one.id for one in await store.deliveries(status="received")] == ["new"]
        assert [one.id for one in await store.deliveries(status="filtered")] == ["out"]
        assert [one.id for one in await store.deliveries(status="refused")] == ["no", "not"]
        assert [one.id for one in await store.deliveries(deployment="docs_sync")] == ["out"]
        assert await store.deliveries(deployment="docs%") == []
        assert [one.id for one in await store.deliveries(deployment_id="id-2")] == ["not"]

    async def test_those_that_came_again(self, store: Store) -> None:
        """Duplicates are counted, so they can be found."""
        await store.record_delivery(_delivery("once"))
        for _ in range(2):
            await store.record_delivery(_delivery("twice", delivery_id="same"))
            await store.record_delivery(_delivery("again", delivery_id="same"))
        assert [(one.id, one.repeats) for one in await store.deliveries(repeated=True)] == [("twice", 2)]

    async def test_those_with_a_problem(self, store: Store) -> None:
        """Refused, waiting for more than a minute, too deep in a chain, or their session failed, with a verdict or by an error."""
        bad: list[tuple[Delivery, Dispatch | None]] = [
            (_delivery("a", status="refused"), None),
            (_delivery("b", minutes=3, status="received"), None),
            (_delivery("c"), _dispatch("c", "waiting", minutes=3)),
            (_delivery("d"), _dispatch("d", "too-deep")),
            (_delivery("e"), _dispatch("e", "refused")),
            (_delivery("f"), _dispatch("f", "ended")),
            (_delivery("l"), _dispatch("l", "ended")),
            (_delivery("m"), _dispatch("m", "ended")),
        ]
        good: list[tuple[Delivery, Dispatch | None]] = [
            (_delivery("g", status="received"), None),
            (_delivery("h", status="unmatched"), None),
            (_delivery("i"), _dispatch("i", "filtered", minutes=3)),
            (_delivery("j"), _dispatch("j", "ended")),
            (_delivery("k"), _dispatch("k", "messaged", session_id="ses-f")),
            (_delivery("n"), _dispatch("n", "ended")),
        ]
        sessions: dict[str, SessionChanges] = {
            "ses-f": {"verdict": "failed"},
            "ses-j": {"verdict": "done"},
            "ses-l": {"verdict": "needs_attention"},
            "ses-m": {"status": "idle", "data": {FAILED: "the repository is not there"}},
            "ses-n": {"status": "idle", "data": {FAILED: None, "said": '"failed":"x"'}},
        }
        for delivery, dispatch in [*bad, *good]:
            await store.record_delivery(delivery, dispatch)
        for name, changes in sessions.items():
            made = await store.create_session(session_id=name, routine="r", flow_run_id=name)
            await store.update_session(await store.acquire(made.id), **changes)
        assert {one.id for one in await store.deliveries(problems=True)} == set("abcdeflm")


async def test_a_delivery_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    """Or by the id that its sender gave it; what fits several, or none, is refused."""
    for name in ("ab-1", "ab-2", "b%"):
        await store.record_delivery(_delivery(name))
    assert (await store.find_delivery("ab-2")).body == "ab-2"
    assert (await store.find_delivery("b")).id == "b%"
    assert (await store.find_delivery("guid-ab-1")).id == "ab-1"
    for wrong, told in (("ab", "could be several"), ("x", "there is none"), ("", "there is none"), ("%", "there is none")):
        with pytest.raises(SettingsError, match=told):
            await store.find_delivery(wrong)


class TestHolding:
    """One gateway at a time works on a delivery."""

    async def test_what_one_holds_another_does_not_get(self, store: Store) -> None:
        """Until it is given back, or the holder has not been heard of for so long; the holder itself gets it again."""
        for number in range(3):
            await store.record_delivery(_delivery(f"d{number}", minutes=number, status="received"))
        await store.record_delivery(_delivery("old", minutes=9))
        mine = [one.id for one in await store.hold_deliveries(seconds=60, limit=2)]
        assert mine == ["d2", "d1"]
        assert [one.id for one in await store.hold_deliveries(seconds=0)] == ["d0"]
        assert [one.id for one in await store.hold_deliveries(seconds=60)] == ["d0"]
        assert [one.id for one in await store.hold_deliveries(seconds=60, again=mine)] == mine
        await store.let_go(["d1"])
        assert [one.id for one in await store.hold_deliveries(seconds=60)] == ["d1"]

    async def test_two_at_once_share(self, store: Store) -> None:
        """Each delivery goes to one of them."""
        for number in range(20):
            await store.record_delivery(_delivery(f"d{number}", status="received"))
        shares = await asyncio.gather(*(store.hold_deliveries(seconds=60, limit=5) for _ in range(4)))
        ids = [one.id for share in shares for one in share]
        assert len(ids) == len(set(ids))


async def test_what_is_told_of_a_delivery_can_change(store: Store) -> None:
    """What was received stays."""
    await store.record_delivery(_delivery("d", status="received"))
    at = datetime.now(UTC)
    await store.update_deliveries(["d"], status="unmatched", note="no trigger", sent=2, settled_at=at)
    found = await store.delivery("d")
    assert found is not None
    assert (found.status, found.note, found.sent, found.settled_at, found.body) == ("unmatched", "no trigger", 2, at, "d")


async def test_when_each_source_was_last_heard_of(store: Store) -> None:
    """The newest of each."""
    newest = _delivery("b", minutes=1)
    for delivery in (_delivery("a", minutes=5), newest, _delivery("c", minutes=3, source="gitlab")):
        await store.record_delivery(delivery)
    last = await store.last_received()
    assert set(last) == {"github", "gitlab"}
    assert last["github"] == newest.received_at


async def test_only_what_is_old_and_done_with_is_forgotten(store: Store) -> None:
    """With what became of it; what a run is at, or waits for, stays however old it is."""
    kept: list[tuple[Delivery, Dispatch | None]] = [
        (_delivery("fresh", minutes=1), None),
        (_delivery("open", minutes=9, status="received"), None),
        (_delivery("run", minutes=9), _dispatch("run", "started")),
        (_delivery("queue", minutes=9), _dispatch("queue", "queued", deployment_id="id-2")),
    ]
    gone: list[tuple[Delivery, Dispatch | None]] = [
        (_delivery("old", minutes=9), None),
        (_delivery("over", minutes=9), _dispatch("over", "ended")),
    ]
    for delivery, dispatch in [*kept, *gone]:
        await store.record_delivery(delivery, dispatch)
    assert await store.forget_deliveries(datetime.now(UTC) - timedelta(minutes=5)) == 2
    assert {one.id for one in await store.deliveries()} == {"fresh", "open", "run", "queue"}
    assert {one.delivery_id for one in await store.dispatches()} == {"run", "queue"}
