"""Whether one of our own runs caused an event, and how long the chain of runs behind it is."""

from __future__ import annotations

from collections.abc import Collection

from prefect_routines.gateway.decisions import OUTSIDE, Origin
from prefect_routines.gateway.github import Authorship
from prefect_routines.store import Delivery, Store
from prefect_routines.workspace.push import session_of_branch

OWN_BRANCHES = "claude/"
_OF_A_BRANCH = {"push", "create", "check_run", "check_suite", "status", "workflow_run", "workflow_job"}
_MOVES_A_BRANCH = {"opened", "reopened", "synchronize", "ready_for_review"}
_RECENT = 500  # sessions; a branch is looked for among those whose push is not on record yet


async def origin_of(store: Store, delivery: Delivery, by: Authorship, identities: Collection[str]) -> Origin:
    """Who caused a delivery from GitHub: a run of ours whose write it shows, a branch of ours that moved, or our identity there.

    Args:
        by: What the payload says of sender, branch and address.
        identities: Logins that our routines write under.
    """
    for link in by.links:
        output = await store.output_at(link)
        if output is not None:
            return await _by_session(store, output.session_id, f"one of our sessions, {output.session_id}, wrote it")
    moves = delivery.kind in _OF_A_BRANCH or (delivery.kind.startswith("pull_request") and delivery.action in _MOVES_A_BRANCH)
    if moves and by.branch.startswith(OWN_BRANCHES):
        output = await store.output_at(by.branch)
        recent = (record.id for record in await store.sessions(limit=_RECENT))
        session = output.session_id if output is not None else session_of_branch(by.branch, recent)
        if session is not None:
            return await _by_session(store, session, f"it is on {by.branch}, a branch of our session {session}")
        return Origin(ours=True, why=f"it is on {by.branch}, a branch such as our sessions push")
    if by.sender and by.sender.casefold() in {identity.casefold() for identity in identities}:
        return Origin(ours=True, why=f"{by.sender} caused it, an identity of our routines")
    return OUTSIDE


async def _by_session(store: Store, session_id: str, why: str) -> Origin:
    record = await store.session(session_id)
    return Origin(True, why, record.deployment_id if record else None, await store.depth(session_id) + 1)
