"""What the doctor sees of a machine that is well, and of one that is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_routines.doctor.machine import (
    look_at_certificates,
    look_at_disks,
    look_at_git,
    look_at_sandbox,
    look_at_store,
    look_at_zones,
)
from prefect_routines.errors import SandboxUnavailable, StoreError
from prefect_routines.store import Store
from prefect_routines.store.holder import Holder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, configure: Callable[..., None]) -> Path:
    """A home of its own."""
    configure(ROUTINES_HOME=str(tmp_path / "home"))
    return tmp_path / "home"


async def test_a_store_says_what_and_where_it_is(home: Path) -> None:
    """It is made if it is not there yet."""
    found = await look_at_store()
    assert found.status == "ok"
    assert found.saw.startswith(f"SQLite, {home}/store.db, schema ")


async def test_a_store_that_is_no_database_is_an_error(home: Path) -> None:
    """In one line."""
    home.mkdir()
    (home / "store.db").write_text("this is no database, and never was one" * 100)
    with pytest.raises(StoreError):
        await look_at_store()


async def test_sqlite_written_from_two_machines_is_red() -> None:
    """Sessions of another host in a file of SQLite mean that it lies on a shared disk."""
    async with await Store.open() as store:
        for session, host in (("s1", "here"), ("s2", "there")):
            await store.create_session(session_id=session, routine="r", flow_run_id=None)
            await store.acquire(session, holder=Holder(host, 1))
    found = await look_at_store()
    assert found.status == "red"
    assert "here, there" in found.saw
    assert "ROUTINES_DATABASE_URL=postgresql" in found.remedy


async def test_a_home_that_cannot_be_made_is_red(tmp_path: Path, configure: Callable[..., None]) -> None:
    """With the variable that moves it."""
    (tmp_path / "file").touch()
    configure(ROUTINES_HOME=str(tmp_path / "file" / "home"))
    found = await look_at_disks()
    assert (found.status, "Not a directory" in found.saw, "ROUTINES_HOME" in found.remedy) == ("red", True, True)


async def test_room_on_the_disks_is_told() -> None:
    """Of both places."""
    found = await look_at_disks()
    assert found.saw.count("GB free") == 2


async def test_a_sandbox_is_really_started() -> None:
    """With its filter of system calls and its proxy."""
    assert (await look_at_sandbox()).status == "ok"


async def test_a_missing_bubblewrap_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to install it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable, match="apt-get install bubblewrap"):
        await look_at_sandbox()


async def test_git_is_there_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Present, too old, missing."""
    assert (await look_at_git()).saw.startswith("git version 2.")
    (tmp_path / "git").write_text("#!/bin/sh\necho git version 2.20.1\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert (await look_at_git()).remedy == "install git 2.31 or later"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert (await look_at_git()).remedy == "apt-get install git"


async def test_zones_of_schedules_must_be_known() -> None:
    """One that no machine knows is named."""
    assert (await look_at_zones(["Europe/Paris", "Asia/Tokyo"])).saw == "Asia/Tokyo, Europe/Paris known"
    found = await look_at_zones(["Europe/Paris", "Mars/Olympus"])
    assert (found.status, "Mars/Olympus" in found.saw, "tzdata" in found.remedy) == ("red", True, True)


async def test_a_variable_that_names_no_certificates_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks every https request with words that name no variable."""
    assert (await look_at_certificates()).status == "ok"
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    found = await look_at_certificates()
    assert (found.status, found.remedy) == ("red", "correct or unset SSL_CERT_FILE")
