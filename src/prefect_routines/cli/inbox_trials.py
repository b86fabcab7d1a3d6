"""The screen of `routines inbox test`: how each delivery would fare, and how often the routine would start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prefect_routines.cli.inbox_page import id_width, print_lines, row
from prefect_routines.cli.sessions import when
from prefect_routines.cli.terminal import console, text
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from prefect_routines.gateway.targets import Target
    from prefect_routines.gateway.trial import Trial

STYLES = {"fires": "green", "paused": "yellow", "settings": "red", "event": "dim"}


def print_trials(targets: Sequence[Target], trials: Sequence[Trial], *, everything: bool, as_json: bool) -> None:
    """Print them.

    Args:
        targets: Of one deployment.
        trials: The newest first.
        everything: Also those whose event has another name.
    """
    if as_json:
        _print_json(targets, trials)
        return
    out = console()
    out.print(text((targets[0].deployment, "bold"), "" if targets[0].enabled else (" · paused", "yellow")))
    shown = [one for one in trials if everything or one.part != "event"]
    print_lines(_lines(shown))
    for line in _sums(trials, len(trials) - len(shown)):
        out.print(line)


def _lines(trials: Sequence[Trial]) -> Iterator[RenderableType]:
    """A line for each delivery, and one for the reason below it."""
    width = id_width([one.delivery.id for one in trials])
    for one in trials:
        delivery = one.delivery
        number = f"#{delivery.number}" if delivery.number else ""
        about = one_line(f"{delivery.event}  {delivery.repository or delivery.key or ''}{number if delivery.repository else ''}", 120)
        part = (one.part, STYLES.get(one.part, ""))
        yield row((width, text((delivery.id[:width], "bold"))), (16, text(when(delivery.received_at))), (13, text(part)), (0, text(about)))
        if one.reason:
            yield row((2, text("")), (0, text((one.reason, "dim"))))


def _sums(trials: Sequence[Trial], hidden: int) -> list[Text]:
    from prefect_routines.gateway.trial import per_day

    if not trials:
        return [text("No delivery that is an event has arrived yet, so there is nothing to try the triggers on.")]
    fired = sum(one.part in ("fires", "paused") for one in trials)
    daily, days = per_day(trials)
    hours = days * 24
    span = f"{days:.1f} days" if days >= 1 else f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} min"
    # What came within an hour says nothing about a day.
    rate = f": about {daily:.1f} a day{'' if days >= 1 else ' at that rate'}" if hours >= 1 else ""
    others = Counter(one.part for one in trials if one.part not in ("fires", "paused"))
    because = ", ".join(f"{count} by {part}" for part, count in others.most_common())
    lines = [
        text(
            (f"{fired} of {len(trials)}", "bold"),
            f" deliveries of the last {span} would start it{rate}.",
        ),
    ]
    if all(one.part == "event" for one in trials):
        came = Counter(one_line(one.delivery.event or "", 80) for one in trials)
        lines.append(text(f"None has the event that its triggers expect. What came: {', '.join(name for name, _ in came.most_common(5))}."))
    if because:
        lines.append(text((f"Not the others: {because}.{' Those by event are not listed; --all lists them.' if hidden else ''}", "dim")))
    return lines


def _print_json(targets: Sequence[Target], trials: Sequence[Trial]) -> None:
    from prefect_routines.cli.data import print_json
    from prefect_routines.gateway.trial import per_day

    daily, days = per_day(trials)
    print_json(
        {
            "deployment": targets[0].deployment,
            "deliveries": len(trials),
            "fires": sum(one.part in ("fires", "paused") for one in trials),
            "per_day": round(daily, 3),
            "days": round(days, 3),
            "trials": [
                {
                    "id": one.delivery.id,
                    "received_at": one.delivery.received_at,
                    "event": one.delivery.event,
                    "fires": one.part in ("fires", "paused"),
                    "part": one.part,
                    "reason": one.reason,
                }
                for one in trials
            ],
        }
    )
