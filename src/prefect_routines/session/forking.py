"""A new session out of an old one: its conversation up to some point, its counts, and a name of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect_routines.errors import SettingsError
from prefect_routines.session.transcript import READING, Transcript
from prefect_routines.settings import Resume
from prefect_routines.store import Entry, Lease, Store


def cut(entries: Sequence[Entry], at: int | None) -> int:
    """The last entry up to `at` after which a conversation may go on: no turn under way, no call without its result.

    Raises:
        SettingsError: There is none.
    """
    if not entries:
        raise SettingsError("the session has no journal yet; there is nothing to fork")
    last = entries[-1].seq
    if at is not None and at > last:
        raise SettingsError(f"the session has {last} entries; --at {at} is beyond its end")
    transcript, under_way, found = Transcript(), False, 0
    for entry in entries:
        if at is not None and entry.seq > at:
            break
        transcript.apply(entry)
        if entry.kind == "turn.start":
            under_way = True
        elif entry.kind in ("agent.message", "turn.failed", "session.compacted", "session.status_running"):
            under_way = False  # a restarted run asks again
        if transcript.prompts and not (under_way or transcript.open_calls or transcript.stop_reason == "pause_turn"):
            found = entry.seq
    if not found:
        raise SettingsError(f"before entry {at or last} nothing was said that a new session could go on from; take a later one")
    return found


def snapshot_at(entries: Sequence[Entry], at: int) -> dict[str, Any] | None:
    """A snapshot that was made after the cut and shows the workspace as it was at the cut; None if there is none."""
    for entry in entries:
        if entry.seq <= at:
            continue
        if entry.kind == "workspace.snapshot":
            return entry.data
        if entry.kind == "workspace.ready" or (entry.kind == "tool.start" and entry.data.get("name") not in READING):
            return None
    return None


async def fork(store: Store, lease: Lease, resume: Resume) -> str:
    """Copy the old session into the journal of the new one; a line that tells what was done.

    What was written outside before the fork stays counted: those records are copied first, each once, so that a process that dies in
    between leaves a session that simply is forked again.

    Raises:
        SettingsError: There is no point to fork at.
    """
    entries = await store.entries(resume.session)
    at = cut(entries, resume.at)
    copied = [entry for entry in entries if entry.seq <= at]
    answered = [entry.data["id"] for entry in copied if entry.kind == "tool.result"]
    await store.copy_outputs(lease, resume.session, answered)
    spent = Transcript.of(copied)
    told = {
        "from": resume.session,
        "at": at,
        "asked": resume.at,
        "by": resume.by,
        "dollars": spent.dollars + spent.reserved,
        "tokens": spent.total_tokens,
        "turns": spent.turns,
    }
    if (snapshot := snapshot_at(entries, at)) is not None:
        told["snapshot"] = snapshot
    await store.append(lease, [*((entry.kind, entry.data) for entry in copied), ("session.forked", told)])
    moved = f"; entry {resume.at} is in the middle of a turn" if resume.at is not None and _inside(entries, at, resume.at) else ""
    return f"Forked from {resume.session} at entry {at}{moved}; ${told['dollars']:.4f} were spent there"


def _inside(entries: Sequence[Entry], at: int, asked: int) -> bool:
    return any(at < entry.seq <= asked for entry in entries)
