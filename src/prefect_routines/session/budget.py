"""Whether a session may make one more request. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from prefect_routines.settings import Budget


def raised(budget: Budget, more: Mapping[str, float]) -> Budget:
    """The budget with what people have added to it.

    Args:
        more: How much more, by the name of the limit; what is added to `dollars` counts for the day, too.
    """
    if not more:
        return budget
    day = None if budget.dollars_per_day is None else budget.dollars_per_day + more.get("dollars", 0)
    changes = {
        "turns": budget.turns + int(more.get("turns", 0)),
        "minutes": budget.minutes + more.get("minutes", 0),
        "dollars_per_day": day,
    }
    if budget.tokens is not None:
        changes["tokens"] = budget.tokens + int(more.get("tokens", 0))
    if budget.dollars is not None:
        changes["dollars"] = budget.dollars + more.get("dollars", 0)
    return budget.model_copy(update=changes)


def reached(budget: Budget, *, turns: int, tokens: int, dollars: float, seconds: float, today: float = 0.0) -> str | None:
    """Which limit is used up, in words for a person; None while there is room.

    Args:
        budget: The routine's budget.
        turns: Replies so far.
        tokens: Tokens so far, cached ones included.
        dollars: Cost so far, with what is reserved for a request that may be in flight.
        seconds: Wall time so far.
        today: Cost of all sessions of the routine today.

    Example:
        >>> reached(Budget(turns=3), turns=3, tokens=0, dollars=0, seconds=0)
        'the budget of 3 turns is used up'
    """
    if turns >= budget.turns:
        return f"the budget of {budget.turns} turns is used up"
    if budget.tokens is not None and tokens >= budget.tokens:
        return f"the budget of {budget.tokens:,} tokens is used up ({tokens:,} used)"
    if budget.dollars is not None and dollars >= budget.dollars:
        return f"the budget of ${budget.dollars:.2f} is used up (${dollars:.2f} spent)"
    if budget.dollars_per_day is not None and today >= budget.dollars_per_day:
        return f"the routine's budget of ${budget.dollars_per_day:.2f} a day is used up (${today:.2f} spent today)"
    if seconds >= budget.minutes * 60:
        return f"the budget of {budget.minutes:g} minutes is used up"
    return None
