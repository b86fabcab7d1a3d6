"""Looks after forms while no process of their sessions is there: ends those whose time is over, and wakes runs whose answer has come.

The gateway and every worker do this. Each step is done once whoever gets to it first, and doing it again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from prefect_routines.errors import AnswerRefused, RoutinesError
from prefect_routines.steering.acts import wake
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
    woken = 0
    for form in await store.answered_and_waiting():
        woken += await wake(form)
    return woken


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
