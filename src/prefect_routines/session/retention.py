"""What of ended sessions may go after a while: transcripts, workspaces, snapshots of workspaces. First a plan, then its removals.

Nothing of a session that runs or waits is touched, and not the last copy of work that did not leave the workspace.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect_routines.config import config
from prefect_routines.errors import LeaseHeld
from prefect_routines.store.journal import PRUNED
from prefect_routines.verdict import GREEN
from prefect_routines.workspace.trees import go_through, remove_tree

if TYPE_CHECKING:
    from prefect_routines.store import Entry, SessionRecord, Store

Kind = Literal["transcript", "workspace", "snapshot"]
KINDS: tuple[Kind, ...] = ("transcript", "workspace", "snapshot")
SNAPSHOTS = "routines/snapshots/"
UNSAVED = "its work did not leave the workspace, and this is the last copy (--force removes it)"


@dataclass(frozen=True)
class Removal:
    """One thing that goes, or stays.

    Attributes:
        what: A path or a key; empty for a transcript.
        size: Bytes on disk, 0 when that is not known.
        kept: Why it stays; empty when it goes.
    """

    kind: Kind
    session: SessionRecord
    what: str = ""
    size: int = 0
    kept: str = ""
    snapshot: dict[str, Any] = field(default_factory=dict)


async def plan(store: Store, kinds: Collection[Kind], *, older_than: timedelta | None = None, force: bool = False) -> list[Removal]:
    """What would go, and what stays although it is old enough.

    Args:
        older_than: Since a session's end; default: `ROUTINES_TRANSCRIPT_DAYS` (also for snapshots) and `ROUTINES_WORKSPACE_DAYS`.
        force: Also what is the last copy of some work, and what sessions that stopped before their end have left.
    """
    found: list[Removal] = []
    waiting = {form.session_id for form in await store.forms(status="open")}
    for record in await store.sessions(limit=None):
        due = [kind for kind in kinds if _old_enough(record, kind, older_than)]
        if due and not _is_alive(record) and record.id not in waiting and record.status != "suspended":
            found += await _of_session(store, record, due, force)
    return found


def _old_enough(record: SessionRecord, kind: Kind, older_than: timedelta | None) -> bool:
    days = config().workspace_days if kind == "workspace" else config().transcript_days
    age = older_than if older_than is not None else timedelta(days=days) if days is not None else None
    last = record.ended_at or record.started_at or record.created_at
    return age is not None and last < datetime.now(UTC) - age


def _is_alive(record: SessionRecord) -> bool:
    return record.leased_until is not None and record.leased_until > datetime.now(UTC)


async def _of_session(store: Store, record: SessionRecord, due: Sequence[Kind], force: bool) -> list[Removal]:
    entries = await store.entries(record.id)
    directory = config().workspaces / record.id
    snapshots = [entry.data for entry in entries if entry.kind == "workspace.snapshot" and entry.data.get("key")]
    there = directory.is_dir() and not directory.is_symlink()
    unfinished = "" if record.status == "ended" or force else "it has not come to its end and can go on (--force removes it)"
    only = not force and not _left(entries)  # whether one copy of the work has to stay
    copies = int(there) + int(_is_kept(entries))
    found: list[Removal] = []
    if "workspace" in due and there:
        last = only and copies < 2
        found.append(Removal("workspace", record, str(directory), await asyncio.to_thread(size_of, directory), UNSAVED if last else ""))
        copies -= not last
    if "snapshot" in due:
        for snapshot in snapshots:
            newest = snapshot is snapshots[-1]
            last = newest and only and copies < 2
            found.append(Removal("snapshot", record, snapshot["key"], snapshot.get("bytes", 0), UNSAVED if last else "", snapshot))
    if "transcript" in due and PRUNED not in record.data and entries:
        needed = only and not unfinished and any(one.kept for one in found)
        found.append(Removal("transcript", record, kept=unfinished or ("its workspace is kept" if needed else "")))
    return found


def _left(entries: Sequence[Entry]) -> bool:
    """Whether all work has left the workspace: the session could not have ended well otherwise, unless it only rehearsed."""
    if any(entry.kind == "workspace.ready" and not entry.data.get("repositories") for entry in entries):
        return True
    verdict = next((entry.data for entry in reversed(entries) if entry.kind == "session.verdict"), None)
    if verdict is None or verdict["verdict"] not in GREEN or verdict.get("rehearsal"):
        return False
    return not any(
        push.get("captured") for entry in entries if entry.kind == "tool.result" for push in entry.data["data"].get("pushed", [])
    )


def _is_kept(entries: Sequence[Entry]) -> bool:
    """Whether the newest snapshot holds all that was done."""
    for entry in reversed(entries):
        if entry.kind == "workspace.snapshot":
            return True
        if entry.kind in ("tool.start", "tool.result"):
            return False
    return False


def size_of(directory: Path) -> int:
    """Bytes of all files in a directory that a model has filled."""
    total = 0

    def enter(parent: int, name: str, found: Any) -> bool:
        nonlocal total
        total += found.st_blocks * 512
        return stat.S_ISDIR(found.st_mode)

    with contextlib.suppress(OSError):  # a directory that is closed even to its owner: the size is a guess anyway
        go_through(directory, enter)
    return total


async def carry_out(store: Store, removal: Removal) -> str:
    """Remove one thing; the session is held meanwhile.

    Returns:
        Why it is still there; empty when it is gone.
    """
    try:
        lease = await store.acquire(removal.session.id)
    except LeaseHeld:
        return "the session is at work again"
    async with store.keep(lease):
        if removal.kind == "transcript":
            await store.forget_transcript(lease)
            return ""
        if removal.kind == "snapshot":
            return await _remove_snapshot(removal.snapshot)
        directory = config().workspaces / removal.session.id
        await asyncio.to_thread(remove_tree, directory)
        return f"a part of {directory} could not be removed" if directory.exists() else ""


async def _remove_snapshot(snapshot: dict[str, Any]) -> str:
    """Remove the parts of a snapshot where that can be done: Prefect's storages can write and read, and most cannot delete."""
    key, place = str(snapshot["key"]), snapshot.get("storage", {})
    if not key.startswith(SNAPSHOTS) or ".." in key.split("/"):
        return f"{key} is no snapshot of ours"
    if "path" in place:
        directory = Path(place["path"]).expanduser()
    else:
        directory = await _local_directory(str(place.get("block", "")))
        if directory is None:
            return f"its storage cannot delete; remove {key} there"
    if not directory.is_dir():
        return f"{directory} is not on this machine"
    await asyncio.to_thread(remove_tree, directory / key)
    return f"a part of {directory / key} could not be removed" if (directory / key).exists() else ""


async def _local_directory(block: str) -> Any:
    """The directory of a block that keeps results in one; None for any other."""
    from uuid import UUID

    from prefect.filesystems import LocalFileSystem
    from prefect.results import aresolve_result_storage

    try:
        found = await aresolve_result_storage(UUID(block))
    except Exception:  # gone, or of a kind that is not installed here
        return None
    return Path(found.basepath or "").expanduser() if isinstance(found, LocalFileSystem) and found.basepath else None
