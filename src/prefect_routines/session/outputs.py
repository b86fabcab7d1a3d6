"""The one way by which writes leave a session: planned, scanned, recorded, then sent - or looked up, or shown in a rehearsal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from prefect_routines.errors import OutcomeUnknown, RoutinesError, StoreError, ToolError
from prefect_routines.session.transcript import Call
from prefect_routines.tools.tool import Sent, Tool, ToolContext, ToolResult, Write, jsonable, result_of
from prefect_routines.visible import storable

if TYPE_CHECKING:
    from prefect_routines.policy import Decision
    from prefect_routines.session.session import Session
    from prefect_routines.store import Output

UNKNOWN_OUTCOME = (
    "Interrupted: the process that ran this call died, and its outcome is unknown. Check what has happened before you repeat it."
)
LEAK = "Not sent: the text holds a secret, or what looks like one; leave it out."
Status = Literal["done", "captured", "unknown"]
_ADDRESS = re.compile(r"https?://[!-;=?-~]+")


async def write(
    session: Session, tool: Tool, call: Call, arguments: dict[str, Any], decision: Decision, context: ToolContext
) -> ToolResult:
    """Carry out an allowed call of a tool that writes outside; exactly once, whatever happens to this process.

    Raises:
        OutputLimit: The rule that allows it is used up. Nothing was sent.
        ToolError: It holds a secret, or did not arrive. Nothing was sent.
        OutcomeUnknown: It may have arrived, and cannot be looked up.
    """
    before = await session.store.output(session.id, call.id) if call.started else None
    try:
        plan = await tool(context, arguments) if tool.plans else _as_plan(tool, context, arguments)
        if isinstance(plan, ToolResult):
            return plan  # there is nothing to send
        request: dict[str, Any] = storable(jsonable(plan.request))
        if session.redact(request) != request:
            raise ToolError(LEAK)
    except Exception as error:
        if before is None:
            raise  # nothing has been recorded, so nothing was sent
        return await _unknown(session, before, f"it cannot be looked up: {error}")
    rule = decision.rule
    record, created = await session.store.begin_output(
        session.lease,
        tool_use_id=call.id,
        tool=tool.name,
        target=tool.target(arguments),
        rule=rule.text if rule else None,
        request=request,
        max_per_rule=rule.count if rule else None,
    )
    if created and rule is not None:
        session.count_output(rule.text, 1)
    try:
        status, result = await _carry_out(session, plan, again=not created)
    except StoreError:
        raise
    except OutcomeUnknown as error:
        return await _unknown(session, record, str(error))
    except RoutinesError as error:
        await _not_sent(session, record, str(error))
        raise
    except Exception as error:  # a tool of the author's, or an answer that nobody had foreseen: it was on its way
        return await _unknown(session, record, f"the tool failed ({type(error).__name__}: {error})")
    return await _book(session, record, status, result)


async def _book(session: Session, record: Output, status: Status, result: ToolResult) -> ToolResult:
    """Record how a write went; what Claude and the journal are told of it."""
    told = _told(record, status, result)
    kept = session.redact({"content": result.content, "is_error": result.is_error, "note": result.note, "data": {**result.data, **told}})
    link = result.note if record.tool == "push" else told["output"].get("link")
    await session.store.finish_output(session.lease, record.id, status=status, result=kept, link=link)
    return ToolResult(**kept)


async def looked_up(session: Session, call: Call) -> ToolResult | None:
    """What became of a write that an earlier process began, by a look at its service; it is not sent now. None if that cannot be told."""
    record = await session.store.output(session.id, call.id) if call.started else None
    tool = session.tools.get(call.name)
    if record is None or record.status != "started" or call.arguments is None or tool is None or not tool.plans:
        return None
    context = ToolContext(session.id, call.id, session.workspace, event=session.event, rehearsal=session.settings.rehearsal)
    try:
        plan = await tool(context, tool.check(call.arguments))
        if isinstance(plan, ToolResult) or plan.find is None or session.settings.rehearsal:
            return None
        found = await plan.find()
    except StoreError:
        raise
    except Exception:  # a look is all that was wanted
        return None
    if found is not None:
        return await _book(session, record, "done", result_of(found))
    text = "Not sent: the session ended before it, and a person has written since. Make the call again if it is still wanted."
    await _not_sent(session, record, text)
    return ToolResult(text, is_error=True, note="not sent")


async def settled(session: Session, call: Call) -> ToolResult | None:
    """The result of a write that an earlier process brought to its end and had no time to tell; None if there is none."""
    record = await session.store.output(session.id, call.id) if call.started else None
    if record is None or record.status == "started":
        return None
    if record.status == "unknown":
        return ToolResult(UNKNOWN_OUTCOME, is_error=True, note="interrupted", data=_told(record, "unknown"))
    if record.status == "failed":
        return ToolResult(str((record.result or {}).get("error", "it failed")), is_error=True, note="failed")
    return ToolResult(**(record.result or {}))


async def unsettled(session: Session, call: Call) -> ToolResult | None:
    """What becomes of a write that an earlier process began and that may not go on, since rules or tools have changed; else None."""
    record = await session.store.output(session.id, call.id) if call.started else None
    if record is None or record.status != "started":
        return None
    return await _unknown(session, record, UNKNOWN_OUTCOME.partition(". ")[0])


async def _not_sent(session: Session, record: Output, why: str) -> None:
    """Book a write that surely did not arrive; it does not count."""
    await session.store.finish_output(session.lease, record.id, status="failed", result={"error": session.redact(why)})
    if record.rule is not None:
        session.count_output(record.rule, -1)


async def _unknown(session: Session, record: Output, why: str) -> ToolResult:
    """Book a write of which nobody can tell whether it arrived."""
    why = session.redact(why)
    await session.store.finish_output(session.lease, record.id, status="unknown", result={"error": why})
    text = f"Outcome unknown: {why.rstrip('.')}. Check what has happened before you repeat it."
    return ToolResult(text, is_error=True, note="outcome unknown", data=_told(record, "unknown"))


def _as_plan(tool: Tool, context: ToolContext, arguments: dict[str, Any]) -> Write:
    """A tool that acts by itself, as a plan that nobody can look up."""

    async def send() -> Sent:
        done = await tool(context, arguments)
        assert isinstance(done, ToolResult)
        return done

    return Write(request=jsonable(arguments), send=send)


async def _carry_out(session: Session, plan: Write, *, again: bool) -> tuple[Status, ToolResult]:
    if again and (found := await _found(plan)) is not None:  # an earlier process recorded it and died: it may have arrived
        return "done", result_of(found)
    if session.settings.rehearsal:
        if plan.unsent is not None:
            await plan.unsent()
        return "captured", _noted(result_of(plan.captured), "captured")
    try:
        return "done", result_of(await plan.send())
    except OutcomeUnknown:
        if plan.find is None or (found := await _found(plan)) is None:
            raise
        return "done", result_of(found)


async def _found(plan: Write) -> Sent | None:
    """What became of a write that may have arrived; None if it surely has not.

    Raises:
        OutcomeUnknown: Nobody can tell.
    """
    if plan.find is None:
        raise OutcomeUnknown(UNKNOWN_OUTCOME.partition(".")[0])
    try:
        return await plan.find()
    except RoutinesError as error:
        raise OutcomeUnknown(f"whether it was carried out is unknown, and it could not be looked up: {error}") from error


def _noted(result: ToolResult, note: str) -> ToolResult:
    return result if result.note else ToolResult(result.content, result.is_error, note, result.data)


def _told(record: Output, status: str, result: ToolResult | None = None) -> dict[str, Any]:
    """What the journal and the run page tell of a write; with the first address that the service answered."""
    found = _ADDRESS.search(result.content) if result is not None and isinstance(result.content, str) else None
    shown = "reported" if status == "done" and result is not None and result.is_error else status
    told = {"tool": record.tool, "target": record.target, "status": shown, "request": record.request}
    return {"output": {**told, "link": found[0]} if found else told}
