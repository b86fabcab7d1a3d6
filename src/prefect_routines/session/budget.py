"""Whether a session may make one more request. Pure."""

from __future__ import annotations

from prefect_routines.settings import Budget


def reached(budget: Budget, *, turns: int, tokens: int, dollars: float, seconds: float) -> str | None:
    """Which limit is used up, in words for a person; None while there is room.

    Args:
        budget: The routine's budget.
        turns: Replies so far.
        tokens: Tokens so far, cached ones included.
        dollars: Cost so far, with what is reserved for a request that may be in flight.
        seconds: Wall time so far.

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
    if seconds >= budget.minutes * 60:
        return f"the budget of {budget.minutes:g} minutes is used up"
    return None
