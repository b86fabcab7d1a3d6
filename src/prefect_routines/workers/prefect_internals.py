"""Every private name of Prefect that the worker uses, in one place; `missing()` says which of them a Prefect lacks.

Prefect's process worker runs a flow through these pieces, and no public part of it takes a process that somebody else has started.
Read in 3.8.8 and 3.9.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

import httpx

if TYPE_CHECKING:
    import anyio.abc
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.runner._state_proposer import StateProposer

T = TypeVar("T")

# module -> name -> the arguments that we give
NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "prefect.context": {"refresh_global_settings_context": ()},
    "prefect.logging.configuration": {"setup_logging": ()},
    "prefect.runner._cancellation_manager": {
        "CancellationManager": ("process_manager", "hook_runner", "state_proposer", "event_emitter", "client", "control_channel"),
        "CancellationManager.cancel_by_id": ("flow_run_id",),
    },
    "prefect.runner._control_channel": {
        "ControlChannel": (),
        "ControlChannel.register": ("flow_run_id",),
        "ControlChannel.unregister": ("flow_run_id",),
        "ControlChannel.get_conclusion": ("flow_run_id",),
    },
    "prefect.runner._event_emitter": {"EventEmitter": ("runner_name", "client")},
    "prefect.runner._flow_run_executor": {
        "FlowRunExecutor": (
            "flow_run",
            "starter",
            "process_manager",
            "state_proposer",
            "hook_runner",
            "propose_submitting",
            "get_attempt_conclusion",
        ),
        "FlowRunExecutor.submit": ("task_status",),
    },
    "prefect.runner._hook_runner": {
        "HookRunner": ("resolve_flow",),
        "HookRunner.run_cancellation_hooks": ("flow_run", "state"),
        "HookRunner.run_crashed_hooks": ("flow_run", "state"),
    },
    "prefect.runner._process_manager": {
        "ProcessHandle": ("_process", "termination_scope"),
        "ProcessManager": ("on_remove",),
        "ProcessManager.flow_run_ids": (),
    },
    "prefect.runner._state_proposer": {"StateProposer": ("client",), "StateProposer.propose_crashed": ("flow_run", "message")},
    "prefect.workers.base": {
        "BaseWorker._submit_run": ("flow_run",),
        "BaseWorker._submit_scheduled_flow_runs": ("flow_run_response",),
        "BaseWorker._sync_and_initialize": (),
    },
}


def missing(needed: dict[str, dict[str, tuple[str, ...]]] | None = None) -> list[str]:
    """The needed names, and arguments of them, that the installed Prefect does not have; empty when all is well."""
    lacks = []
    for module, names in (NEEDED if needed is None else needed).items():
        for name, arguments in names.items():
            try:
                found: Any = importlib.import_module(module)
                for part in name.split("."):
                    found = getattr(found, part)
            except (ImportError, AttributeError):
                lacks.append(f"{module}.{name}")
                continue
            known = inspect.signature(found).parameters
            lacks += [f"{module}.{name}({argument}=)" for argument in arguments if argument not in known]
    return lacks


class Process(Protocol):
    """What Prefect wants to know of a process; `returncode` is None while it runs."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...


class Starter(Protocol):
    """Starts the process of a run, tells `task_status` its handle, returns when it has ended."""

    async def start(self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[Any]) -> None: ...


class Hooks(Protocol):
    """Runs the hooks of a flow whose process could not."""

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State[Any]) -> None: ...
    async def run_crashed_hooks(self, flow_run: FlowRun, state: State[Any]) -> None: ...


def state_proposer(client: PrefectClient) -> StateProposer:
    """Prefect's proposer of states, but that it calls no run crashed whose process had suspended it before it died."""
    from prefect.runner._state_proposer import StateProposer

    class CrashesOnly(StateProposer):
        async def propose_crashed(self, flow_run: FlowRun, message: str) -> State[Any] | None:
            """None if the run goes on in another process, whatever has become of this one."""
            with contextlib.suppress(Exception):  # Prefect is away: then its own rules decide
                state = (await client.read_flow_run(flow_run.id)).state
                if state is not None and ((state.is_paused() and state.state_details.pause_reschedule) or state.name == "Resuming"):
                    return None
            return await super().propose_crashed(flow_run, message)

    return CrashesOnly(client=client)


class Supervision:
    """The parts of Prefect's runner that watch over the processes of all runs of one worker."""

    def __init__(self, client: PrefectClient, hooks: Hooks, name: str) -> None:
        from prefect.runner._cancellation_manager import CancellationManager
        from prefect.runner._control_channel import ControlChannel
        from prefect.runner._event_emitter import EventEmitter
        from prefect.runner._process_manager import ProcessManager

        self._hooks = hooks
        self._channel = ControlChannel()
        self._proposer = state_proposer(client)
        self._processes = ProcessManager(on_remove=self._forget)
        self._emitter = EventEmitter(runner_name=name, client=client)
        self._cancelling: dict[UUID, bool] = {}
        self._cancellation = CancellationManager(
            process_manager=self._processes,
            hook_runner=hooks,
            state_proposer=self._proposer,
            event_emitter=self._emitter,
            client=client,
            control_channel=self._channel,
        )

    async def _forget(self, flow_run_id: UUID) -> None:
        self._channel.unregister(flow_run_id)

    async def enter(self, enter_context: Callable[[Any], Awaitable[Any]]) -> None:
        """Enter what needs entering, in the order in which it may be left again."""
        for part in (self._emitter, self._channel, self._processes):
            await enter_context(part)

    def control(self, flow_run_id: UUID) -> dict[str, str]:
        """Environment through which the engine hears that its end is a cancellation, not a crash."""
        try:
            port, token = self._channel.register(flow_run_id)
        except RuntimeError:  # no port on the loopback: then it ends by the signal alone
            return {}
        return {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}

    def running(self) -> set[UUID]:
        """The runs that have a process here."""
        return self._processes.flow_run_ids()

    async def cancel(self, flow_run_id: UUID) -> None:
        """Stop the run's process and call the run cancelled. Asked again while that is under way, nothing more happens."""
        if flow_run_id in self._cancelling or flow_run_id not in self.running():
            return
        self._cancelling[flow_run_id] = True
        try:
            await self._cancellation.cancel_by_id(flow_run_id)
        finally:
            del self._cancelling[flow_run_id]

    async def execute(self, flow_run: FlowRun, starter: Starter, task_status: anyio.abc.TaskStatus[Any]) -> int | None:
        """Start the run's process and wait for its end; a crash is reported. Returns the exit status, None if nothing was started."""
        from prefect.runner._flow_run_executor import FlowRunExecutor

        executor = FlowRunExecutor(
            flow_run=flow_run,
            starter=starter,  # type: ignore[arg-type]  # it calls `start` with the task status by name
            process_manager=self._processes,
            state_proposer=self._proposer,
            hook_runner=self._hooks,
            propose_submitting=False,
            get_attempt_conclusion=self._channel.get_conclusion,
        )
        result = await executor.submit(task_status=task_status)
        return result.status_code if result is not None else None


async def tried_again(work: Awaitable[T]) -> T:
    """Await a piece of one of the worker's loops. A cancellation that nobody asked for would end the loop, and the worker with it.

    Raises:
        httpx.TransportError: There was one; Prefect's loops go on after that.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise httpx.TransportError("cancelled though nobody asked for it") from error


class EachAlone:
    """A worker's task group in which no task takes the others down with it.

    Prefect runs all runs of a worker, and its connection to the server, in one task group of anyio, and that is cancelled as a whole
    when one of its tasks ends with an error - or with a cancellation that nobody asked for, and then the worker ends without a word.
    """

    def __init__(self, group: anyio.abc.TaskGroup, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        self._group, self._logger = group, logger
        self.cancel_scope = group.cancel_scope

    def start_soon(self, function: Callable[..., Awaitable[Any]], *arguments: Any, name: object = None) -> None:
        """Start a task whose error is logged and ends there."""
        self._group.start_soon(self._alone, function, arguments, name=name or getattr(function, "__qualname__", None))

    async def start(self, function: Callable[..., Awaitable[Any]], *arguments: Any, name: object = None) -> Any:
        """Start a task and wait for what it says first; until then its error is the caller's."""

        async def begin(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
            said = getattr(task_status, "_future", None)  # as Prefect looks at it
            await self._alone(function, arguments, lambda: said is not None and said.done(), task_status=task_status)

        return await self._group.start(begin, name=name or getattr(function, "__qualname__", None))

    async def _alone(
        self, work: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...], on_its_own: Callable[[], bool] = lambda: True, **more: Any
    ) -> None:
        try:
            await work(*arguments, **more)
        except asyncio.CancelledError as error:
            if self.cancel_scope.cancel_called:
                raise
            self._logger.exception("Something of the worker was cancelled though nobody asked for it; the worker goes on")
            if not on_its_own():
                raise RuntimeError("cancelled though nobody asked for it") from error
        except Exception:
            if not on_its_own():
                raise
            self._logger.exception("Something of the worker failed; the worker goes on")


def handle(process: Process, scope: Any) -> Any:
    """A process in the form in which Prefect passes it around."""
    from prefect.runner._process_manager import ProcessHandle

    return ProcessHandle(process, termination_scope=scope)  # type: ignore[arg-type]  # it looks at `pid` and `returncode` only


def refresh_settings(before: Mapping[str, str]) -> None:
    """Read Prefect's settings from the environment of now, logging included.

    Args:
        before: The environment of which they were read. Logging is set up anew only where something differs, or where a file of the
            user's says how, which may have changed: that is a quarter of the processor time of a warm run's start.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.logging.configuration import PROCESS_LOGGING_CONFIG, setup_logging
    from prefect.settings import get_current_settings

    def logging_of(environment: Mapping[str, str]) -> list[object]:
        settings = get_current_settings()
        named = {name: value for name, value in environment.items() if name.startswith("PREFECT_LOGGING_")}
        return [named, settings.logging, settings.server.logging_level, settings.internal.logging_level]

    was = logging_of(before)
    refresh_global_settings_context()
    own_file = get_current_settings().logging.config_path.exists()
    if own_file or not PROCESS_LOGGING_CONFIG or logging_of(os.environ) != was:
        setup_logging()


class _SharedTls:
    """The module `ssl` as Prefect's client sees it, with one verifying context per file of certificates."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[str, int], ssl.SSLContext] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(ssl, name)

    def create_default_context(self, *arguments: Any, cafile: str | None = None, **options: Any) -> ssl.SSLContext:
        """As in `ssl`. Only what verifies by a file is shared: Prefect makes no change to such a context."""
        if cafile is None or arguments or options:
            return ssl.create_default_context(*arguments, cafile=cafile, **options)
        key = (str(cafile), os.stat(cafile).st_mtime_ns)
        if key not in self._contexts:
            self._contexts[key] = ssl.create_default_context(cafile=cafile)
        return self._contexts[key]


def share_tls() -> None:
    """Let all API clients of a process share their TLS context, which holds nothing but the trusted certificates.

    A run makes ten clients, and reading the certificates takes 20 ms of CPU each, also where the API is plain HTTP: together almost
    half of what the start of a warm run costs. Where Prefect does it otherwise one day, nothing is lost but that.
    """
    import certifi
    from prefect.client import orchestration
    from prefect.settings import get_current_settings

    if getattr(orchestration, "ssl", None) is ssl:
        shared = _SharedTls()
        shared.create_default_context(cafile=str(get_current_settings().api.ssl_cert_file or certifi.where()))
        vars(orchestration)["ssl"] = shared


async def run_hooks(run: str, state: str) -> None:
    """Load the flow of a run (JSON) and call its hooks for a state (JSON)."""
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import load_flow_from_flow_run
    from prefect.logging.handlers import APILogHandler
    from prefect.runner._hook_runner import HookRunner

    flow_run, entered = FlowRun.model_validate_json(run), State.model_validate_json(state)
    runner = HookRunner(resolve_flow=load_flow_from_flow_run)
    try:
        if entered.is_crashed():
            await runner.run_crashed_hooks(flow_run, entered)
        else:
            await runner.run_cancellation_hooks(flow_run, entered)
    finally:
        await APILogHandler.aflush()
