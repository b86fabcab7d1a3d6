"""Where a session's workspace is: in its directory on this machine, in a snapshot, or nowhere any more."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import RoutinesError, SandboxUnavailable
from prefect_routines.workspace import snapshot as snapshots

if TYPE_CHECKING:
    from prefect_routines.session.transcript import Transcript
    from prefect_routines.settings import Settings
    from prefect_routines.workspace.sandbox import Sandbox

MARK = "place"
"""File beside the workspace, out of the model's reach: which bringing-up of the session's workspace this is."""
LOST = "the workspace was lost and has been cloned anew; what was not pushed is gone"


class WorkspaceLost(RoutinesError):
    """A session is to go on whose workspace is neither on this machine nor in the storage."""

    def __init__(self, session_id: str, why: str) -> None:
        super().__init__(
            f"session {session_id}: its workspace is neither on this machine nor in the result storage ({why}); "
            "with --transcript-only (resume.transcript_only) it goes on with the conversation and fresh clones"
        )


@dataclass(frozen=True)
class Kept:
    """What is left of a workspace that is not here.

    Args:
        file: The snapshot, fetched and checked; None: there is none.
        key: Its key.
        notice: What Claude has to be told.
    """

    file: Path | None = None
    key: str = ""
    notice: str = LOST


def is_current(directory: Path, ready: dict[str, Any] | None) -> bool:
    """Whether the directory is the workspace that the journal means: another machine may have gone on with the session since."""
    if ready is None or not (directory / "workspace").is_dir():
        return False
    try:
        return (directory / MARK).read_text() == ready.get("place")
    except FileNotFoundError:
        return "place" not in ready and ready.get("path") == str(directory / "workspace")
    except OSError:
        return False


def mark(directory: Path) -> str:
    """Give a workspace that is being made a name of its own.

    Raises:
        SandboxUnavailable: Nothing can be written there.
    """
    name = secrets.token_hex(16)
    try:
        (directory / MARK).write_text(name)
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
        raise SandboxUnavailable(f"{directory} cannot be written: {why}; free space, or move ROUTINES_WORKSPACES") from error
    return name


async def fetch(session_id: str, settings: Settings, transcript: Transcript, directory: Path) -> Kept:
    """Look for the newest snapshot. The directory is left as it is: it may be all there is.

    Raises:
        WorkspaceLost: There is none, and the session was to be resumed with its workspace.
    """
    if transcript.workspace is None:
        return Kept()
    why = f"no snapshot was made: {transcript.not_kept}" if transcript.not_kept else "no snapshot was made of it"
    if transcript.snapshot is not None:
        try:
            return await _download(session_id, transcript, directory)
        except snapshots.SnapshotMissing as error:
            why = f"its snapshot cannot be had: {error}"
    elif not transcript.unsaved:
        return Kept(notice="this is another machine: the repositories have been cloned anew, as they were when the session began")
    resume = settings.resume
    if resume is not None and not resume.fork and not resume.transcript_only:
        raise WorkspaceLost(session_id, why)
    return Kept(notice=f"{LOST} ({why})")


async def _download(session_id: str, transcript: Transcript, directory: Path) -> Kept:
    snapshot = transcript.snapshot
    assert snapshot is not None
    directory.parent.mkdir(parents=True, exist_ok=True)
    for left in directory.parent.glob(f"{session_id}-*.snapshot"):  # by a process that was killed
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=directory.parent, prefix=f"{session_id}-", suffix=".snapshot")
    os.close(handle)
    file = Path(name)
    try:
        await snapshots.download(snapshot, await snapshots.storages_of(snapshot), file)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    notice = "this is a new shell; the workspace was restored from a snapshot, with all commits and files"
    if transcript.unsaved:
        notice += " as they were then: what was changed after it was made is lost"
    return Kept(file, snapshot["key"], notice)


async def put_back(box: Sandbox, kept: Kept, transcript: Transcript) -> str:
    """Unpack a fetched snapshot in the new sandbox; its key.

    Raises:
        SnapshotMissing: It does not fit.
    """
    assert kept.file is not None
    try:
        await snapshots.unpack(box, kept.file)
    finally:
        await asyncio.to_thread(kept.file.unlink, missing_ok=True)
    return kept.key
