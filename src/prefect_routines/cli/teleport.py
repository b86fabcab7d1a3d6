"""`routines teleport`: a session's workspace in a folder of one's own, to go on by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefect_routines.cli.session_name import SessionName, find_session
from prefect_routines.cli.terminal import DONE, NOT_DONE, console, note, text
from prefect_routines.errors import LeaseHeld, SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.session.transcript import Transcript
    from prefect_routines.store import SessionRecord, Store
    from prefect_routines.workspace.teleport import LaidOut

SHOWN = 10


def teleport(
    context: typer.Context,
    session: SessionName,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is new or empty.")],
) -> int:
    """Lay a session's files and commits into a folder. Nothing that Claude wrote is run, and no hook or git configuration comes along."""
    import asyncio

    from prefect_routines.cli.run import prepare_prefect

    prepare_prefect(context.obj)
    from prefect_routines.cli.server import prefect_errors

    directory = directory.expanduser().absolute()
    check_directory(directory)
    with prefect_errors():
        clones, left_out, transcript = asyncio.run(_lay_out(session, directory))
    _tell(directory, clones, left_out, transcript)
    return NOT_DONE if any(clone.problem for clone in clones) else DONE


def check_directory(directory: Path) -> None:
    """Refuse a folder that is not new or empty.

    Raises:
        SettingsError: It is not, or is no folder.
    """
    try:
        if directory.is_dir() and not any(directory.iterdir()):
            return
        if directory.exists() or directory.is_symlink():
            raise SettingsError(f"{directory} is there already, and is not an empty folder; name a new one")
    except OSError as error:
        raise SettingsError(f"{directory} cannot be looked at: {error.strerror}") from None


async def _lay_out(session: str, directory: Path) -> tuple[list[LaidOut], list[str], Transcript]:
    from prefect_routines.session.transcript import Transcript
    from prefect_routines.store import Store

    async with await Store.open() as store:
        record = await find_session(store, session)
        transcript = Transcript.of(await store.entries(record.id))
        if transcript.workspace is None:
            raise SettingsError(f"session {record.id} has no workspace: it ended before that was made")
        clones, left_out = await _from_here_or_snapshot(store, record, transcript, directory)
    return clones, left_out, transcript


async def _from_here_or_snapshot(
    store: Store, record: SessionRecord, transcript: Transcript, directory: Path
) -> tuple[list[LaidOut], list[str]]:
    """From the session's own directory while nobody works in it; else from its newest snapshot."""
    from prefect_routines.config import config
    from prefect_routines.workspace.places import is_current

    place = config().workspaces / record.id
    if is_current(place, transcript.workspace):
        try:
            async with store.keep(await store.acquire(record.id)):
                return await _teleport(record, transcript, directory, place / "workspace")
        except LeaseHeld:
            if transcript.snapshot is None:
                raise SettingsError(f"session {record.id} is being run, and no snapshot of it was made yet; wait for its end") from None
            note(f"Session {record.id} is being run; this is how it was at entry {transcript.snapshot['at']}.")
    elif transcript.snapshot is None:
        why = f" ({transcript.not_kept})" if transcript.not_kept else ""
        raise SettingsError(f"session {record.id}: its workspace is not on this machine, and no snapshot of it was made{why}")
    elif transcript.unsaved:
        note("What was changed after the snapshot was made is not in it.")
    return await _teleport(record, transcript, directory, None)


async def _teleport(
    record: SessionRecord, transcript: Transcript, directory: Path, workspace: Path | None
) -> tuple[list[LaidOut], list[str]]:
    from prefect_routines.config import config
    from prefect_routines.workspace.snapshot import SnapshotMissing
    from prefect_routines.workspace.teleport import opened, teleport

    scratch = config().workspaces
    repositories = (transcript.workspace or {})["repositories"]
    try:
        async with opened(workspace, transcript.snapshot, scratch) as box:
            directory.mkdir(parents=True, exist_ok=True)
            return await teleport(box, repositories, directory, scratch)
    except SnapshotMissing as error:
        raise SettingsError(f"session {record.id}: its snapshot cannot be had: {error}") from None
    except OSError as error:
        raise SettingsError(f"{directory} cannot be written: {error.strerror}") from None


def _tell(directory: Path, clones: list[LaidOut], left_out: list[str], transcript: Transcript) -> None:
    out = console()
    out.print(text(("✓ ", "green"), str(directory)), soft_wrap=True)
    pushed = {push["repository"]: push for push in [*transcript.inherited_pushes, *transcript.pushes] if not push.get("captured")}
    for clone in clones:
        if clone.problem is not None:
            out.print(text("    ", ("✗ ", "red"), f"{clone.name}: files only, {one_line(clone.problem, 200)}"), soft_wrap=True)
            continue
        where = f"branch {clone.branch}" if clone.branch else "no branch"
        push = pushed.get(clone.name)
        if push is None:
            left = "nothing was pushed"
        else:
            left = f"pushed as {push['branch']}" + ("" if push["sha"] == clone.sha else f" up to {push['sha'][:12]}")
        out.print(text(f"    {clone.name}: {where} at {(clone.sha or '')[:12]}", (f" · {left}", "dim")), soft_wrap=True)
    shown = [one for one in left_out if not one.endswith("git's own")]
    for one in shown[:SHOWN]:
        out.print(text((f"    left out {one_line(one, 200)}", "yellow")), soft_wrap=True)
    if len(shown) > SHOWN:
        out.print(text((f"    and {len(shown) - SHOWN} more", "yellow")))
