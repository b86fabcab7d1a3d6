"""What is kept of a session's workspace when a run ends or is suspended: a snapshot, from which another machine goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from prefect_routines.errors import RoutinesError, SessionCancelled
from prefect_routines.workspace.snapshot import SECONDS, NotKept

if TYPE_CHECKING:
    from prefect_routines.session.session import Session

HURRY = 3.0
"""Seconds for a snapshot when somebody waits for the run to be gone: it was cancelled or interrupted."""
STOPPED = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, SessionCancelled)
PREFIX = "routines/snapshots"


async def keep_workspace(session: Session, ending: type[BaseException] | None) -> None:
    """Take a snapshot if anything may have changed since the last one. Whatever goes wrong, the outcome of the run stands.

    Args:
        ending: What ends the run, if it is an exception.
    """
    state = session.transcript
    if not state.unsaved or session.lease.lost.is_set() or not session.workspace.box.alive:
        return
    began, at = time.monotonic(), session.journal[-1].seq
    seconds = HURRY if ending is not None and issubclass(ending, STOPPED) else SECONDS
    try:
        kept = await session.workspace.snapshot(f"{PREFIX}/{session.id}/{at}", seconds=seconds)
        took = time.monotonic() - began
        await session.record(("workspace.snapshot", {**kept, "at": at, "seconds": round(took, 3)}))
        session.log(f"The workspace is kept ({kept['bytes'] / 1e6:.1f} MB, {took:.1f} s)", logging.DEBUG)
    except NotKept as error:
        await _tell(session, str(error))
    except RoutinesError as error:  # the sandbox died, the store is gone
        session.log(f"The workspace could not be kept: {error}", logging.WARNING)
    except Exception as error:
        session.log(f"The workspace could not be kept: {type(error).__name__}: {session.label(str(error))}", logging.WARNING)


async def _tell(session: Session, why: str) -> None:
    session.log(f"No snapshot of the workspace was made: {why}. On this machine the session can go on; on another one without it", 30)
    try:
        await session.record(("workspace.not_kept", {"reason": session.redact(why)}))
    except RoutinesError as error:
        session.log(str(error), logging.WARNING)
