"""What a tool is: a typed Python function with a schema for Claude and a name for the person on the run page."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_jsonable_python

from prefect_routines.config import config
from prefect_routines.errors import SettingsError, ToolError

if TYPE_CHECKING:
    from prefect_routines.events import Event
    from prefect_routines.workspace.workspace import Workspace

P = ParamSpec("P")
R = TypeVar("R")

Block = dict[str, Any]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(frozen=True)
class ToolResult:
    """What Claude gets back from a call.

    Args:
        content: Text, or content blocks of the Messages API (text and images).
        is_error: Whether the call failed; Claude then knows that it has to try otherwise.
        note: A few words for the person on the run page, e.g. `exit 1`. Default: nothing.
        data: What the journal keeps beside the text, e.g. the commit that was pushed.
    """

    content: str | list[Block]
    is_error: bool = False
    note: str = ""
    data: dict[str, Any] = field(default_factory=dict)


Sent = str | ToolResult


@dataclass(frozen=True)
class Write:
    """An outward write as a plan: exactly what would be sent, and how. A tool that returns one has not acted yet.

    The session records the plan, then sends it - or shows it, in a rehearsal. After a crash it is looked up, not repeated.

    Args:
        request: What goes out, readable: it is recorded, scanned for secrets, and shown in a rehearsal.
        send: Does it. `OutcomeUnknown` says that it may have arrived; any other RoutinesError that it has not.
        find: Looks it up at its service, by `ToolContext.key` for example; None: it did not arrive. Without it, the outcome of
            a call that was cut off stays unknown.
        captured: What Claude is told in a rehearsal.
        unsent: Done in a rehearsal instead of `send`, where the session itself has to remember what it would have sent.
    """

    request: dict[str, Any]
    send: Callable[[], Awaitable[Sent]]
    find: Callable[[], Awaitable[Sent | None]] | None = None
    captured: Sent = "Captured: this is a rehearsal, nothing was sent."
    unsent: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class ToolContext:
    """What a tool may use. A function tool gets it by declaring a parameter of this type.

    Args:
        session_id: Id of the session.
        tool_use_id: Claude's id of this very call; with the session id the idempotency key of an outward write.
        workspace: The session's sandbox and clones.
        event: What started the run, if anything did.
        side_by_side: Whether other calls of the same tool run at the same time.
        read_event_body: Loads an event's text by its id ('': the one that started the run); None if there is no event.
        rehearsal: Whether outward writes are captured instead of sent.
    """

    session_id: str
    tool_use_id: str
    workspace: Workspace
    event: Event | None = None
    side_by_side: bool = False
    read_event_body: Callable[[str], Awaitable[str]] | None = None
    rehearsal: bool = False

    @property
    def key(self) -> str:
        """The idempotency key of this call: what is written outside carries it, hidden, so that it can be found again."""
        return hashlib.sha256(f"{self.session_id}/{self.tool_use_id}".encode()).hexdigest()[:32]

    @property
    def page(self) -> str | None:
        """Address of the session's page, where what is written outside may name it."""
        return config().public_session_page(self.session_id)


@dataclass(frozen=True)
class Tool:
    """A tool as a session uses it. Made by `@tool`; those of the workspace and of connectors are made the same way.

    Args:
        name: Name that Claude and policy rules use.
        description: What Claude is told.
        schema: JSON schema of the arguments.
        call: The function, taking context and checked arguments.
        model: pydantic model that checks the arguments; None in a subclass that checks them otherwise.
        main: Argument that is shown in the task's name and that `tool(glob)` rules look at.
        targets: Arguments that together name what a write goes to. A refusal tells the author which rule to write with them; in a
            run that was started from outside the rule must fix each of them.
        idempotent: Whether a call that was cut off may simply be made again.
        writes: Whether it changes something outside the workspace.
        plans: Whether a write is returned as a `Write` and not done by the function.
        alone: Whether it must not run beside other calls of the same turn. Writes never do: their order may matter.
        outside: Whether its results hold text that a stranger may have written.
    """

    name: str
    description: str
    schema: dict[str, Any]
    call: Callable[..., Awaitable[Any]]
    model: type[BaseModel] | None = None
    main: str | None = None
    targets: tuple[str, ...] = ()
    idempotent: bool = False
    writes: bool = False
    plans: bool = False
    alone: bool = False
    outside: bool = False

    def definition(self) -> dict[str, Any]:
        """The tool as the Messages API wants it."""
        return {"name": self.name, "description": self.description, "input_schema": self.schema}

    @property
    def arguments(self) -> list[str]:
        """Names of the arguments."""
        return list(self.schema.get("properties", {}))

    def bound(self, instance: object, name: str) -> Tool:
        """A method made a tool, with the object that it belongs to, under another name."""
        call = self.call

        async def with_instance(context: ToolContext, arguments: dict[str, Any]) -> Any:
            return await call(context, arguments, instance)

        return replace(self, name=name, call=with_instance)

    def title(self, arguments: Mapping[str, Any]) -> str:
        """Name of the task run, for the person on the run page: `bash: pytest -q`, and of a write with its whole target."""
        value = arguments.get(self.main) if self.main else None
        text = value if isinstance(value, str) else json.dumps(jsonable(value)) if value is not None else ""
        text = self.target(arguments) if self.targets else text
        return f"{self.name}: {text}" if text else self.name

    def target(self, arguments: Mapping[str, Any]) -> str:
        """What a write goes to, for people: `acme/docs 12`."""
        named = [arguments[name] for name in self.targets or (self.main,) if name and arguments.get(name) is not None]
        return " ".join(", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in named)

    def check(self, arguments: Any) -> dict[str, Any]:
        """The arguments, checked against the schema and with defaults filled in.

        Raises:
            ToolError: They do not fit; the text tells Claude which one and why.
        """
        assert self.model is not None, "a tool without a model has a check of its own"
        try:
            made = self.model.model_validate(arguments)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'input'}: {p['msg']}" for p in error.errors(include_url=False)[:5])
            raise ToolError(f"the arguments of {self.name} do not fit: {problems}") from None
        return {name: getattr(made, name) for name in type(made).model_fields}

    async def __call__(self, context: ToolContext, arguments: dict[str, Any]) -> ToolResult | Write:
        """Make the call with checked arguments. What is neither a `ToolResult` nor a `Write` becomes text."""
        value = await self.call(context, arguments)
        return value if isinstance(value, Write) else result_of(value)


def jsonable(value: Any) -> Any:
    """The value as JSON holds it: models, dates and sets too; what JSON knows nothing of as text."""
    return to_jsonable_python(value, fallback=str, inf_nan_mode="strings", bytes_mode="base64")


def result_of(value: Any) -> ToolResult:
    """What a function returned, as a tool's result."""
    if isinstance(value, ToolResult):
        return value
    if isinstance(value, BaseModel):
        return ToolResult(value.model_dump_json())
    return ToolResult(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Like `asyncio.to_thread`, but nobody waits for the thread: one that never returns must not hold up the end of the process."""
    import asyncio
    import contextvars
    import threading

    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    done: asyncio.Future[Any] = loop.create_future()

    def tell(value: Any, error: BaseException | None) -> None:
        if done.done():  # given up meanwhile
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)

    def run() -> None:
        value: Any = None
        failure: BaseException | None = None
        try:
            value = context.run(work)
        except StopIteration as error:  # no future takes it
            failure = RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the session ended long ago
            loop.call_soon_threadsafe(tell, value, failure)

    threading.Thread(target=run, name="tool", daemon=True).start()
    return await done


@overload
def tool(function: Callable[P, R], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    main: str | None = None,
    target: str | Sequence[str] = (),
    idempotent: bool = False,
    writes: bool = False,
    alone: bool = False,
    outside: bool = False,
) -> Callable[[Callable[P, R]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a typed Python function: schema from its signature, description from its docstring.

    Args:
        function: The function, async or not. A plain one runs in a thread, which cannot be stopped: past the deadline for tools
            it goes on by itself, and its result is dropped. A parameter annotated `ToolContext` gets the
            context and is not shown to Claude.
        name: Name for Claude. Default: the function's name.
        main: Argument shown in the task's name. Default: the first one.
        target: Argument, or arguments, that name what a write goes to.
        idempotent: Whether a call that was cut off (a crash) may simply be made again. If not, Claude is told that the
            outcome is unknown.
        writes: Whether it changes something outside the workspace: then a rule of the policy must allow it. It may act itself,
            or - annotated `-> Write` - return a plan that the session carries out exactly once.
        alone: Whether it must not run beside other calls of the same turn.
        outside: Whether its results hold text that a stranger may have written.

    Raises:
        SettingsError: A parameter has no type, or the function has no docstring: Claude would have to guess.

    Example:
        ```python
        @tool(idempotent=True)
        def service_version(service: str) -> str:
            \"\"\"The version of a service that is live now.

            Args:
                service: Name as in the service catalogue.
            \"\"\"
            return lookup(service)
        ```
    """

    def make(function: Callable[..., Any]) -> Tool:
        return _make(function, **options)

    return make(function) if function is not None else make


def _make(
    function: Callable[..., Any], *, name: str | None = None, main: str | None = None, target: str | Sequence[str] = (), **options: bool
) -> Tool:
    from docstring_parser import parse

    name = function.__name__ if name is None else name
    if not NAME.match(name):
        raise SettingsError(f"tool {name!r}: a name has letters, digits, '_' and '-', at most 64; Claude and the rules use it")
    if not function.__doc__:
        raise SettingsError(f"tool {name} has no docstring; write one: it is what Claude reads to know when to call it")
    text = parse(function.__doc__)
    told = {parameter.arg_name: (parameter.description or "").replace("\n", " ") for parameter in text.params}
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    context_name: str | None = None
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters[1:] if parameters and parameters[0].name == "self" else parameters:
        hint = hints.get(parameter.name)
        if hint is ToolContext:
            context_name = parameter.name
            continue
        if hint is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise SettingsError(f"tool {name}: give the parameter {parameter.name!r} a type; the schema for Claude is made from it")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hint, Field(default=default, description=told.get(parameter.name) or None))
    targets = (target,) if isinstance(target, str) else tuple(target)
    for option in (main, *targets):
        if option is not None and option not in fields:
            raise SettingsError(f"tool {name}: it has no argument {option!r}; there is {', '.join(fields) or 'none'}")
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    schema = {key: value for key, value in model.model_json_schema().items() if key != "title"}
    schema.setdefault("properties", {})
    for value in schema["properties"].values():
        value.pop("title", None)
    is_async = inspect.iscoroutinefunction(function)

    async def call(context: ToolContext, arguments: dict[str, Any], *instance: object) -> Any:
        given = dict(arguments)
        if context_name is not None:
            given[context_name] = context
        if is_async:
            return await function(*instance, **given)
        return await _in_thread(lambda: function(*instance, **given))

    description = "\n\n".join(part for part in (text.short_description, text.long_description) if part)
    returned = hints.get("return")
    options["plans"] = Write in (returned, *get_args(returned))
    options["alone"] = options.get("alone", False) or options.get("writes", False)
    return Tool(name, description, schema, call, model, main=main or next(iter(fields), None), targets=targets, **options)
