"""One turn's tool calls: decided by the policy, journaled before and after, run as tasks side by side where that is safe."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import RoutinesError, SandboxLost, SandboxUnavailable, StoreError, ToolError
from prefect_routines.outgoing import Allowance
from prefect_routines.policy import Circumstances, Decision, decide, declaration
from prefect_routines.session import outputs
from prefect_routines.session.approval import (
    Asked,
    Unattended,
    asked_call,
    denied,
    may_go_ahead,
    question,
    told_of_change,
    waits_for_people,
)
from prefect_routines.session.outputs import LEAK, UNKNOWN_OUTCOME
from prefect_routines.session.run import Flaw
from prefect_routines.session.steering import Cut
from prefect_routines.session.transcript import Call
from prefect_routines.tools.people import ask_person
from prefect_routines.tools.prose import harmless
from prefect_routines.tools.shell import bash
from prefect_routines.tools.tool import Tool, ToolResult, jsonable
from prefect_routines.visible import one_line, storable

if TYPE_CHECKING:
    from prefect_routines.session.session import Session
    from prefect_routines.store import FormKind

CUT_OFF = "Not run: your reply was cut off before this call was complete. Make it again, in smaller pieces if it is long."
ENDED = "Not run: the report before it ended the session."


NOT_RUN = "Not run: {who} interrupted you before this call began."
STOPPED = "Stopped: {who} interrupted it while it ran. What it had done by then is done."


@dataclass(frozen=True)
class Ready:
    """A call that may be made: its tool, its checked arguments and the decision that allows it."""

    call: Call
    tool: Tool
    arguments: dict[str, Any]
    decision: Decision


async def answer(session: Session, calls: Sequence[Call]) -> None:
    """Answer the open calls of a turn. Calls that change files or write outside keep Claude's order; others run together.

    The first call that needs a person ends this: it and all later ones that need one become a form, which the session waits for.
    """
    used = dict(session.transcript.used)
    waiting: list[Ready] = []
    for place, call in enumerate(calls):
        ready: Ready | Asked | ToolResult
        if session.transcript.verdict is not None:
            ready = ToolResult(ENDED, is_error=True, note="not run")
        else:
            ready = await outputs.settled(session, call) or prepare(session, call, used)
        if isinstance(ready, Asked) and session.steering.cut is not None:
            ready = not_run(session.steering.cut)
        if isinstance(ready, Asked):
            await together(session, waiting)
            await ask(session, calls[place:], used)
            return
        if isinstance(ready, ToolResult):
            ready = await outputs.unsettled(session, call) or ready
            await decline(session, call, ready)
            continue
        if ready.decision.rule is not None and not ready.tool.writes:
            used[ready.decision.rule.text] = used.get(ready.decision.rule.text, 0) + 1
        if ready.tool.alone:
            await together(session, waiting)
            await together(session, [ready])
            waiting = []
        else:
            waiting.append(ready)
    await together(session, waiting)


async def decline(session: Session, call: Call, result: ToolResult) -> None:
    """Answer a call that is not made; it shows on the run page as a failed task."""

    async def work() -> str:
        await record_result(session, call, result, 0.0)
        return Flaw(result.note)

    tool = session.tools.get(call.name)
    given = call.input if isinstance(call.input, dict) else {}
    await session.task(session.label(tool.title(given) if tool else call.name), work)


async def ask(session: Session, calls: Sequence[Call], used: dict[str, int]) -> None:
    """Open one form for all calls of a turn that need a person."""
    asked = [one for call in calls if isinstance(one := prepare(session, call, dict(used)), Asked)]
    kind: FormKind = "approval" if any(one.call is not None for one in asked) else "question"
    questions = [one.question for one in asked if one.question is not None]
    await session.ask(kind, {"calls": [one.call for one in asked if one.call is not None], "questions": questions})


def prepare(session: Session, call: Call, used: dict[str, int]) -> Ready | Asked | ToolResult:
    """Check a call and ask the policy; what may not be made gets its answer at once, what a person decided is done."""
    tool = session.tools.get(call.name)
    if tool is None:
        return ToolResult(f"There is no tool {one_line(call.name)!r}. There are: {', '.join(sorted(session.tools))}.", is_error=True)
    decided = session.transcript.decisions.get(call.id)
    if (answered := already_answered(call, tool, decided)) is not None:
        return answered
    try:
        arguments = checked(session, tool, call, (decided or {}).get("arguments"))
    except ToolError as error:
        return ToolResult(str(error), is_error=True, note=session.label(str(error)))
    if tool is ask_person:
        return question(session, call, arguments)
    counts = {} if call.started else {**used, **session.outputs_used}  # a call that was under way keeps the permission it had
    given = circumstances(session, counts)
    decision = decide(session.settings.policy, tool.name, arguments, main=tool.main, writes=tool.writes, targets=tool.targets, given=given)
    if decision.answer == "ask" and may_go_ahead(session, tool, call, arguments, decided):
        decision = Decision("allow", None, "a person approved it")
    if decision.answer == "allow":
        return Ready(call, tool, arguments, decision)
    waits = decision.answer == "ask" and waits_for_people(session, decision)
    return asked_call(session, tool, call, arguments, decision) if waits else refuse(session, tool, arguments, decision)


def already_answered(call: Call, tool: Tool, decided: dict[str, Any] | None) -> ToolResult | None:
    """The answer to a call that needs no look at its arguments."""
    if call.cut_off:
        return ToolResult(CUT_OFF, is_error=True, note="cut off")
    if call.started and not (tool.idempotent or tool.writes):  # what became of a write is for the outputs path to find out
        return ToolResult(UNKNOWN_OUTCOME, is_error=True, note="interrupted")
    return denied(decided) if decided is not None and decided["decision"] == "deny" else None


def checked(session: Session, tool: Tool, call: Call, changed: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call's arguments as they are decided on and used; those of a write fit to leave, and once it has started the same for ever.

    Args:
        changed: What a person wants instead of Claude's.

    Raises:
        ToolError: They do not fit, or hold a secret.
    """
    if not tool.writes:
        return tool.check(call.input if changed is None else changed)
    if call.arguments is not None:
        return tool.check(call.arguments)
    arguments = tool.check(call.input if changed is None else changed)
    if session.redactor.value(plain := jsonable(arguments)) != plain:  # before the text is changed: half a secret is one, too
        raise ToolError(LEAK)
    return harmless(arguments, tool, allowance(session, arguments))


def circumstances(session: Session, used: Mapping[str, int]) -> Circumstances:
    """What the policy has to know beside a call."""
    event = session.event
    return Circumstances(used, event.fields() if event else {}, from_outside=event is not None and event.from_outside)


def allowance(session: Session, arguments: Mapping[str, Any]) -> Allowance:
    """What the text of a write may contain, given what the session has read so far."""
    event = session.event
    own = event is not None and event.number is not None and arguments.get("repository") == event.repository
    return Allowance(
        outside=session.transcript.outside or (event is not None and event.from_outside),
        hosts=session.hosts,
        mentions=frozenset(name.lower().removeprefix("@") for name in session.settings.mentions),
        closes=frozenset([event.number]) if own and event and event.number else frozenset(),
    )


def refuse(session: Session, tool: Tool, arguments: dict[str, Any], decision: Decision) -> ToolResult:
    """The answer to a call that the policy does not let through; it tells Claude and the author what to declare."""
    rule = declaration(tool.name, arguments, tool.targets or ((tool.main,) if tool.main else ()))
    if decision.answer == "deny":
        text = f"Refused: {decision.reason}."
    else:
        text = f"Refused: {decision.reason}, and nobody is there to ask. The routine's author can allow it with policy allow=[{rule!r}]."
        if session.settings.unattended == "fail":
            title, allowed = session.label(tool.title(arguments)), session.label(rule)
            raise Unattended(f"{title}: {decision.reason}; nobody is there to ask (unattended='fail'). Allow it with {allowed!r}")
    session.log(f"{one_line(tool.title(arguments), 80)}: {text}")
    refused = {"refused": one_line(tool.title(arguments))} if tool.writes else {}
    return ToolResult(text, is_error=True, note=f"refused: {decision.reason}", data=refused)


def not_run(cut: Cut) -> ToolResult:
    """The answer to a call that an interrupt came before."""
    return ToolResult(NOT_RUN.format(who=cut.person or "a person"), is_error=True, note="interrupted")


async def together(session: Session, group: Sequence[Ready]) -> None:
    """Make calls side by side: all starts are journaled in one write, each result as it comes."""
    if (cut := session.steering.cut) is not None:
        for ready in group:
            await decline(session, ready.call, not_run(cut))
        return
    if not group:
        return
    await session.record(*(("tool.start", start(ready)) for ready in group))
    names = [ready.tool.name for ready in group]
    results = await asyncio.gather(
        *(make(session, ready, side_by_side=names.count(ready.tool.name) > 1) for ready in group), return_exceptions=True
    )
    for result in results:  # each call has come to its end; the first that broke the session breaks it now
        if isinstance(result, BaseException):
            raise result


def start(ready: Ready) -> dict[str, Any]:
    """What the journal holds before a call is made.

    Of a write its arguments as they are to be sent: a process that takes over sends, or looks for, the same. Its count is kept with
    the outputs: only what went out counts.
    """
    begun = {"id": ready.call.id, "name": ready.tool.name}
    if ready.tool.writes:
        return {**begun, "rule": None, "arguments": storable(jsonable(ready.arguments))}
    return {**begun, "rule": ready.decision.rule.text if ready.decision.rule else None}


async def make(session: Session, ready: Ready, *, side_by_side: bool) -> None:
    """Make one call: a task on the run page, and a result in the journal whatever happens."""
    began = time.monotonic()

    async def work() -> str:
        limit = session.settings.deadlines.tool
        calling = session.call(ready.tool, ready.call, ready.arguments, ready.decision, side_by_side=side_by_side)
        try:
            async with asyncio.timeout(limit):  # a write is not stopped half-way: it takes seconds, and then its outcome is known
                result = await (calling if ready.tool.writes else session.steering.cuttable(calling))
            if ready.tool.writes and not result.is_error:
                result = replace(result, data={**result.data, "written": one_line(ready.tool.title(ready.arguments))})
        except TimeoutError:
            unknown = " Its outcome is unknown: check what has happened before you repeat it." if ready.tool.writes else ""
            result = ToolResult(f"Stopped: it took longer than {limit:g} s.{unknown}", is_error=True, note="timed out")
        except Cut as cut:
            result = ToolResult(STOPPED.format(who=cut.person or "a person"), is_error=True, note="interrupted")
        except (StoreError, SandboxLost, SandboxUnavailable):
            raise  # the session itself is broken, not the call
        except RoutinesError as error:
            result = ToolResult(str(error), is_error=True, note=session.label(str(error)))
        except Exception as error:  # a tool of the author's: Claude may find another way
            session.log(f"{ready.tool.name} raised {type(error).__name__}: {session.label(str(error))}")
            result = ToolResult(f"The tool failed: {type(error).__name__}: {error}", is_error=True, note=f"raised {type(error).__name__}")
        if (changed := session.transcript.decisions.get(ready.call.id, {})).get("arguments") is not None:
            result = told_of_change(result, changed)
        if ready.tool.outside or (ready.tool is bash and session.settings.network):
            result = replace(result, data={**result.data, "outside": True})
        await record_result(session, ready.call, result, time.monotonic() - began)
        return Flaw(result.note) if result.is_error else result.note

    await session.task(session.label(ready.tool.title(ready.arguments)), work)


async def record_result(session: Session, call: Call, result: ToolResult, seconds: float) -> None:
    """Write a call's result into the journal; a report's result carries the verdict along in the same write."""
    data = dict(result.data)
    verdict = data.pop("verdict", None)
    entry = {
        "id": call.id,
        "name": call.name,
        "content": session.redact(result.content),
        "is_error": result.is_error,
        "note": session.redact(result.note),
        "seconds": round(seconds, 3),
        "data": session.redact(data),
    }
    entries = [("tool.result", entry), *([("session.verdict", session.redact(verdict))] if verdict else [])]
    last = session.transcript.verdict is None and verdict is None and [one.id for one in session.transcript.open_calls] == [call.id]
    await session.record(*entries, soon=last)
