"""A delivery once more: a new record with the same content, for all whose triggers fit or for one deployment."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from prefect_routines.errors import SettingsError
from prefect_routines.events import new_session_id
from prefect_routines.gateway.dispatcher import FIRE
from prefect_routines.store import Delivery, Dispatch, Store
from prefect_routines.visible import one_line

REPLAY_OF = "replay_of"
"""Beside the labels, where no sender can write: the id of the delivery that this one repeats."""


def replayed(delivery: Delivery) -> str | None:
    """The id of the delivery that this one repeats; None if it came from its sender."""
    original = delivery.labels.get(REPLAY_OF)
    return original if isinstance(original, str) else None


async def replay(store: Store, original: Delivery, to: tuple[str, str] | None = None) -> tuple[Delivery, Dispatch | None]:
    """Put a delivery into the inbox again; a gateway that runs takes it up like any other.

    Args:
        original: With its body.
        to: Id and name of the one deployment that it goes to, whatever its triggers say; None for all whose triggers fit.

    Returns:
        The new delivery, and its dispatch if the deployment is known.

    Raises:
        SettingsError: It cannot be replayed; says why.

    Example:
        ```python
        again, _ = await replay(store, await store.find_delivery("3f2a9c1e"))
        ```
    """
    if to is None and original.event == FIRE:  # it named its deployment, and still does
        called = await store.dispatches(delivery_ids=[original.id])
        to = next(((one.deployment_id, one.deployment) for one in called), None)
    again, dispatch = once_more(original, to)
    await store.record_delivery(again, dispatch)
    return again, dispatch


def once_more(original: Delivery, to: tuple[str, str] | None) -> tuple[Delivery, Dispatch | None]:
    """The records of a replay; pure but for new ids and the time."""
    _check(original, to)
    own = str(uuid4())
    digest = hashlib.sha256(f"{own}\n".encode() + original.body.encode("utf-8", "surrogatepass")).hexdigest()
    again = replace(
        original,
        id=own,
        delivery_id=f"replay-{own}",
        body_sha256=digest,  # its own, or it would count as the original that came again
        received_at=datetime.now(UTC),
        labels=original.labels | {REPLAY_OF: original.id},
        status="received",
        note=f"replay of {original.id}",
        sent=0,
        repeats=0,
        settled_at=None,
    )
    if to is None:
        return again, None
    # a wish of its own: it does not wait behind what else is about the same thing
    return replace(again, event=FIRE, key=None), Dispatch(own, *to, "waiting", new_session_id())


def _check(original: Delivery, to: tuple[str, str] | None) -> None:
    shown = f"delivery {original.id}"
    if original.status == "refused":
        why = one_line(original.note or "no reason was kept", 200)
        raise SettingsError(f"{shown} was refused ({why}), so there is nothing to replay; its sender has to send it again")
    if to is not None:
        return
    if original.status == "received":
        raise SettingsError(f"{shown} is still being worked on; `routines inbox show {original.id}` tells what it waits for")
    if not original.event or original.source == "prefect":
        raise SettingsError(f"{shown} starts no routine by itself; name one with --deployment")
