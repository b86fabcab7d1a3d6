"""`routines prune`: what old sessions and deliveries have left behind."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.session_name import with_store
from prefect_routines.cli.terminal import DONE, NOT_DONE, complain, console, text
from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.session.retention import Kind, Removal
    from prefect_routines.store import Store

UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
SHOWN = 20


def prune(
    context: typer.Context,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="30d", help="Age since a session's end; also 12h, 4w. Default: the settings.")
    ] = None,
    transcripts: Annotated[bool, typer.Option("--transcripts", help="What was said and done; the verdict and the cost stay.")] = False,
    workspaces: Annotated[bool, typer.Option("--workspaces", help="The sessions' directories on this machine.")] = False,
    snapshots: Annotated[bool, typer.Option("--snapshots", help="What was kept of workspaces, to go on elsewhere.")] = False,
    inbox: Annotated[bool, typer.Option("--inbox", help="Deliveries that are done with.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also the last copy of work that was not pushed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Show what old sessions have left behind, then remove it. Sessions that run or wait are never touched.

    Without a kind all kinds: workspaces after ROUTINES_WORKSPACE_DAYS (7), transcripts and snapshots after ROUTINES_TRANSCRIPT_DAYS
    (never, unless it is set), deliveries after ROUTINES_INBOX_DAYS (30).
    """
    from prefect_routines.config import config

    age = _age(older_than) if older_than is not None else None
    chosen: list[Kind] = []
    if (transcripts or snapshots) and age is None and config().transcript_days is None:
        raise SettingsError("transcripts and snapshots are kept for ever; say --older-than 90d, or set ROUTINES_TRANSCRIPT_DAYS")
    every = not (transcripts or workspaces or snapshots or inbox)
    if transcripts or every:
        chosen.append("transcript")
    if workspaces or every:
        chosen.append("workspace")
    if snapshots or every:
        chosen.append("snapshot")
    before = datetime.now(UTC) - (age or timedelta(days=config().inbox_days)) if inbox or every else None
    return with_store(context, lambda store: _prune(store, chosen, age, before, force=force, yes=yes))


async def _prune(store: Store, kinds: list[Kind], age: timedelta | None, before: datetime | None, *, force: bool, yes: bool) -> int:
    from prefect_routines.session.retention import carry_out, plan

    out = console()
    found = await plan(store, kinds, older_than=age, force=force)
    going = [one for one in found if not one.kept]
    for one in [one for one in found if one.kept][:SHOWN]:
        out.print(text((f"stays  {one.kind} of {one.session.id}: {one.kept}", "dim")), soft_wrap=True)
    for one in going[:SHOWN]:
        out.print(_line(one), soft_wrap=True)
    if len(going) > SHOWN:
        out.print(text((f"       ... and {len(going) - SHOWN} more", "dim")))
    deliveries = await store.old_deliveries(before) if before is not None else 0
    if not going and not deliveries:
        out.print(text("Nothing to remove."))
        return DONE
    counts = [_count(number, kind) for kind, number in Counter(one.kind for one in going).items()]
    total = ", ".join([*counts, *([f"{deliveries} deliver{'y' if deliveries == 1 else 'ies'}"] if deliveries else [])])
    size = sum(one.size for one in going)
    out.print(text((f"{total}{f', {_bytes(size)}' if size else ''}", "bold")))
    if not yes and not typer.confirm("Remove them?", default=False):
        return NOT_DONE
    failed = 0
    for one in going:
        if why := await carry_out(store, one):
            failed += 1
            complain(f"{one.kind} of {one.session.id}: {why}")
    if before is not None:
        await store.forget_deliveries(before)
    out.print(text(("✓ ", "green"), "removed") if not failed else text(f"removed all but {failed}"))
    return NOT_DONE if failed else DONE


def _line(one: Removal) -> object:
    ended = one.session.ended_at or one.session.started_at or one.session.created_at
    size = f"  {_bytes(one.size)}" if one.size else ""
    return text(("goes   ", "yellow"), f"{one.kind} of {one.session.id}", (f"  {one.session.routine}, {ended:%Y-%m-%d}{size}", "dim"))


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}{'' if number == 1 else 's'}"


def _bytes(size: int) -> str:
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= of:
            return f"{size / of:.1f} {unit}"
    return f"{size} B"


def _age(said: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([mhdw])", said.strip())
    if match is None:
        raise SettingsError(f"--older-than {one_line(said)}: write a number and m, h, d or w, for example 30d")
    return timedelta(seconds=float(match[1]) * UNITS[match[2]])
