"""The Prefect flow run around a session, and pieces of work as its task runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.states import Completed, Failed

from prefect_routines.errors import SettingsError
from prefect_routines.visible import visible

FIRST_REPLY = "routines.session.first-reply"
_ended: set[tuple[str, int, str]] = set()
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass(frozen=True)
class Run:
    """What a session needs to know of the flow run that it works in."""

    id: str
    name: str
    flow_name: str
    deployment_id: str | None
    attempt: int
    logger: Logger
    retries: int = 0

    @classmethod
    def current(cls) -> Run:
        """The flow run that is under way.

        Raises:
            SettingsError: There is none.
        """
        context = FlowRunContext.get()
        if context is None or context.flow_run is None or context.flow is None:
            raise SettingsError("a session needs a flow run around it: use it inside a function with @flow, or write a @routine")
        run = context.flow_run
        deployment = str(run.deployment_id) if run.deployment_id else None
        return cls(str(run.id), run.name, context.flow.name, deployment, run.run_count, get_run_logger(), context.flow.retries or 0)

    @property
    def is_retried(self) -> bool:
        """Whether Prefect starts the run again by itself when it ends with an error."""
        return self.attempt <= self.retries

    def tell_first_reply(self, session: str) -> None:
        """Emit `routines.session.first-reply`, which the alarm for runs that never get that far waits for.

        A thread of Prefect's sends it: nothing here waits. https://docs.prefect.io/v3/concepts/events
        """
        resource = {"prefect.resource.id": f"prefect.flow-run.{self.id}", "prefect.resource.name": self.name}
        related = [{"prefect.resource.id": f"routines.session.{session}", "prefect.resource.role": "session"}]
        if self.deployment_id:
            related.append({"prefect.resource.id": f"prefect.deployment.{self.deployment_id}", "prefect.resource.role": "deployment"})
        emit_event(FIRST_REPLY, resource, related=related)

    def is_suspended(self) -> bool:
        """Whether somebody has suspended the run from outside, as the button of Prefect's UI does; Prefect's engine listens for that."""
        context = FlowRunContext.get()
        return context is not None and context.flow_run_suspension_request.is_requested()

    def has_ended(self, session: str) -> None:
        """Remember that a session of this run came to a verdict."""
        _ended.add((self.id, self.attempt, session))

    def ended(self, session: str) -> bool:
        """Whether a session of this run came to a verdict."""
        return (self.id, self.attempt, session) in _ended

    def not_again(self, session: str) -> None:
        """A restarted run gets what its session came to before; code that opens the same name twice would get it for other work, too.

        Raises:
            SettingsError: The session has ended in this very run of the flow.
        """
        if self.ended(session):
            raise SettingsError(
                f"the session {session!r} has ended in this run already; give other work a session of another name, "
                "or follow up with a second run() while the first one is open"
            )


class Flaw(str):
    """A note about work that came to nothing: the task is shown as failed, the session goes on."""

    __slots__ = ()


class Work:
    """A piece of work on its way through Prefect's engine. A plain object, so that Prefect does not look into it for futures."""

    def __init__(self, do: Callable[[], Awaitable[str]], redact: Callable[[str], str]) -> None:
        self.do, self.redact = do, redact
        self.error: Exception | None = None


# Async and awaited: a sync task or `.submit()` costs ten times as much. No cache and no persisted result: the journal is both.
@task(name="session step", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
async def _step(name: str, work: Work) -> State[Any]:
    try:
        note = await work.do()
    except asyncio.CancelledError:
        raise
    except Exception as error:
        work.error = error
        return Failed(message=visible(work.redact(str(error))) or type(error).__name__)
    return (Failed if isinstance(note, Flaw) else Completed)(message=visible(work.redact(note)) or None)


async def run_task(name: str, do: Callable[[], Awaitable[str]], *, redact: Callable[[str], str]) -> None:
    """Run `do` as a task run with this name; what it returns, or the error, becomes the state's message, without secrets.

    An error is raised here, outside the task, so that the run page shows its one line and no traceback.
    """
    work = Work(do, redact)
    await _step(name=name, work=work, return_state=True)  # type: ignore[misc]  # the overload for tasks that return a state is not async
    if work.error is not None:
        raise work.error
