"""Prefect learns once per process that Claude replies: the alarm for runs that never get that far waits for it."""

from __future__ import annotations

import logging
import time
from typing import Any

from prefect import get_client

from prefect_routines.session.run import Run
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until_async

from .world import REPORT, run


async def _first_replies(flow_run_id: str, wanted: int) -> list[dict[str, Any]]:
    """The events of a run, as soon as there are so many."""
    asked = {"event": {"name": ["routines.session.first-reply"]}, "resource": {"id": [f"prefect.flow-run.{flow_run_id}"]}}
    async with get_client() as client:

        async def look() -> list[dict[str, Any]] | None:
            events: list[dict[str, Any]] = (await client.request("POST", "/events/filter", json={"filter": asked})).json()["events"]
            return events if len(events) >= wanted else None

        return await until_async(look, 60, every=0.2)


async def test_the_first_reply_is_an_event_of_the_run(prefect_server: str) -> None:
    """One event however many turns there are, with the run as its resource and the session beside it."""
    assert prefect_server
    with ScriptedClaude([say(call("bash", command="true")), say(call("bash", command="true")), REPORT]) as claude:
        ran = await run(claude)
    assert len(ran.requests) == 3
    [event] = await _first_replies(str(ran.run.id), 1)
    assert event["resource"]["prefect.resource.name"] == ran.run.name
    assert f"routines.session.{ran.outcome.session_id}" in [related["prefect.resource.id"] for related in event["related"]]


async def test_telling_takes_no_time(prefect_server: str) -> None:
    """The event is sent by a thread of Prefect's: the loop goes on within milliseconds."""
    assert prefect_server
    with ScriptedClaude([REPORT]) as claude:
        ran = await run(claude)
    of_run = Run(str(ran.run.id), ran.run.name, "work", None, 1, logging.getLogger(__name__))
    began = time.perf_counter()
    for _ in range(20):
        of_run.tell_first_reply("ses-1")
    assert (time.perf_counter() - began) / 20 < 0.02
    await _first_replies(str(ran.run.id), 21)
