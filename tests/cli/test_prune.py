"""`routines prune`: what old sessions left behind goes, and nothing that somebody may still need."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.store import Delivery, Store

from .sessions_by_hand import Home, a_call, turn, verdict, waits

Command = Callable[..., tuple[int, str]]
OLD = datetime.now(UTC) - timedelta(days=40)
CLONES = ("workspace.ready", {"path": "x", "repositories": [{"name": "docs", "url": "u", "branch": "main", "base_sha": "0" * 40}]})


def left_behind(home: Home, name: str, *entries: tuple[str, dict[str, Any]], word: str | None = "done", **record: Any) -> Path:
    """A session of 40 days ago with its workspace; held by nobody unless `held`."""
    place = home.directory.parent / "workspaces" / name
    (place / "workspace" / "docs").mkdir(parents=True)
    (place / "workspace" / "docs" / "draft.md").write_text("Work.\n" * 1000)
    held, form = record.pop("held", False), record.pop("form", False)
    closed = place / "workspace" / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("x")
    closed.chmod(0)  # a model may close a directory even to its owner

    async def make() -> None:
        async with home.at_work(name) as (store, lease):
            await store.append(lease, [CLONES, turn(1, "Done."), *entries, *([verdict(word)] if word else [])])
            ended = {"ended_at": OLD, "status": "ended", "verdict": word} if word else {"status": "idle"}
            await store.update_session(lease, **{"started_at": OLD, **ended, **record})
            if form:
                await waits(store, lease, calls=[a_call()])
            if not held:
                await store.release(lease)

    asyncio.run(make())
    return place


def entries_of(home: Home, name: str) -> int:
    """How many entries a session's journal has."""
    return len(home.do(lambda store: store.entries(name)))


def test_what_is_old_and_done_with_goes(routines: Command, home: Home) -> None:
    """It is shown first, and only with --yes or a yes it goes; the record with verdict and cost stays."""
    old = left_behind(home, "ses-old")
    new = left_behind(home, "ses-new", ended_at=datetime.now(UTC))
    status, said = routines("prune")  # stdin is empty: no yes
    assert old.exists(), said
    assert "workspace of ses-old" in said
    assert "ses-new" not in said
    status, said = routines("prune", "--yes")
    assert status == 0, said
    assert (old.exists(), new.exists()) == (False, True)
    assert entries_of(home, "ses-old") > 0, "transcripts are kept for ever unless somebody says otherwise"
    assert routines("prune", "--transcripts")[0] == 2
    status, said = routines("prune", "--older-than", "30d", "--transcripts", "-y")
    assert status == 0, said
    assert (entries_of(home, "ses-old"), entries_of(home, "ses-new")) == (0, 3)
    record = home.do(lambda store: store.session("ses-old"))
    assert record is not None
    assert record.verdict == "done"
    assert "pruned" in record.data
    assert "removed" in routines("show", "ses-old")[1]
    assert routines("prune", "--older-than", "30d", "-y") == (0, "Nothing to remove.\n")


def test_the_last_copy_of_work_stays(routines: Command, home: Home) -> None:
    """Work that was not pushed and of which there is no snapshot: neither workspace nor transcript goes, unless it is forced."""
    lost = left_behind(home, "ses-lost", word="needs_attention")
    rehearsed = left_behind(home, "ses-rehearsed", ("x", {}), word="failed")
    storage = home.directory / "results"
    key = "routines/snapshots/ses-kept/3-abcd"
    (storage / key).mkdir(parents=True)
    (storage / key / "0000").write_bytes(b"x")
    snapshot = {"key": key, "parts": 1, "bytes": 1, "sha256": "", "storage": {"path": str(storage)}, "at": 2}
    kept = left_behind(home, "ses-kept", ("workspace.snapshot", snapshot), word="failed")
    status, said = routines("prune", "--older-than", "30d", "-y")
    assert status == 0, said
    assert [path.exists() for path in (lost, rehearsed, kept)] == [True, True, False]
    assert "stays  workspace of ses-lost" in said
    assert (storage / key).exists(), "of two copies one stays"
    assert entries_of(home, "ses-lost") > 0
    status, said = routines("prune", "--older-than", "30d", "-y", "--force")
    assert status == 0, said
    assert [path.exists() for path in (lost, rehearsed, storage / key)] == [False, False, False]


def test_a_snapshot_from_which_another_session_goes_on_stays(routines: Command, home: Home) -> None:
    """A forked session begins with that of the old one."""
    storage, key = home.directory / "results", "routines/snapshots/ses-old/3-abcd"
    (storage / key).mkdir(parents=True)
    snapshot = ("workspace.snapshot", {"key": key, "parts": 1, "bytes": 1, "sha256": "", "storage": {"path": str(storage)}, "at": 2})
    left_behind(home, "ses-old", snapshot)
    left_behind(home, "ses-fork", ("session.forked", {"from": "ses-old", "snapshot": snapshot[1]}), ended_at=datetime.now(UTC))
    said = routines("prune", "--older-than", "30d", "-y")[1]
    assert "ses-fork was forked from it" in said
    assert (storage / key).exists()


def test_a_session_that_runs_or_waits_is_not_touched(routines: Command, home: Home) -> None:
    """Whatever its age, and whatever is forced; one that stopped before its end only when that is forced."""
    running = left_behind(home, "ses-running", word=None, status="running", held=True)
    waiting = left_behind(home, "ses-waiting", word=None, form=True)
    suspended = left_behind(home, "ses-suspended", word=None, status="suspended")
    stopped = left_behind(home, "ses-stopped", word=None, status="running")
    routines("prune", "--older-than", "1d", "-y")
    assert [path.exists() for path in (running, waiting, suspended, stopped)] == [True] * 4
    routines("prune", "--older-than", "1d", "-y", "--force")
    assert [path.exists() for path in (running, waiting, suspended, stopped)] == [True, True, True, False]


def test_links_are_not_followed_and_other_directories_left_alone(routines: Command, home: Home, tmp_path: Path) -> None:
    """A model can put a link anywhere in its workspace, and what belongs to no session of this store is somebody else's."""
    old = left_behind(home, "ses-old")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (old / "workspace" / "link").symlink_to(outside)
    foreign = old.parent / "ses-foreign"
    foreign.mkdir()
    linked = left_behind(home, "ses-linked")
    os.rename(linked, tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    assert routines("prune", "-y")[0] == 0
    assert (old.exists(), foreign.exists(), (outside / "precious").exists()) == (False, True, True)
    assert (tmp_path / "elsewhere" / "workspace").exists()


def test_the_inbox_is_pruned_by_its_own_days(routines: Command, home: Home) -> None:
    """Deliveries that are done with, after ROUTINES_INBOX_DAYS or the age that is given."""

    async def deliver(store: Store) -> None:
        for number, days in enumerate((40, 20, 1)):
            at = datetime.now(UTC) - timedelta(days=days)
            await store.record_delivery(Delivery(f"evt-{number}", "github", str(number), "issues", f"{number}", received_at=at))

    home.do(deliver)
    assert "1 delivery" in routines("prune", "--inbox", "-y")[1]
    assert "1 delivery" in routines("prune", "--inbox", "--older-than", "1w", "-y")[1]
    assert [one.id for one in home.do(lambda store: store.deliveries())] == ["evt-2"]


@pytest.mark.parametrize("age", ["30", "d", "-3d", "1y", ""])
def test_an_age_that_is_none_is_one_line(routines: Command, age: str) -> None:
    """Status 2, and how it is written."""
    status, said = routines("prune", "--older-than", age)
    assert (status, said.count("\n")) == (2, 1)
    assert "30d" in said
