"""What becomes of a delivery at one deployment whose trigger fits: does it start a run, and if not, why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect_routines.gateway.targets import Target
from prefect_routines.store import Delivery, Dispatch, DispatchStatus
from prefect_routines.when import evaluate


@dataclass(frozen=True)
class Origin:
    """Who caused an event, as far as it was us.

    Args:
        ours: Whether one of our routines, or our identity at the service, did.
        why: How we know, in a few words.
        deployment_id: The deployment whose run caused it, if that is known.
        depth: How many runs caused each other before and with that one; None if the run is not known.
    """

    ours: bool = False
    why: str = ""
    deployment_id: str | None = None
    depth: int | None = None


OUTSIDE = Origin()


def decide(target: Target, delivery: Delivery, payload: Any, origin: Origin, session_id: str) -> Dispatch:
    """Decide about one delivery and one deployment; pure.

    Args:
        payload: The body as JSON; None if it is none.
        session_id: For the session of the run, if there will be one.
    """

    status: DispatchStatus = "waiting"
    reason: str | None = None
    if target.problem:
        status, reason = "refused", target.problem
    elif not target.enabled:
        status, reason = "paused", "the routine is paused; `routines unpause` lets it run again"
    elif origin.ours and (guarded := _guard(target, origin)) is not None:
        status, reason = guarded
    elif target.starting.when and (failed := evaluate(target.starting.when, payload)) is not None:
        status, reason = "filtered", failed
    depth = origin.depth or 0
    return Dispatch(delivery.id, target.deployment_id, target.deployment, status, session_id, reason, delivery.key, depth)


def _guard(target: Target, origin: Origin) -> tuple[DispatchStatus, str] | None:
    """Why an event that we caused ourselves starts nothing; None if it may."""
    accepts, limit = target.starting.own_events, target.starting.chain_depth
    if accepts == "ignore":
        return "own", f"{origin.why}; settings.own_events lets a routine answer to that"
    if origin.depth is None:
        return "own", f"{origin.why}, and which run did it is not known: it could go round for ever"
    if accepts == "others" and origin.deployment_id == target.deployment_id:
        return "own", f"{origin.why}, this very routine; settings.own_events='all' lets it answer to itself"
    if origin.depth >= limit:
        return "too-deep", f"{origin.depth} runs have caused each other before it; settings.chain_depth allows {limit}"
    return None
