"""What a routine is: a Prefect flow whose function returns the prompt."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Generic, ParamSpec, cast, get_type_hints, overload

from prefect import Flow, State
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed
from pydantic import ValidationError

from prefect_routines.errors import RoutinesError, SessionCancelled, SettingsError
from prefect_routines.events import Event
from prefect_routines.session.beginning import begin, goes_on_elsewhere, settle
from prefect_routines.session.continuing import look_up
from prefect_routines.session.session import Session
from prefect_routines.settings import Resume, Settings, first_problem, merge, override_of
from prefect_routines.tools.tool import Tool
from prefect_routines.verdict import Outcome, WorkNotDone
from prefect_routines.visible import visible

P = ParamSpec("P")
RESERVED = "settings"


class Routine(Flow[P, Outcome], Generic[P]):
    """A Prefect flow that runs one session. Made by `@routine`; deployed, scheduled, run and watched like any flow.

    Args:
        function: The author's function; its parameters are the flow's, what it returns is the prompt.
        settings: The author's settings.
        tools: Tools of the author's.
    """

    def __init__(
        self, function: Callable[P, str | Awaitable[str]], *, settings: Settings, tools: Sequence[Tool] = (), **options: Any
    ) -> None:
        if settings.resume is not None:
            raise SettingsError(f"{function.__name__}: `resume` is for one run; give it as an override, or use `routines resume`")
        self.function, self.settings, self.tools = function, settings, tuple(tools)
        options.setdefault("name", function.__name__.replace("_", "-"))
        super().__init__(cast(Callable[P, Outcome], self._runner()), **options)

    def _runner(self) -> Callable[..., Awaitable[State[Any]]]:
        """The flow's function: the author's, with the reserved parameter added to what Prefect and people see."""
        function = self.function
        signature = inspect.signature(function)
        if RESERVED in signature.parameters:
            raise SettingsError(
                f"{function.__name__}: the parameter name {RESERVED!r} is reserved for overrides of the settings; rename yours"
            )

        @wraps(function)
        async def run(*args: Any, **kwargs: Any) -> State[Any]:
            given = signature.bind(*args, **{name: value for name, value in kwargs.items() if name != RESERVED})
            given.apply_defaults()
            return await self._run(dict(given.arguments), kwargs.get(RESERVED))

        hints = get_type_hints(function)
        parameters = [
            parameter.replace(annotation=hints.get(name, parameter.annotation)) for name, parameter in signature.parameters.items()
        ]
        form = override_of(Settings, self.settings)
        added = inspect.Parameter(RESERVED, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=form | None)
        at = next((i for i, parameter in enumerate(parameters) if parameter.kind is parameter.VAR_KEYWORD), len(parameters))
        parameters.insert(at, added)
        run.__signature__ = signature.replace(parameters=parameters, return_annotation=Outcome)  # type: ignore[attr-defined]
        run.__annotations__ = {**{p.name: p.annotation for p in parameters}, "return": Outcome}
        return run

    async def _run(self, arguments: dict[str, Any], override: Any) -> State[Any]:
        """One run: settings, prompt, session, final state. A user's mistake ends it in one line."""
        try:
            settings = merge(self.settings, override)
            done = await (self._resume(settings, settings.resume) if settings.resume is not None else self._begin(settings, arguments))
        except SessionCancelled as error:
            return Cancelled(message=visible(str(error)))
        except RoutinesError as error:
            return self._failed(visible(f"failed: {error}"), error)
        if not isinstance(done, Outcome):
            return done
        if done.green:
            return Completed(message=done.line, data=done)
        return self._failed(done.line, WorkNotDone(done))

    async def _begin(self, settings: Settings, arguments: dict[str, Any]) -> Outcome | State[Any]:
        """A run with a session of its own."""
        name, given = next(((name, value) for name, value in arguments.items() if isinstance(value, Event)), ("", None))
        start = await begin(settings, given)
        if start.not_now is not None:
            return Cancelled(message=visible(start.not_now))
        if name:
            arguments[name] = start.event
        prompt = await self._prompt(arguments)
        options: Any = {"event": start.event, "routine": self.name, "session_id": start.session_id}
        async with Session("main", settings, tools=self.tools, **options) as session:
            outcome = await session.run(prompt)
        if start.dispatch is not None:
            await settle(start.dispatch)
        return outcome

    async def _resume(self, settings: Settings, resume: Resume) -> Outcome | State[Any]:
        """A run that goes on with an earlier session: the follow-up is its prompt, what once started the session is its event."""
        if (why := await goes_on_elsewhere()) is not None:
            return Cancelled(message=visible(why))
        record, event = await look_up(resume, self.name)
        wanted = None if resume.fork else record.id
        async with Session("main", settings, tools=self.tools, event=event, routine=self.name, session_id=wanted) as session:
            return await session.run(resume.message)

    def _failed(self, message: str, error: RoutinesError) -> State[Any]:
        """The final state, with one line and no traceback. While retries are left the error itself: Prefect retries after errors only."""
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None and context.flow_run.run_count <= (self.retries or 0):
            raise error
        return Failed(message=message, data=error)

    async def _prompt(self, arguments: dict[str, Any]) -> str:
        name = self.function.__name__
        try:
            prompt = self.function(**arguments)  # type: ignore[call-arg]
            if inspect.isawaitable(prompt):
                prompt = await prompt
        except Exception as error:
            raise SettingsError(f"the prompt function {name} raised {type(error).__name__}: {error}") from error
        if not isinstance(prompt, str) or not prompt.strip():
            raise SettingsError(f"the prompt function {name} returned {prompt!r}; it must return the text of the task")
        return prompt

    def with_options(self, **options: Any) -> Routine[P]:
        """A copy with other options of the flow, or other settings (`settings=Settings(...)`); still a routine."""
        settings = options.pop("settings", self.settings)
        plain = Flow.with_options(self, **options)
        made = Routine(
            self.function,
            settings=settings,
            tools=self.tools,
            name=plain.name,
            version=plain.version,
            description=plain.description,
            flow_run_name=plain.flow_run_name,
            retries=plain.retries,
            retry_delay_seconds=plain.retry_delay_seconds,
            task_runner=plain.task_runner,
            timeout_seconds=plain.timeout_seconds,
            validate_parameters=plain.should_validate_parameters,
            persist_result=plain.persist_result,
            result_storage=plain.result_storage,
            result_serializer=plain.result_serializer,
            cache_result_in_memory=plain.cache_result_in_memory,
            log_prints=plain.log_prints,
            on_completion=plain.on_completion_hooks,
            on_failure=plain.on_failure_hooks,
            on_cancellation=plain.on_cancellation_hooks,
            on_crashed=plain.on_crashed_hooks,
            on_running=plain.on_running_hooks,
        )
        made._storage, made._entrypoint = self._storage, self._entrypoint
        return made


@overload
def routine(function: Callable[P, str | Awaitable[str]], /) -> Routine[P]: ...
@overload
def routine(
    *,
    settings: Settings | None = ...,
    tools: Sequence[Tool] = ...,
    name: str | None = ...,
    flow: dict[str, Any] | None = ...,
    **fields: Any,
) -> Callable[[Callable[P, str | Awaitable[str]]], Routine[P]]: ...
def routine(
    function: Callable[..., Any] | None = None,
    /,
    *,
    settings: Settings | None = None,
    tools: Sequence[Tool] = (),
    name: str | None = None,
    flow: dict[str, Any] | None = None,
    **fields: Any,
) -> Any:
    """Make a routine of a function that returns a prompt.

    Args:
        function: The function. Its typed parameters are the parameters of the flow, and the form in the UI. A parameter
            `event: Event | None` receives what started the run.
        settings: All settings at once; or give their fields by name: `repositories=`, `policy=`, `checks=`,
            `budget=`, `model=`, `network=`, `setup=`, ... - see `Settings`.
        tools: Functions made with `@tool` that Claude may call.
        name: Name of the flow. Default: the function's, with dashes.
        flow: Further options of `prefect.flow`, such as `{"retries": 2}`.

    Raises:
        SettingsError: A setting is wrong; the message names it.

    Example:
        ```python
        @routine(repositories=["https://github.com/acme/docs"], checks=[Check("docs", "mkdocs build --strict")])
        def fix_typos(folder: str = "docs") -> str:
            \"\"\"Mend the spelling of the documentation.\"\"\"
            return f"Mend spelling mistakes in {folder}; change nothing else."
        ```
    """
    for unknown in set(fields) - set(Settings.model_fields):
        meant = difflib.get_close_matches(unknown, Settings.model_fields, 1)
        known = f"did you mean {meant[0]!r}?" if meant else f"there is {', '.join(Settings.model_fields)}"
        raise SettingsError(f"@routine has no argument {unknown!r}; {known}")
    for one in tools:
        if not isinstance(one, Tool):
            raise SettingsError(f"@routine: tools: {getattr(one, '__name__', one)!r} is a plain function; put @tool above it")
    try:
        # fields beside `settings` replace its own; validated as a whole, so that a check cannot name a repository that is gone
        chosen = Settings.model_validate({**({n: getattr(settings, n) for n in Settings.model_fields} if settings else {}), **fields})
    except ValidationError as error:
        raise SettingsError(f"@routine: {first_problem(error)}") from None

    def make(function: Callable[..., Any]) -> Routine[Any]:
        options = dict(flow or {})
        if name is not None:
            options["name"] = name
        return Routine(function, settings=chosen, tools=tools, **options)

    return make(function) if function is not None else make
