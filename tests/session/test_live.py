"""The text that Claude is writing reaches those who watch: while it is written, without secrets, and only while somebody watches."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prefect_routines.redaction import Redactor
from prefect_routines.session.live import LiveText
from prefect_routines.store import Lease, Store
from waiting import until_async

SECRET = "s3cret-token-of-ours"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with nothing in it."""
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path}/store.db") as opened:
        yield opened


async def session(store: Store) -> tuple[Lease, LiveText]:
    """A session at work, and its live text."""
    await store.create_session(session_id="s1", routine="r", flow_run_id=None)
    lease = await store.acquire("s1")
    return lease, LiveText(store, lease, lambda: Redactor([SECRET]))


async def test_those_who_watch_see_the_text_as_it_grows(store: Store) -> None:
    """All that was written before somebody came, then what is new; nothing when the turn is over."""
    _, live = await session(store)
    await store.watch("s1")
    live.begin(3)
    live.feed("I look ")

    async def shows(turn: int, text: str) -> bool:
        return await store.live("s1") == (turn, text)

    live.watched = True  # somebody came in the middle of the turn
    await until_async(lambda: shows(3, "I look "))
    live.feed("at the log. ")
    await until_async(lambda: shows(3, "I look at the log. "))
    live.end()
    await until_async(lambda: shows(0, ""))
    live.begin(4)
    live.feed("Again. ")
    await until_async(lambda: shows(4, "Again. "))
    await live.close()
    assert await store.live("s1") == (0, "")


async def test_a_secret_is_hidden_wherever_the_text_is_cut(store: Store) -> None:
    """Also when it comes in pieces, each of them shown for a while."""
    _, live = await session(store)
    await store.watch("s1")
    live.watched = True
    seen = set()
    live.begin(1)
    for piece in ("The key is ", SECRET[:7], SECRET[7:], " and that is it, all of it, really, to the end"):
        live.feed(piece)
        began = time.monotonic()

        async def a_while(began: float = began) -> bool:
            seen.add((await store.live("s1"))[1])
            return time.monotonic() - began > 0.5

        await until_async(a_while)
    assert not [text for text in seen if SECRET[:5] in text]
    assert max(seen, key=len) == "The key is [secret] and that is it, all of it, really, to the end"[: len(max(seen, key=len))]
    assert "[secret]" in max(seen, key=len)
    assert live.written == "The key is [secret] and that is it, all of it, really, to the end"
    await live.close()


async def test_nothing_is_written_while_nobody_watches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is left alone."""
    _, live = await session(store)
    writes = []
    write = store._db.write
    monkeypatch.setattr(store._db, "write", lambda work: writes.append(work) or write(work))
    for turn in range(8, 12):
        live.begin(turn)
        live.feed("Nobody reads this.")
        live.end()
    await live.close()
    assert writes == []
