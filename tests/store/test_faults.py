"""Faults, really caused: kill -9 while writing, locks, a full disk, a dead server, many processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from prefect_routines.errors import StoreError
from prefect_routines.store import Entry, Store
from prefect_routines.store import database as database_module

from .other_process import StartActor
from .postgres_server import PostgresServer


def _check_whole_batches(journal: list[Entry]) -> None:
    """Numbers without gaps, each batch complete and in one piece."""
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    at = 0
    while at < len(journal):
        size = journal[at].data["of"]
        batch = journal[at : at + size]
        assert [entry.data["place"] for entry in batch] == list(range(size))
        assert len({entry.data["batch"] for entry in batch}) == 1
        at += size


async def test_killed_while_appending(store: Store, url: str, session_id: str, start_actor: StartActor) -> None:
    """kill -9 at random instants, again and again on one session: no gap, no half batch, nothing acknowledged is missing."""
    chance, acknowledged = random.Random(11), 0
    for _ in range(4):
        actor = await start_actor(url)
        await actor.does("acquire", session_id, 600.0)
        actor.tell("append_for_ever", 7)
        for _ in range(chance.randrange(1, 60)):
            await actor.says()
            acknowledged += 1
        await actor.kill()
        journal = await store.entries(session_id)
        _check_whole_batches(journal)
        assert len(journal) >= acknowledged * 7


async def test_processes_and_sessions_at_once(store: Store, url: str, start_actor: StartActor) -> None:
    """Three processes with two sessions each and four sessions here, all appending: every journal is whole, no lock surfaces."""
    actors = [await start_actor(url) for _ in range(3)]
    for number in range(10):
        await store.create_session(session_id=f"s{number}", routine="r", flow_run_id=None)
    for number, actor in enumerate(actors):
        actor.tell("append_many", f"s{number * 2}", 40)
        actor.tell("append_many", f"s{number * 2 + 1}", 40)

    async def here(session_id: str) -> None:
        lease = await store.acquire(session_id)
        for batch in range(40):
            await store.append(lease, [("test.entry", {"batch": batch, "place": place}) for place in range(3)])

    await asyncio.gather(*(here(f"s{number}") for number in range(6, 10)))
    for actor in actors:
        assert [await actor.says(), await actor.says()] == [40, 40]
    for number in range(10):
        journal = await store.entries(f"s{number}")
        assert [entry.seq for entry in journal] == list(range(1, 121))


@pytest.fixture
async def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


async def _with_a_lock(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def test_a_locked_database_is_waited_for(sqlite_file: Path) -> None:
    """Somebody holds SQLite's write lock for two seconds: the append waits and succeeds; reading goes on meanwhile."""
    async with await Store.open(f"sqlite:///{sqlite_file}") as store:
        await store.create_session(session_id="s", routine="r", flow_run_id=None)
        lease = await store.acquire("s")
        blocker = await _with_a_lock(sqlite_file)
        append = asyncio.create_task(store.append(lease, [("a", {})]))
        await asyncio.wait([append], timeout=2)
        assert not append.done()
        assert await store.entries("s") == []
        blocker.execute("ROLLBACK")
        blocker.close()
        assert await asyncio.wait_for(append, 10) == [1]


async def test_a_lock_that_never_ends_is_an_error(sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After bounded waiting the error says that another program holds the lock; afterwards the store works again."""
    monkeypatch.setattr(database_module, "SQLITE_BUSY_SECONDS", 0.1)
    async with await Store.open(f"sqlite:///{sqlite_file}") as store:
        await store.create_session(session_id="s", routine="r", flow_run_id=None)
        lease = await store.acquire("s")
        blocker = await _with_a_lock(sqlite_file)
        with pytest.raises(StoreError, match="another program keeps the database locked"):
            await store.append(lease, [("a", {})])
        blocker.close()
        assert await store.append(lease, [("a", {})]) == [1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; needs root, which CI has."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root; test_a_file_size_limit covers the rest")
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


async def test_a_full_disk(small_disk: Path) -> None:
    """The error names the disk; what was acknowledged is there; with room again the same store goes on, without a gap."""
    async with await Store.open(f"sqlite:///{small_disk / 'store.db'}") as store:
        await store.create_session(session_id="s", routine="r", flow_run_id=None)
        lease = await store.acquire("s")
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 200_000)
        written: list[int] = []

        async def fill() -> None:
            while len(written) < 1000:
                written.extend(await store.append(lease, [("a", {"text": "x" * 5000})] * 2))

        with pytest.raises(StoreError, match=r"the disk is full .* left on the disk of .*ROUTINES_DATABASE_URL"):
            await fill()
        assert [entry.seq for entry in await store.entries("s")] == written
        ballast.unlink()
        assert await store.append(lease, [("a", {})]) == [len(written) + 1]


async def test_opening_on_a_full_disk(small_disk: Path) -> None:
    """No room for the first table: the same clear error."""
    (small_disk / "ballast").write_bytes(b"x" * 1_000_000)
    with pytest.raises(StoreError, match="the disk is full"):
        await Store.open(f"sqlite:///{small_disk / 'store.db'}")


async def test_a_file_size_limit(sqlite_file: Path, start_actor: StartActor) -> None:
    """`ulimit -f` reached: the error names the disk, and every batch written before is whole."""
    url = f"sqlite:///{sqlite_file}"
    async with await Store.open(url) as store:
        await store.create_session(session_id="s", routine="r", flow_run_id=None)
        actor = await start_actor(url)
        await actor.does("acquire", "s", 60.0)
        await actor.does("limit_file_size", 400_000)
        written: list[int] = []
        for _ in range(2000):
            reply = await actor.does("append", 20)
            if isinstance(reply, dict):
                break
            written += reply
        assert reply["error"] == "StoreError"
        assert "the disk is full" in reply["text"]
        assert [entry.seq for entry in await store.entries("s")] == written


async def test_a_dead_server(start_actor: StartActor) -> None:
    """PostgreSQL is killed: a StoreError that names it; it comes back: the same store works on, nothing acknowledged is lost."""
    server = await asyncio.to_thread(PostgresServer)
    try:
        async with await Store.open(await server.create_database("mortal")) as store:
            await store.create_session(session_id="s", routine="r", flow_run_id=None)
            lease = await store.acquire("s")
            assert await store.append(lease, [("a", {})]) == [1]
            await asyncio.to_thread(server.kill)
            with pytest.raises(StoreError, match=r"session store 127.0.0.1:\d+/mortal: the server cannot be reached") as dead:
                await store.append(lease, [("b", {})])
            assert "s3cret-word" not in str(dead.value)
            with pytest.raises(StoreError, match="cannot be reached"):
                await store.entries("s")
            await asyncio.to_thread(server.start)
            assert await store.append(lease, [("c", {})]) == [2]
            # connections that broke while nobody looked are replaced without an error
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await store.append(lease, [("d", {})]) == [3]
            assert [entry.kind for entry in await store.entries("s")] == ["a", "c", "d"]
    finally:
        await asyncio.to_thread(server.remove)


async def test_a_server_that_hangs(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server process behind our connection is stopped: the append gives it up and goes through on a new connection, once."""
    monkeypatch.setattr(database_module, "COMMAND_SECONDS", 1.0)
    url = await postgres.create_database("hanging")
    async with await Store.open(url) as store:
        await store.create_session(session_id="s", routine="r", flow_run_id=None)
        lease = await store.acquire("s")
        watcher = await asyncpg.connect(url)
        mine = "SELECT pid FROM pg_stat_activity WHERE datname = 'hanging' AND pid <> pg_backend_pid()"
        backends = [row["pid"] for row in await watcher.fetch(mine)]
        for pid in backends:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert await asyncio.wait_for(store.append(lease, [("a", {})]), 60) == [1]
        finally:
            for pid in backends:
                os.kill(pid, signal.SIGCONT)
            await watcher.close()
        assert await store.append(lease, [("b", {})]) == [2]
        assert [entry.kind for entry in await store.entries("s")] == ["a", "b"]
