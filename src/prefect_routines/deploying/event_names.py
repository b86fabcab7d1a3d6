"""Names of events under a trigger's `expect`: which of them nobody ever emits. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from prefect_routines.deploying import github_events as github
from prefect_routines.deploying.files import Stanza
from prefect_routines.deploying.problems import Problem, Weight, meant
from prefect_routines.deploying.triggers import expected
from prefect_routines.visible import one_line

FLOW_RUN = (
    "Scheduled", "Late", "Resuming", "AwaitingRetry", "AwaitingConcurrencySlot", "Pending", "Paused", "Suspended", "Running", "Retrying",
    "Completed", "Cached", "Cancelling", "Cancelled", "Crashed", "Failed", "TimedOut", "heartbeat",
)  # fmt: skip
"""Last parts of the names of Prefect's events about flow runs."""

ROOTS = ("github", "webhook", "prefect", "routines")

Found = tuple[str, Weight]


def event_problems(stanza: Stanza, sources: Collection[str], kindless: Collection[str] = ()) -> Iterator[Problem]:
    """Names under `expect` and `after` that nobody emits.

    Args:
        stanza: The deployment.
        sources: Names of the webhook sources that have a block.
        kindless: Those of them whose block does not say where a delivery names its kind.
    """
    for place, trigger in stanza.triggers():
        if trigger.get("type") in ("compound", "sequence", "metric") or trigger.get("triggers"):
            continue
        for key in ("expect", "after"):
            value = trigger.get(key) or []
            for number, name in enumerate(value if isinstance(value, list) else [value]):
                if not isinstance(name, str):
                    yield stanza.problem(f"{key} must be a list of names, such as [github.issues.opened]", *place, key)
                elif (found := name_problem(name, sources, kindless)) is not None:
                    yield stanza.problem(found[0], *place, key, number, weight=found[1])
        if not expected(trigger) and trigger.get("posture") != "Proactive":
            yield stanza.problem("the trigger has no `expect`: every event of the whole server would start a run", *place)


def name_problem(name: str, sources: Collection[str], kindless: Collection[str] = ()) -> Found | None:
    """What is wrong with one name; None if it can come.

    Example:
        >>> name_problem("github.issues.open", [])[0]
        "'github.issues.open': issues has no action 'open'; did you mean 'opened'?"
    """
    root, _, rest = name.partition(".")
    shown = repr(one_line(name))
    if "*" in name.rstrip("*"):
        return f"{shown}: a wildcard can only stand at the end of an event's name", "error"
    if name == "*" or root == "routines":
        return None
    by_root = {
        "github": lambda: _github(shown, rest),
        "webhook": lambda: _webhook(shown, rest, sources, kindless),
        "prefect": lambda: _prefect(name),
    }
    return by_root[root]() if root in by_root else _foreign(name, sources)


def _webhook(shown: str, rest: str, sources: Collection[str], kindless: Collection[str]) -> Found | None:
    source, dot, _ = rest.partition(".")
    named = one_line(source) or "NAME"
    if dot and source in kindless:
        return (
            f"{shown} never comes: webhook-source/{named} does not say where its kind stands; write webhook.{named}, or fill it in",
            "error",
        )
    if source.endswith("*") and source[:-1] in sources and not dot:
        return f"{shown} does not take webhook.{named[:-1]} itself: '*' is one character at least; to take both, write both", "warning"
    if source.endswith("*") or source in sources:
        return None
    make = f"make it with: WEBHOOK_SECRET=... python blocks/save_webhook.py {named}"
    there = meant(source, sources, otherwise=f"there is {', '.join(sources)}; {make}" if sources else make)
    return f"{shown}: no block webhook-source/{named}, so nothing can deliver it{there}", "error"


def _prefect(name: str) -> Found | None:
    state = name.removeprefix("prefect.flow-run.")
    if state == name or state.endswith("*") or state in FLOW_RUN:
        return None
    there = meant(state, FLOW_RUN, otherwise=f"there is {', '.join(FLOW_RUN)}")
    return f"{one_line(name)!r}: Prefect has no event of that name{there}", "error"


def _github(shown: str, rest: str) -> Found | None:
    kind, dot, action = rest.partition(".")
    actions = github.ACTIONS.get(kind)
    starts = f"github.{rest.rstrip('*')}"
    if rest.endswith("*") and (kind in github.FREE_ACTIONS or any(known.startswith(starts) for known in github.events())):
        return None
    if actions is None:
        return f"{shown}: GitHub sends no such event{meant(f'github.{rest}', github.events()) or meant(kind, github.ACTIONS)}", "error"
    if action in actions or (not dot and not actions) or (action and kind in github.FREE_ACTIONS):
        return None
    if not actions:
        return f"{shown}: {kind} has no actions; write github.{kind}", "error"
    if not dot:
        return f"{shown} never comes alone: write github.{kind}.* or one of its actions ({', '.join(actions)})", "error"
    there = meant(action, actions, otherwise=f"there is {', '.join(actions)}")
    return f"{shown}: {kind} has no action {one_line(action)!r}{there}", "error"


def _foreign(name: str, sources: Collection[str]) -> Found:
    """A name that neither GitHub nor a webhook nor Prefect emits: a slip, or an event of the user's own."""
    root = name.partition(".")[0]
    known = [*github.events(), *(f"webhook.{source}" for source in sources), *(f"prefect.flow-run.{state}" for state in FLOW_RUN)]
    close = meant(name, known) or (meant(f"github.{name}", known) if root in github.ACTIONS else "")
    if close:
        return f"{one_line(name)!r} is no known event{close}", "error"
    return f"{one_line(name)!r} is no event of GitHub's, a webhook's or Prefect's: a program of yours has to emit it", "warning"
