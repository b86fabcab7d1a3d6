"""Runs a flow in this process and shows it: the flow run is made first, so that its page can be opened while it works."""

from __future__ import annotations

import asyncio
import inspect
import signal
from typing import TYPE_CHECKING, Any

from prefect import Flow, State, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import TerminationSignal
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Scheduled
from prefect.utilities.urls import url_for

from prefect_routines.cli.attached import watching
from prefect_routines.cli.data import print_json, whole_session
from prefect_routines.cli.progress import Progress
from prefect_routines.cli.server import prefect_api
from prefect_routines.cli.terminal import DONE, MISTAKE, NOT_DONE, SIGNALLED, complain, console, note, text
from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.session.holding import RunCancelled
from prefect_routines.store import SessionRecord, Store
from prefect_routines.verdict import GREEN, Outcome, WorkNotDone

if TYPE_CHECKING:
    from rich.console import Console


def start_run(flow: Flow[Any, Any], parameters: dict[str, Any]) -> FlowRun:
    """Make the flow run. The store is opened first: without it nothing should be left behind in Prefect.

    Raises:
        SettingsError: Prefect cannot be reached or refuses the run.
        StoreError: The session store cannot be used.
    """
    if flow.isgenerator:
        raise SettingsError(f"{flow.name} is a generator; `routines run` runs routines and flows that return")
    asyncio.run(_sessions_of("none"))
    with prefect_api() as client:
        made: FlowRun = client.create_flow_run(flow, parameters=parameters)
    return made


def continue_run(flow: Flow[Any, Any], session: str) -> FlowRun:
    """The flow run of a session that has not come to its end, ready to be run again.

    Raises:
        SettingsError: There is no such session, it has ended, it is at work, or it is another routine's.
    """

    async def find() -> SessionRecord:
        async with await Store.open() as store:
            return await store.find(session)

    from prefect_routines.cli.data import shown_status

    record = asyncio.run(find())
    status = shown_status(record)
    if record.flow_run_id is None or status == "ended":
        raise SettingsError(f"session {record.id} has ended with the verdict {record.verdict}; there is nothing to go on with")
    if status == "running":
        raise SettingsError(f"session {record.id} is being run by another process; stop that first (a killed one is gone in half a minute)")
    with prefect_api() as client:
        run: FlowRun = client.read_flow_run(record.flow_run_id)
        name = client.read_flow(run.flow_id).name
        if name != flow.name:
            raise SettingsError(f"session {record.id} is one of {name}, not of {flow.name}")
        client.set_flow_run_state(run.id, Scheduled(message="Continued by `routines run`"), force=True)
        again: FlowRun = client.read_flow_run(run.id)
    return again


def execute(flow: Flow[Any, Any], flow_run: FlowRun, path: str, *, as_json: bool) -> int:
    """Run, watch and tell how it ended; the exit status."""
    out = console(stderr=as_json)
    address = url_for(flow_run)
    out.print(text((flow.name, "bold"), f" · {flow_run.name}"))
    if address:
        out.print(text((address, "underline")), soft_wrap=True)
    engine = Engine(flow, flow_run)
    progress, watch = watching(str(flow_run.id), out)
    with progress, watch:
        state = engine.run()
    if watch.error is not None:
        complain(f"the progress could not be followed: {watch.error}")
    ending = Ending(state, progress, path, stopped_by=engine.stopped_by)
    status = ending.tell(out)
    if as_json:
        print_json(_as_json(flow, flow_run, address, ending, status))
    return status


class Engine:
    """Prefect's engine in this thread; Ctrl-C and SIGTERM stop it in order.

    The main thread, because the kernel ends a sandbox with the thread that started it.
    """

    def __init__(self, flow: Flow[Any, Any], flow_run: FlowRun) -> None:
        self._flow, self._flow_run = flow, flow_run
        self.stopped_by: signal.Signals | None = None

    def run(self) -> State[Any] | BaseException:
        """The final state, or what was raised instead."""
        before = signal.getsignal(signal.SIGINT)
        try:
            made: Any = run_flow_now(self._flow, self._flow_run, self._await)
        except (KeyboardInterrupt, asyncio.CancelledError) as error:
            self.stopped_by = signal.SIGINT
            self._set_cancelled("Stopped with Ctrl-C")
            return error
        except TerminationSignal as error:
            self.stopped_by = signal.SIGTERM
            self._set_cancelled("Stopped by SIGTERM")
            return error
        except RunCancelled as error:
            return error.state
        except Exception as error:
            return error
        finally:
            signal.signal(signal.SIGINT, before)
        state: State[Any] = made
        return state

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run(self._stoppable(coroutine))

    async def _stoppable(self, coroutine: Any) -> Any:
        """Await it; the first Ctrl-C cancels it and waits for its end, the second one does not wait."""
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(coroutine)

        def stop() -> None:
            note("Stopping: the session is closed in order; press Ctrl-C again to stop at once.")
            task.cancel()

        def on_interrupt(*_: Any) -> None:
            if self.stopped_by is not None:
                raise KeyboardInterrupt
            self.stopped_by = signal.SIGINT
            loop.call_soon_threadsafe(stop)

        signal.signal(signal.SIGINT, on_interrupt)
        return await task

    def _set_cancelled(self, message: str) -> None:
        """The engine takes the end of its task for a crash; a person stopped it."""
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(self._flow_run.id, Cancelled(message=message), force=True)
        except Exception as error:
            complain(f"the run could not be marked as cancelled: {error}")


def run_flow_now(flow: Flow[Any, Any], flow_run: FlowRun, wait: Any) -> Any:
    """Run the flow with the parameters that its run has; an async one is given to `wait`."""
    made: Any = run_flow(flow, flow_run=flow_run, return_type="state")
    return wait(made) if inspect.isawaitable(made) and not isinstance(made, State) else made


class Ending:
    """How a run ended, in words and as an exit status.

    Args:
        state: Its final state, or what was raised.
        progress: What was seen of its sessions.
        path: How the person named the flow, for the line that says how to go on.
        stopped_by: The signal that stopped it, if one did.
    """

    def __init__(self, state: State[Any] | BaseException, progress: Progress, path: str, *, stopped_by: int | None) -> None:
        self.state, self.stopped_by, self._path = state, stopped_by, path
        self._transcripts = progress.transcripts
        self.value: Any = state if isinstance(state, BaseException) else _value(state)

    @property
    def error(self) -> str | None:
        """What went wrong, in one line; None when a verdict says it all."""
        if self.stopped_by or isinstance(self.value, (Outcome, WorkNotDone)):
            return None
        if isinstance(self.value, RoutinesError):
            return str(self.value)
        if isinstance(self.value, BaseException):
            return f"{type(self.value).__name__}: {self.value}"
        if isinstance(self.state, State) and not self.state.is_completed():
            return self.state.message or f"the run ended as {self.state.name}"
        return None

    @property
    def status(self) -> int:
        """The exit status."""
        if self.stopped_by:
            return SIGNALLED + self.stopped_by
        if self.error is not None:
            asked = any(transcript.attempts for transcript in self._transcripts.values())
            return NOT_DONE if asked or not isinstance(self.value, RoutinesError) else MISTAKE
        if isinstance(self.value, (Outcome, WorkNotDone)):
            return DONE if isinstance(self.value, Outcome) and self.value.green else NOT_DONE
        verdicts = [transcript.verdict for transcript in self._transcripts.values()]
        return DONE if all(verdict and verdict["verdict"] in GREEN for verdict in verdicts) else NOT_DONE

    def tell(self, out: Console) -> int:
        """Say it; the verdict itself has been shown with the progress."""
        if self.error is not None:
            complain(self.error)
        elif not self._transcripts and not self.stopped_by:
            out.print(text(("✓ completed", "bold green"), " · the flow used no session"))
        for session_id, transcript in self._transcripts.items():
            if transcript.cancelled is not None:
                note(f'Nothing is lost. Go on with: routines resume {session_id} "..."')
            elif transcript.verdict is None and (self.stopped_by or self.error is not None) and transcript.config:
                how = "Stopped" if self.stopped_by else "Not finished"
                note(f"{how}; nothing is lost. Go on with: routines run {self._path} --continue {session_id}")
        if self.stopped_by and not any(transcript.config for transcript in self._transcripts.values()):
            note("Stopped before Claude was asked; start it again when you like.")
        return self.status


def _value(state: State[Any]) -> Any:
    """What the flow returned or raised."""
    return getattr(state.data, "result", state.data)


async def _sessions_of(flow_run_id: str) -> list[dict[str, Any]]:
    async with await Store.open() as store:
        return [await whole_session(store, record) for record in reversed(await store.sessions(flow_run_id=flow_run_id))]


def _as_json(flow: Flow[Any, Any], flow_run: FlowRun, address: str | None, ending: Ending, status: int) -> dict[str, Any]:
    """The end of a run for programs: the run, and each of its sessions as `routines show --json` has it."""
    state = "Cancelled" if ending.stopped_by else ending.state.name if isinstance(ending.state, State) else "Crashed"
    run: dict[str, Any] = {"id": str(flow_run.id), "name": flow_run.name, "flow": flow.name, "url": address, "state": state}
    run |= {"error": ending.error, "exit_status": status}
    return {"run": run, "sessions": asyncio.run(_sessions_of(str(flow_run.id)))}
