"""`routines send`, `interrupt`, `suspend` and `cancel`: what a person does to a session that runs or waits."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.session_name import SessionName, Who, person, with_session
from prefect_routines.cli.terminal import DONE, INTERRUPTED, NOT_DONE, console, note, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect_routines.steering.acts import Person
    from prefect_routines.store import SessionRecord, Store

LOOK = 0.1  # seconds between two looks at the store
ORDERLY = 2.0  # seconds in which a session ends by itself once it is cancelled; then its worker is told to end the processes


def send(
    context: typer.Context,
    name: SessionName,
    said: Annotated[str, typer.Argument(metavar="TEXT", help="What Claude is told; `-` reads it from stdin.", show_default=False)],
    now: Annotated[bool, typer.Option("--interrupt", help="Stop what is under way, then tell it.")] = False,
    who: Who = None,
) -> None:
    """Send Claude a message; it joins the next turn."""
    message = _stdin() if said == "-" else said

    async def work(store: Store, record: SessionRecord) -> None:
        from prefect_routines.steering import acts

        await acts.send(store, record, message, person(who), interrupt=now)
        joins = "what is under way is stopped, then Claude reads it" if now else "it joins the next turn"
        await _say(store, record, f"message sent; {joins}")

    with_session(context, name, work)


def interrupt(context: typer.Context, name: SessionName, who: Who = None) -> None:
    """Stop the turn or the calls under way; the session goes on with what it then knows."""

    async def work(store: Store, record: SessionRecord) -> None:
        from prefect_routines.steering import acts

        await acts.interrupt(store, record, person(who))
        await _say(store, record, "interrupt sent")

    with_session(context, name, work)


def suspend(context: typer.Context, name: SessionName, who: Who = None) -> None:
    """Have a session wait for you: it asks what to do next."""

    async def work(store: Store, record: SessionRecord) -> None:
        from prefect_routines.steering import acts

        await acts.suspend(store, record, person(who))
        await _say(store, record, f'asked to wait; go on with: routines approve {record.id} --message "..."')

    with_session(context, name, work)


def cancel(
    context: typer.Context,
    name: SessionName,
    who: Who = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 60,
) -> int:
    """Cancel a session: its processes end, nothing more is sent. The workspace is kept; `routines resume` goes on with it."""

    began = time.monotonic()

    async def work(store: Store, record: SessionRecord) -> bool:
        ended = await cancelled(store, record, person(who), wait)
        if ended:
            seconds = f" after {time.monotonic() - began:.1f} s"
            console().print(text(("✓ ", "green"), (record.id, "bold"), f" is cancelled{seconds}; the workspace is kept"), soft_wrap=True)
        else:
            note(f"session {record.id} has not ended within {wait:g} s; it is asked to. See: routines watch {record.id}")
        return ended

    try:
        return DONE if with_session(context, name, work) else NOT_DONE
    except KeyboardInterrupt:
        note("It is asked to end; nobody waits for that any more. `routines sessions` shows it.")
        return INTERRUPTED


async def cancelled(store: Store, record: SessionRecord, who: Person, wait: float) -> bool:
    """Cancel a session and wait until it has ended; whether it has.

    A session ends by itself at once. One that does not - it hangs, its machine is slow - belongs to a worker, if it has a
    deployment: that is told by way of Prefect and ends its processes.
    """
    from prefect_routines.cli.data import shown_status
    from prefect_routines.steering import acts

    began, told = time.monotonic(), False
    if await acts.cancel(store, record, who) == "asked":
        while (now := await store.session(record.id)) is not None and now.status != "ended":
            waited = time.monotonic() - began
            if shown_status(now) in ("stopped", "idle", "suspended") and not _held(now):  # its process is gone: it ends here
                try:
                    await acts.cancel(store, now, who)
                except SettingsError:  # it has ended meanwhile
                    continue
            elif waited > ORDERLY and not told and record.deployment_id and record.flow_run_id:
                told = True
                await _tell_worker(record.flow_run_id)
            if waited > wait:
                return False
            await asyncio.sleep(LOOK)
    return True


def _held(record: SessionRecord) -> bool:
    from datetime import UTC, datetime

    return record.leased_until is not None and record.leased_until > datetime.now(UTC)


async def _tell_worker(flow_run_id: str) -> None:
    """Have the worker that runs it end all its processes; without Prefect the session itself has to."""
    from uuid import UUID

    from prefect import get_client
    from prefect.states import Cancelling

    try:
        async with get_client() as client:
            run = await client.read_flow_run(UUID(flow_run_id))
            if run.state is not None and run.state.is_running():
                await client.set_flow_run_state(run.id, Cancelling(message="Cancelled with `routines cancel`"))
    except Exception as error:
        note(f"Prefect could not be told to end the processes: {error}")


async def _say(store: Store, record: SessionRecord, what: str) -> None:
    """What was done, and when the session will see it."""
    from prefect_routines.cli.data import shown_status
    from prefect_routines.cli.form_lines import waits_for

    when = ""
    waiting = await store.forms(session_id=record.id, status="open")
    status = shown_status(record)
    if waiting:
        when = f" · it {waits_for(waiting[0].kind)} first: routines approve {record.id}"
    elif status != "running":
        when = f" · the session is {status} now; it takes it when it goes on"
    console().print(text(("✓ ", "green"), (record.id, "bold"), f" {what}", (when, "dim")), soft_wrap=True)


def _stdin() -> str:
    import sys

    from prefect_routines.steering.form import LONGEST

    return sys.stdin.buffer.read(4 * LONGEST + 4).decode("utf-8", "replace")  # enough to see that it is too long
