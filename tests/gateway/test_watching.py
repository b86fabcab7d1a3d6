"""Watching: one reader for each session, whoever looks; and pages as data that cannot act."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.session_world import asked
from prefect_routines.gateway.limits import Busy
from prefect_routines.gateway.markup import TAGS, data_of, html_of, tag
from prefect_routines.gateway.stream import LiveText
from prefect_routines.gateway.transcript_view import TranscriptView
from prefect_routines.gateway.watching import Watching
from prefect_routines.store import Lease, SessionRecord, Store
from session.journals import agent, entries, result, started, text, use, user


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened


async def running(store: Store, name: str = "ses-1") -> tuple[SessionRecord, Lease]:
    await store.create_session(session_id=name, routine="docs-sync", flow_run_id=None)
    lease = await store.acquire(name)
    await store.update_session(lease, status="running")
    record = await store.session(name)
    assert record is not None
    return record, lease


async def test_those_who_watch_share_a_reader(store: Store) -> None:
    """The last one who goes ends it; then nobody reads, and nobody asks for live text."""
    record, lease = await running(store)
    watching = Watching(store, 3)
    async with watching.of(record) as one, watching.of(record) as two:
        assert one is two
        assert (watching.sessions, one.viewers) == (1, 2)
        assert (await store.pulse(record.id)).watched
        news = one.news
        await store.append(lease, [user("x", prompt=1)])
        await asyncio.wait_for(news.wait(), 10)
        assert [entry.seq for entry in await one.entries(0)] == [1]
        other, _ = await running(store, "ses-2")
        async with watching.of(other):
            assert watching.sessions == 2
            with pytest.raises(Busy, match="watch"):
                async with watching.of(record):
                    pass
    assert watching.sessions == 0


async def test_it_goes_on_when_the_store_was_away_for_a_moment(store: Store) -> None:
    """What was written meanwhile comes all at once."""
    from sqlalchemy import text as sql

    record, lease = await running(store)
    async with Watching(store, 3).of(record) as watched:
        await store.append(lease, [user(f"{number}") for number in range(700)])
        while watched.view.seq < 700:
            await asyncio.wait_for(watched.news.wait(), 10)
        seqs = [0]
        while found := await watched.entries(seqs[-1]):
            seqs += [entry.seq for entry in found]
        assert seqs == list(range(701))
        async with store._db.engine.begin() as connection:
            await connection.execute(sql("ALTER TABLE routines_forms RENAME TO gone"))
        await store.append(lease, [user("while it is away")])
        async with store._db.engine.begin() as connection:
            await connection.execute(sql("ALTER TABLE gone RENAME TO routines_forms"))
        while watched.view.seq < 701:
            await asyncio.wait_for(watched.news.wait(), 20)


def test_live_text_comes_in_pieces() -> None:
    """What was told is not told again; another turn, or a turn tried again, begins anew."""
    live = LiveText()
    assert live.news(0, "") is None
    assert live.news(3, "Ich") == {"turn": 3, "at": 0, "text": "Ich"}
    assert live.news(3, "Ich sehe") == {"turn": 3, "at": 3, "text": " sehe"}
    assert live.news(3, "Ich sehe") is None
    assert live.news(3, "Anew") == {"turn": 3, "at": 0, "text": "Anew"}
    assert live.news(0, "") == {"turn": 0, "at": 0, "text": ""}


def test_pieces_of_a_page_are_text_and_known_tags() -> None:
    """Text is escaped and made visible, in attributes too; an address is ours or the web's; other tags and attributes there are none."""
    node = tag("a", "<b>\u202e&", title='"><script>', href="javascript:alert(1)")
    assert html_of(node) == '<a title="&quot;&gt;&lt;script&gt;">&lt;b&gt;\\u202e&amp;</a>'
    assert data_of(node) == ["a", {"title": '"><script>'}, ["<b>\\u202e&"]]
    for address in ("//evil.example", "data:x", "JAVASCRIPT:x", " javascript:x", "https://a b", "/a\nb", "vbscript:x", "http:/x"):
        assert "href" not in tag("a", "x", href=address).attributes, address
    for address in ("https://example.org/a?b=c#d", "/sessions", "?all=1"):
        assert tag("a", "x", href=address).attributes["href"] == address
    assert html_of(tag("pre", "\n\nx")) == "<pre>\n\n\nx</pre>"
    with pytest.raises(ValueError, match="script"):
        tag("script", "x")
    with pytest.raises(ValueError, match="onclick"):
        tag("p", onclick="x")


def test_what_people_did_stands_in_the_transcript() -> None:
    """Who, from where, and what; a message in his own words, without the mark that is there for Claude."""
    content = {"calls": [asked()], "questions": []}
    decided = {"decisions": {"toolu_9": {"decision": "approve_all", "reason": "fine", "arguments": {"text": "x"}}}}
    message = {"content": [{"type": "text", "text": "[Message from ada]\nStop."}], "by": "ada", "via": "cli"}
    budget = {"kind": "budget", "key": "b", "form": "f", "content": {"reached": "9 of 9 turns", "calls": [], "questions": []}}
    view = TranscriptView("ses-1")
    for entry in entries(
        ("user.message", message),
        ("form.opened", {"form": "f", "key": "k", "kind": "approval", "content": content}),
        ("form.answered", {"form": "f", "key": "k", "kind": "approval", "answer": decided, "person": "ada", "via": "page"}),
        ("form.opened", budget),
        ("form.answered", {**budget, "answer": {"action": "continue", "raise": {"turns": 20}}, "person": "grace", "via": "api"}),
        ("session.interrupted", {"person": "ada", "via": "page", "act": 3}),
        ("session.cancelled", {"person": "ada", "via": "page"}),
        ("session.of_another_version", {"x": 1}),
        ("form.answered", {"x": 1}),
    ):
        view.apply(entry.seq, entry)
    shown = [re.sub("<[^>]*>", " ", html_of(item.node)).strip() for item in view.items.values()]
    assert shown == [
        "Message from ada (cli)  Stop.",
        "Asks a person: slack_post: #docs",
        "ada (page): approve all, with changed arguments (fine)",
        "Asks a person: used up: 9 of 9 turns",
        "grace (api): continue; 20 more turns",
        "Session interrupted by ada (page)",
        "Session cancelled by ada (page)",
        "(form.answered: this version cannot show it)",
    ]


def test_browser_and_server_know_the_same_tags() -> None:
    """The script builds what the server writes."""
    script = (Path(__file__).parents[2] / "src/prefect_routines/gateway/static/session.js").read_text()
    said = re.search(r"TAGS = new Set\(\((.*?)\)\.split", script, re.S)
    assert said is not None
    assert set("".join(re.findall(r'"([^"]*)"', said[1])).split()) == TAGS
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_items_tell_which_of_them_changed() -> None:
    """A call's result takes the place of the call; nothing else is told again."""
    view = TranscriptView("ses-1")
    for entry in entries(user("Go", prompt=1), agent(text("I go."), use("t1", command="ls"), use("t2", command="ls")), started("t1")):
        view.apply(entry.seq, entry)
    assert [item.id for item in view.since(0)] == ["e1", "e2", "c2-0", "c2-1"]
    assert [item.id for item in view.since(2)] == ["c2-0"]
    [_, _, _, done] = entries(user("Go"), user("Go"), user("Go"), result("t1", "a b"))
    view.apply(4, done)
    assert [(item.id, "a b" in html_of(item.node)) for item in view.since(3)] == [("c2-0", True)]
