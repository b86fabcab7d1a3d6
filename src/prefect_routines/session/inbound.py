"""The event that started a run, looked up by its id: in the inbox, or among Prefect's own events."""

from __future__ import annotations

import asyncio
import json
import math
import time
from datetime import datetime
from typing import get_args
from uuid import UUID

from prefect_routines.errors import SettingsError
from prefect_routines.events import Event, Source
from prefect_routines.store import Delivery, Store

PREFECT = "prefect"
"""Source of Prefect's own events."""
SETTLED = 20.0  # seconds; Prefect writes events in batches, so a trigger can be faster than the event that it answers


async def load_event(store: Store, event_id: str) -> tuple[Event, str]:
    """The event with its trusted fields, and its text: the body as it was received; for one of Prefect's own events, all of it as JSON.

    Raises:
        SettingsError: Neither the inbox nor Prefect knows it.
    """
    delivery = await store.delivery(event_id)
    if delivery is not None:
        return _from_delivery(delivery), delivery.body.encode("utf-8", "replace").decode()
    found = await _prefect_event(event_id)
    if found is None:
        raise SettingsError(f"no event {event_id!r} is kept: it is older than the retention, or came to another store. Nothing was started")
    event = Event(id=event_id, source=PREFECT, kind=found["event"], received_at=datetime.fromisoformat(found["occurred"]))
    return event, json.dumps(found, indent=1, ensure_ascii=False)


def _from_delivery(delivery: Delivery) -> Event:
    return Event(
        id=delivery.id,
        source=delivery.source if delivery.source in get_args(Source) else "webhook",
        kind=delivery.kind,
        action=delivery.action or "",
        repository=delivery.repository or "",
        number=delivery.number,
        sha=delivery.sha or "",
        received_at=delivery.received_at,
    )


async def _prefect_event(event_id: str) -> dict[str, str] | None:
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        wanted = UUID(event_id)
    except ValueError:
        return None
    began = time.monotonic()
    async with get_client() as client:
        while True:
            try:
                answer = await client.request("POST", "/events/filter", json={"filter": {"id": {"id": [str(wanted)]}}, "limit": 1})
            except PrefectHTTPStatusError:
                return None
            found: list[dict[str, str]] = answer.json().get("events", [])
            if found or _age(wanted) > SETTLED or time.monotonic() - began > SETTLED:  # an id may name a time that is yet to come
                return found[0] if found else None
            await asyncio.sleep(0.2)


def _age(event_id: UUID) -> float:
    """Seconds since an event happened, by its id (RFC 9562: version 7 begins with the time); infinite if the id does not tell."""
    return time.time() - (event_id.int >> 80) / 1000 if event_id.version == 7 else math.inf
