"""`routines sessions`: which sessions there are and what they came to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.terminal import console, text
from prefect_routines.errors import SettingsError

if TYPE_CHECKING:
    from prefect_routines.store import SessionRecord

STYLES = {"done": "green", "nothing_to_do": "green", "needs_attention": "yellow", "failed": "red", "running": "cyan", "stopped": "red"}


def sessions(
    routine: Annotated[str | None, typer.Option("--routine", "-r", help="Only this routine's.")] = None,
    verdict: Annotated[str | None, typer.Option(help="Only with this verdict: done, nothing_to_do, needs_attention or failed.")] = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Only those that wait for a person; `routines waiting` says for what.")
    ] = False,
    hide: Annotated[
        bool, typer.Option("--hide-nothing-to-do", help="Without those that found nothing to do: what is left did something.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list for programs.")] = False,
) -> None:
    """List sessions, the newest first."""
    import asyncio

    from prefect_routines.cli.data import print_json, session_data, up_to_date
    from prefect_routines.store import Store
    from prefect_routines.verdict import VERDICTS

    if verdict is not None and verdict not in VERDICTS:
        raise SettingsError(f"--verdict {verdict}: there is {', '.join(VERDICTS)}")

    async def load() -> tuple[list[SessionRecord], dict[str, str]]:
        but = "nothing_to_do" if hide else None
        async with await Store.open() as store:
            found = await store.sessions(routine=routine, verdict=verdict, limit=limit, but_verdict=but, waiting=waiting)
            forms = {form.session_id: form.kind for form in await store.forms(status="open")}
            return [await up_to_date(store, record) for record in found], {id_: str(kind) for id_, kind in forms.items()}

    found, waits = asyncio.run(load())
    if as_json:
        print_json([{**session_data(record), "waits_for": waits.get(record.id)} for record in found])
    elif found:
        _table(found, waits)
    else:
        filtered = routine or verdict or waiting or hide
        none = "No such sessions." if filtered else "No sessions yet; `routines run flows/ask.py --param prompt=...` makes one."
        console().print(text(none))


def _table(found: list[SessionRecord], waits: dict[str, str]) -> None:
    from rich.table import Table

    from prefect_routines.cli.form_lines import waits_for

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("SESSION", "ROUTINE", "STARTED", "STATUS", "VERDICT", "TURNS", "COST"):
        number, whole = heading in ("TURNS", "COST"), heading == "SESSION"  # the id is what `routines show` wants
        table.add_column(heading, justify="right" if number else "left", no_wrap=True, min_width=24 if whole else None)
    for record in found:
        status, verdict = record.shown, record.verdict or "-"
        name = record.routine if record.name == "main" else f"{record.routine}/{record.name}"
        style = STYLES.get(status, "")
        if record.id in waits:
            status, style = waits_for(waits[record.id]), "yellow"
        table.add_row(
            text(record.id),
            text(name),
            text(when(record.started_at or record.created_at)),
            text((status, style)),
            text((verdict, STYLES.get(verdict, ""))),
            str(record.turns),
            f"${record.dollars:.4f}",
        )
    console().print(table)


def when(moment: datetime | None) -> str:
    """A time for a person: local, short, with how long ago it was while that is not long."""
    if moment is None:
        return "-"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if 0 <= seconds < 60:
        return f"{seconds:.0f} s ago"
    if 0 <= seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
