"""Carries each delivery on from the inbox: decide, tell Prefect, and stay at it until every matching deployment is accounted for.

An answer of Prefect's events API is no promise, so a delivery is settled only when the runs that it should start are read back. An
event goes out again with the same id (Prefect ignores one that it remembers); when that does not help the run is asked for directly,
with an idempotency key. Two runs for one delivery and deployment do no harm: the second finds the delivery claimed and ends at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from prefect_routines.config import config
from prefect_routines.errors import RoutinesError
from prefect_routines.events import new_session_id
from prefect_routines.gateway.decisions import OUTSIDE, Origin, decide
from prefect_routines.gateway.origin import origin_of
from prefect_routines.gateway.pace import SLOW, Looks, Reading, step
from prefect_routines.gateway.prefect_server import PrefectRefused, PrefectServer
from prefect_routines.gateway.targets import Target, direct, event_of, gate
from prefect_routines.store import Delivery, Dispatch, Store

FIRE = "routines.fire"
"""Event of a delivery that names its deployment: no trigger is asked, the run is made at once."""

_HOLD = 30.0  # seconds after which another gateway takes over what a dead one held
_CAUSE = 10.0  # seconds in which the session that caused an event has its write on record
_SKEW = timedelta(minutes=5)  # clocks of two machines may differ that much
_LOOK_AT_RUNS = 15.0
_OVER = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

Identities = Callable[[str], Awaitable[Collection[str]]]
_log = logging.getLogger(__name__)


async def _no_identities(source: str) -> Collection[str]:
    return ()


class Dispatcher:
    """Works on the inbox of a store until it is closed.

    Args:
        store: The store with the inbox.
        identities: Gives the logins under which our routines write at a source.

    Example:
        ```python
        async with Dispatcher(store) as dispatcher:
            await store.record_delivery(delivery)
            dispatcher.wake()
        ```
    """

    def __init__(self, store: Store, identities: Identities = _no_identities) -> None:
        self._store, self._identities = store, identities
        self._wake = asyncio.Event()
        self._held: list[str] = []
        self._sent_at: dict[str, float] = {}
        self._looked_at = self._looked_at_runs = self._forgot_at = -3600.0
        self._complained = ""
        self._looks = Looks()
        self._reading = Reading()

    async def __aenter__(self) -> Self:
        self._prefect = PrefectServer()
        await self._prefect.__aenter__()
        self._working = asyncio.create_task(self._work(), name="dispatcher")
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._working
        with contextlib.suppress(RoutinesError):
            await self._store.let_go(self._held)
        await self._prefect.__aexit__(None, None, None)

    def wake(self) -> None:
        """There is something new in the inbox."""
        self._wake.set()

    async def _work(self) -> None:
        while True:
            try:
                pause = await self.round()
                self._complained = ""
            except RoutinesError as error:  # Prefect or the store is away: they come back
                self._complain(str(error))
                await asyncio.sleep(SLOW)  # what arrives meanwhile changes nothing, and a round for each would hold up the inbox
                continue
            except Exception:
                _log.exception("The dispatcher met something unexpected and goes on")
                pause = SLOW
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    def _complain(self, text: str) -> None:
        if text != self._complained:
            _log.warning("Deliveries wait: %s", text)
        self._complained = text

    async def round(self) -> float:
        """Do what can be done now; seconds after which to look again."""
        self._wake.clear()
        deliveries = await self._store.hold_deliveries(seconds=_HOLD, again=self._held)
        self._held = [delivery.id for delivery in deliveries]
        fresh = [delivery for delivery in deliveries if delivery.sent == 0]
        if fresh:
            await self._decide(fresh)
            self._looks.expect()
        sent = [delivery for delivery in deliveries if delivery.id in self._sent_at or delivery.sent > 0]
        look = bool(sent) and self._looks.due()
        await self._settle([delivery for delivery in sent if look or delivery.event == FIRE])
        queued = await self._housekeeping()
        return self._looks.left() if sent or fresh else SLOW if queued or deliveries else 5.0

    # deciding

    async def _decide(self, deliveries: Sequence[Delivery]) -> None:
        """Write down what becomes of each at each deployment, then let Prefect know of all of them at once."""
        events, told = [], []
        for delivery in deliveries:
            dispatches = await self._dispatches(delivery)
            if dispatches is None:
                continue
            if delivery.event != FIRE:
                events.append(event_of(delivery, [gate(one.deployment_id) for one in dispatches if one.status == "waiting"]))
            told.append(delivery)
        if events:
            await self._prefect.emit(events)
        await self._store.update_deliveries([delivery.id for delivery in told], sent=1)
        self._sent_at.update((delivery.id, time.monotonic()) for delivery in told)

    async def _dispatches(self, delivery: Delivery) -> list[Dispatch] | None:
        """The decisions about a delivery; None when it is too early to decide."""
        if delivery.event == FIRE:
            return await self._store.dispatches(delivery_ids=[delivery.id])
        targets = await self._matching(delivery)
        if not targets:
            return []
        whole = await self._store.delivery(delivery.id)
        payload = whole.payload() if whole is not None else None
        origin = await self._origin(delivery, payload)
        if origin.ours and origin.depth is None and datetime.now(UTC) - delivery.received_at < timedelta(seconds=_CAUSE):
            return None  # the session that did it may be about to write down where
        decided = [(decide(target, delivery, payload, origin, new_session_id()), target.starting.coalesce) for target in targets]
        return await self._store.write_dispatches(decided)

    async def _matching(self, delivery: Delivery) -> list[Target]:
        """One target for each deployment with a trigger that fits."""
        found = matching(await self._prefect.targets(), delivery)
        return found or matching(await self._prefect.targets(fresh=True), delivery)

    async def _origin(self, delivery: Delivery, payload: Any) -> Origin:
        if delivery.source != "github" or not isinstance(payload, dict):
            return OUTSIDE
        from prefect_routines.gateway.github import authorship

        return await origin_of(self._store, delivery, authorship(delivery.kind, payload), await self._identities(delivery.source))

    # settling

    async def _settle(self, deliveries: Sequence[Delivery]) -> None:
        """Find the runs. What has none after a while is sent again, or asked for."""
        if not deliveries:
            return
        dispatches = defaultdict[str, list[Dispatch]](list)
        for one in await self._store.dispatches(delivery_ids=[delivery.id for delivery in deliveries]):
            dispatches[one.delivery_id].append(one)
        missing, moving = [one for delivery in deliveries for one in dispatches[delivery.id] if one.status == "waiting"], False
        if missing:
            since = min(delivery.received_at for delivery in deliveries) - _SKEW
            found = len(missing)
            sent_here = all(one.delivery_id in self._sent_at for one in missing)
            missing = await self._read_back(missing, self._reading.since(since, all_sent_here=sent_here))
            moving = len(missing) < found
        still = defaultdict[str, list[Dispatch]](list)
        for one in missing:
            still[one.delivery_id].append(one)
        over = [delivery.id for delivery in deliveries if not still[delivery.id]]
        started, without = [each for each in over if dispatches[each]], [each for each in over if not dispatches[each]]
        await self._store.update_deliveries(started, status="settled", settled_at=datetime.now(UTC), note=None)
        await self._store.update_deliveries(without, status="unmatched", settled_at=datetime.now(UTC), note=None)
        for each in over:
            self._sent_at.pop(each, None)
        for delivery in deliveries:
            if still[delivery.id]:
                await self._again(delivery, still[delivery.id], moving=moving)

    async def _read_back(self, missing: Sequence[Dispatch], since: datetime) -> list[Dispatch]:
        """Ask Prefect which runs there are; the dispatches that have none yet."""
        runs = await self._prefect.runs({one.deployment_id for one in missing}, since)
        found: dict[tuple[str, str], str] = {}
        if runs:  # the newest come first
            self._reading.saw(datetime.fromisoformat(runs[0]["expected_start_time"]))
        for run in reversed(runs):
            for delivery_id in (run.get("labels", {}).get("routines.delivery"), *_texts(run["parameters"])):
                found.setdefault((run["deployment_id"], str(delivery_id)), run["id"])
        made = [(one, run_id) for one in missing if (run_id := found.get((one.deployment_id, one.delivery_id))) is not None]
        if made:
            await self._store.note_started(made)
        return [one for one in missing if (one.deployment_id, one.delivery_id) not in found]

    async def _again(self, delivery: Delivery, missing: Sequence[Dispatch], *, moving: bool) -> None:
        """Send an event once more, or ask for the runs, when it is time to."""
        last = self._sent_at.get(delivery.id)
        waited = time.monotonic() - last if last is not None else None
        match step(sent=delivery.sent, waited=waited, moving=moving, fire=delivery.event == FIRE):
            case "ask":
                for one in missing:
                    await self._start(one, delivery)
            case "send":
                await self._prefect.emit([event_of(delivery, [gate(one.deployment_id) for one in missing])])
                await self._store.update_deliveries([delivery.id], sent=delivery.sent + 1)
                self._sent_at[delivery.id] = time.monotonic()

    async def _start(self, dispatch: Dispatch, delivery: Delivery) -> None:
        """Ask for the run itself."""
        deployment = (await self._prefect.deployments()).get(dispatch.deployment_id)
        if deployment is None:  # it may be new
            deployment = (await self._prefect.deployments(fresh=True)).get(dispatch.deployment_id)
        if deployment is None:
            await self._store.move_dispatch(dispatch, "refused", reason="the deployment was deleted")
            return
        target = next(
            (one for one in await self._prefect.targets() if one.deployment_id == dispatch.deployment_id and one.covers(delivery)),
            direct(deployment, parameters={"event": "{{ event.id | string }}"} if _takes_event(deployment) else {}),
        )
        labels = {"routines.delivery": dispatch.delivery_id, "routines.session": dispatch.session_id}
        key = f"routines:{dispatch.delivery_id}:{dispatch.deployment_id}"
        try:
            run_id = await self._prefect.create_run(dispatch.deployment_id, target.rendered(delivery), key=key, labels=labels)
        except PrefectRefused as error:
            await self._store.move_dispatch(dispatch, "refused", reason=str(error))
            return
        await self._store.move_dispatch(dispatch, "started", flow_run_id=run_id)

    # what goes on beside

    async def _housekeeping(self) -> int:
        """See which runs have ended, let the next in their queues go, forget what is old; how many wait in queues."""
        now = time.monotonic()
        if now - self._looked_at < SLOW:
            return 0
        self._looked_at = now
        queued = await self._store.dispatches(statuses=["queued"])
        if queued or now - self._looked_at_runs > _LOOK_AT_RUNS:
            self._looked_at_runs = now
            await self._note_ended()
        for one in {(each.deployment_id, each.key): each for each in queued}.values():
            await self._store.next_in_queue(one)
        for one in await self._store.dispatches(statuses=["waiting"]):
            delivery = await self._store.delivery(one.delivery_id) if one.delivery_id not in self._held else None
            if delivery is not None and delivery.status != "received":
                await self._start(one, delivery)
        if now - self._forgot_at > 3600:
            self._forgot_at = now
            await self._store.forget_deliveries(datetime.now(UTC) - timedelta(days=config().inbox_days))
        return len(queued)

    async def _note_ended(self) -> None:
        started = await self._store.dispatches(statuses=["started"])
        states = await self._prefect.states(one.flow_run_id for one in started if one.flow_run_id)
        for one in started:
            if states.get(str(one.flow_run_id), "CANCELLED") in _OVER:
                await self._store.move_dispatch(one, "ended")


def matching(targets: Sequence[Target], delivery: Delivery) -> list[Target]:
    """One target for each deployment with a trigger that fits a delivery. Where Prefect counts first it is left to Prefect."""
    return list({target.deployment_id: target for target in targets if not target.counted and target.covers(delivery)}.values())


def _takes_event(deployment: Any) -> bool:
    return "event" in ((deployment.get("parameter_openapi_schema") or {}).get("properties") or {})


def _texts(parameters: Any) -> list[str]:
    """The texts among the parameters: one of them is the event's id, whatever the author calls it."""
    return [value for value in parameters.values() if isinstance(value, str)] if isinstance(parameters, dict) else []
