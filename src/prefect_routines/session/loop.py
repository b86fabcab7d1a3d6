"""Turn after turn until there is a verdict. Each step looks at the journal's state, so a restarted session simply goes on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_routines.errors import ModelError, SessionCancelled
from prefect_routines.session import budget, pricing, waiting
from prefect_routines.session.arrivals import take_arrivals
from prefect_routines.session.calls import answer
from prefect_routines.session.claude import ContextFull, Rejected, Reply, Transient, wait_before_retry
from prefect_routines.session.steering import Cut
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.session.session import Session
    from prefect_routines.verdict import Verdict

COMPACT_AT = 0.65  # of the model's window: room for a long turn and for the summary itself
NUDGES = 2


class OutOfBudget(Exception):
    """What failed attempts have cost leaves nothing for another one; the next step ends the session."""


async def converse(session: Session) -> None:
    """Run the session until its journal holds a verdict."""
    while session.transcript.verdict is None:
        await step(session)


async def step(session: Session) -> None:
    """The next thing to do: hear people, wait for one, answer calls, end, compact or ask Claude."""
    await session.steering.take()
    state = session.transcript
    if state.cancelled:
        raise SessionCancelled(session.id, state.cancelled["person"], state.cancelled["via"])
    if state.form:
        await waiting.wait(session)
    elif state.open_calls:
        await answer(session, state.open_calls)
    elif end := await ending(session):
        if session.settings.budget.on_budget == "pause" and end.budget and not state.declined(end.reason):
            await session.ask("budget", {"reached": end.reason, "calls": [], "questions": []})
        else:
            await session.end(end.verdict, end.reason)
    elif not state.waits_for_reply:
        await session.say(nudge(state.stop_reason))
    elif state.context_tokens > COMPACT_AT * session.window or state.stop_reason == "model_context_window_exceeded":
        await compact(session)
    else:
        await take_arrivals(session)
        await turn(session)


class End(NamedTuple):
    """Why a session ends without a report; `budget`: because something is used up."""

    verdict: Verdict
    reason: str
    budget: bool = False


async def ending(session: Session) -> End | None:
    """Why the session ends without a report; None if it does not."""
    state = session.transcript
    if state.stop_reason == "refusal":
        category = (state.stop_details or {}).get("category")
        return End("failed", f"Claude declined to go on{f' ({category})' if category else ''}")
    if state.unanswered_ends > NUDGES:
        return End("needs_attention", "Claude stopped without reporting what the work came to")
    limits = budget.raised(session.settings.budget, state.raised)
    today = await session.spent_today() if limits.dollars_per_day is not None else 0.0
    used = state.dollars + state.reserved
    over = budget.reached(limits, turns=state.turns, tokens=state.total_tokens, dollars=used, seconds=state.seconds, today=today)
    return End("needs_attention", over, budget=True) if over else None


def nudge(stop_reason: str | None) -> str:
    """What is said to a Claude that stopped without reporting."""
    if stop_reason in ("max_tokens", "model_context_window_exceeded"):
        return "Your reply was cut off at its length limit. Go on in smaller steps."
    return "If the work is finished, call `report`. If not, go on."


async def turn(session: Session) -> None:
    """One request and its reply, tried again while that makes sense; a task on the run page."""
    number = session.transcript.turns + 1

    async def work() -> str:
        try:
            reply = await attempts(session, number, session.transcript.request())
        except OutOfBudget:
            return "out of budget"
        except Cut:
            return "interrupted"
        except (ContextFull, Rejected) as error:
            if session.transcript.fresh_pictures:  # a file that is no picture, or too many: without them the session goes on
                await session.record(("pictures.withdrawn", {"reason": one_line(str(error), 300)}))
                session.log("Claude's service did not take the pictures; they are left out", logging.WARNING)
                return "pictures left out"
            if isinstance(error, Rejected):
                raise
            if session.transcript.fresh_summary:
                raise ModelError(f"{error}; not even its summary fits. Split the work, or shorten the prompt") from None
            await compact(session)
            return "compacted"
        cost = session.price(reply.model, reply.tokens)
        await session.record(
            ("agent.message", {"turn": number, **reply_data(reply), "dollars": cost}),
            spend=[session.spend(number, reply.model, cost, reply.tokens)],
            soon=reply.stop_reason == "tool_use",
        )
        session.tell_reply()
        session.log_reply(reply, cost)
        return reply.stop_reason

    await session.task(f"Turn {number}", work)


def reply_data(reply: Reply) -> dict[str, Any]:
    """The reply as the journal keeps it."""
    return {
        "id": reply.id,
        "model": reply.model,
        "content": reply.content,
        "stop_reason": reply.stop_reason,
        "stop_details": reply.stop_details,
        "usage": reply.usage,
        "tokens": reply.tokens,
    }


async def attempts(session: Session, number: int, request: dict[str, Any]) -> Reply:
    """Sample until a whole reply has come. What an attempt may cost is journaled before it is made, so that a crash counts it."""
    began, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        model = request["model"]
        guess = session.estimate(request)
        reserved = session.price(model, guess)
        await session.record(
            ("turn.start", {"turn": number, "attempt": attempt, "reserved": reserved}),
            spend=[session.spend(number, model, reserved, guess, began=True)],
        )
        try:
            session.live.begin(number)
            return await session.steering.cuttable(session.claude.sample(request, session.live.feed))
        except Cut as cut:
            used = session.claude.so_far or guess
            paid = session.price(model, used)
            told = {"turn": number, "attempt": attempt, "text": session.live.written, "person": cut.person, "dollars": paid}
            await session.record(("turn.interrupted", told), spend=[session.spend(number, model, paid, used)])
            raise
        except (Transient, ModelError) as error:
            tokens = error.tokens if isinstance(error, Transient) else None
            paid = session.price(model, tokens) if tokens else 0.0
            await session.record(
                ("turn.failed", {"turn": number, "attempt": attempt, "error": str(error), "dollars": paid}),
                spend=[session.spend(number, model, paid, tokens or pricing.tokens_of({}))],
            )
            if not isinstance(error, Transient):
                raise
            if await ending(session):
                raise OutOfBudget from None
            allowed = session.patience() - (time.monotonic() - began)
            session.log(f"Turn {number}: {error.reason}; attempt {attempt}")
            if not await session.steering.cuttable(wait_before_retry(attempt, error.retry_after, allowed)):
                said = f", and asks to wait {error.retry_after:g} s" if error.retry_after else ""
                raise ModelError(f"no reply from Claude after {attempt} attempts: {error.reason}{said}; retry the run later") from None
        finally:
            session.live.end()


async def compact(session: Session) -> None:
    """Have the service summarise the conversation, which then goes on from the summary."""
    number = session.transcript.turns + 1

    async def work() -> str:
        try:
            reply = await attempts(session, number, session.transcript.compaction_request())
        except OutOfBudget:
            return "out of budget"
        except Cut:
            return "interrupted"
        except ContextFull as error:
            raise ModelError(f"{error}; not even a summary fits. Split the work, or give tools less to read") from None
        if reply.stop_reason != "compaction" or not any(block.get("content") for block in reply.content):
            raise ModelError("Claude made no summary of a conversation that is too long to go on with; split the work")
        cost = session.price(reply.model, reply.tokens)
        await session.record(
            ("session.compacted", {**reply_data(reply), "dollars": cost}),
            (
                "user.message",
                {"content": [{"type": "text", "text": f"Go on with the task from the summary. The task was:\n\n{session.prompt}"}]},
            ),
            spend=[session.spend(number, reply.model, cost, reply.tokens)],
        )
        session.log("The conversation was summarised to make room")
        return "compacted"

    await session.task("Compact", work)
