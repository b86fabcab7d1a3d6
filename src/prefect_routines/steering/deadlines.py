"""Looks after forms while no process of their sessions is there: ends those whose time is over, and wakes runs whose answer has come.

The gateway and every worker do this. Each step is done once whoever gets to it first, and doing it again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect_routines.errors import AnswerRefused, RoutinesError
from prefect_routines.steering.acts import Person, end_cancelled, set_cancelled, wake
from prefect_routines.steering.form import default_answer
from prefect_routines.store import Form, Store

EVERY = 10.0  # seconds
NOBODY = "nobody answered in time"


async def expire(store: Store, form: Form) -> Form:
    """Give a form whose time is over the answer that its routine says counts then.

    Raises:
        AnswerRefused: Somebody was faster.
    """
    answer = default_answer(form.kind, form.content, form.content.get("default", "deny"), NOBODY)
    return await store.close_form(form.id, "expired", answer, person="the deadline")


async def sweep(store: Store) -> int:
    """One look at all forms; how many runs were woken."""
    for form in await store.forms(expired=True):
        with suppress(AnswerRefused):
            await expire(store, form)
    for act in await store.unheard_cancellations():
        record = await store.session(act.session_id)
        if record is not None and await end_cancelled(store, record, Person(act.person, act.via)) and record.flow_run_id is not None:
            with suppress(Exception):  # Prefect may be away; the run, if it is ever started again, finds that it was cancelled
                await set_cancelled(record.flow_run_id, f"Cancelled by {act.person or 'somebody'}")
    await end_what_was_cancelled(store)
    woken = 0
    for form in await store.answered_and_waiting():
        woken += await wake(store, form)
    return woken


async def end_what_was_cancelled(store: Store) -> None:
    """End sessions that wait although their run was cancelled in Prefect: nobody will ever start it again."""
    waiting = {form.flow_run_id: form for form in await store.open_and_waiting() if form.flow_run_id is not None}
    if not waiting:
        return
    try:
        states = await _states(list(waiting))
    except Exception:  # Prefect is away: nothing can be said
        return
    for run_id, form in waiting.items():
        if states.get(run_id) != "CANCELLED":
            continue
        record = await store.session(form.session_id)
        if record is not None and record.status == "suspended":
            await end_cancelled(store, record, Person("somebody in Prefect", "prefect"))


async def _states(run_ids: list[str]) -> dict[str, str]:
    """The types of the runs' states; a run that is not there is left out."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    found: dict[str, str] = {}
    async with get_client() as client:
        for start in range(0, len(run_ids), 100):
            ids = [UUID(run_id) for run_id in run_ids[start : start + 100]]
            for run in await client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids))):
                found[str(run.id)] = run.state_type.value if run.state_type else ""
    return found


async def look_after(store: Store, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Sweep for ever."""
    complained = ""
    while True:
        try:
            await sweep(store)
            complained = ""
        except RoutinesError as error:
            if str(error) != complained:
                logger.warning("Answers wait: %s", error)
            complained = str(error)
        await asyncio.sleep(EVERY)
