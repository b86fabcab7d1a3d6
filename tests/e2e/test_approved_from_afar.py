"""A run of a deployment waits, without a process; a click in Slack or on the session's page has it go on, and the call is made once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, expect

from connectors.conftest import emulator
from connectors.emulator import Emulator
from gateway.gateway_process import Gateway
from gateway.session_world import World as Visited
from gateway.session_world import sign_in
from notices.asking import Asking, slack_block
from prefect_routines.store import Form
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until
from workers.asking_world import World
from workers.place import ENDED, Place

__all__ = ["emulator"]
SCRIPT = [say(call("tell", room="all", text="Hello")), say(call("report", verdict="done", summary="They know."))]


@pytest.fixture(scope="module")
def gateway(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With a store of its own."""
    started = Gateway(tmp_path_factory.mktemp("gateway"))
    yield started
    assert started.stop() == 0
    assert "Unexpected" not in started.log, started.log


@pytest.fixture(scope="module")
def place(gateway: Gateway, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A worker that shares it."""
    env = {"ROUTINES_DATABASE_URL": f"sqlite+aiosqlite:///{gateway.home / 'store.db'}"}
    with Place(prefect_server, tmp_path_factory.mktemp("afar"), f"afar-{uuid4().hex[:8]}", env) as place:
        place.worker()
        yield place


def has_gone_on(world: World, run: str, form: Form, claude: ScriptedClaude) -> None:
    """In another process, which made the call and asked Claude nothing again; then the session ended as it said."""
    state = world.place.until(run, *ENDED)["state"]
    assert state["type"] == "COMPLETED", state
    assert world.told == ["all: Hello"]
    session = until(lambda: world.session(run) if world.session(run).status == "ended" else None, 30)
    assert session.verdict == "done"
    entries = world.in_store(lambda store: store.entries(session.id))
    kinds = Counter(entry.kind for entry in entries)
    assert (kinds["session.status_suspended"], kinds["session.status_running"], kinds["form.answered"]) == (1, 2, 1)
    [calls] = [entry for entry in entries if entry.kind == "tool.start" and entry.data["name"] == "tell"]
    [answered] = [entry for entry in entries if entry.kind == "form.answered"]
    assert calls.seq > answered.seq
    assert [request.results[0].text for request in claude.requests[1:]] == ["told"]
    assert world.in_store(lambda store: store.forms(session_id=form.session_id)) == [world.in_store(lambda store: store.form(form.id))]


@pytest.mark.timeout(300)
def test_a_click_in_slack(place: Place, gateway: Gateway, emulator: Emulator, tmp_path: Path) -> None:
    """The message comes when the run waits; a second click, when it has gone on, changes nothing."""
    with ScriptedClaude(SCRIPT) as claude, slack_block(emulator) as (slack, block):
        world = World(place, "afar-slack", tmp_path, claude, notify=[f"slack/{block}"])
        run = world.start()
        form = world.form(run)
        asking = Asking(gateway, slack, block)
        message = until(lambda: asking.message(form))
        assert world.told == []
        assert asking.click(message, "Approve").status == 200
        has_gone_on(world, run, form, claude)
        assert asking.click(message, "Deny", "max").status == 200
        answered = asking.form(form)
        assert (answered.status, answered.person, answered.via) == ("answered", f"slack:T1/{slack.user('jane')} jane", "slack")
        assert world.told == ["all: Hello"]


@pytest.mark.timeout(300)
def test_a_click_on_the_page(place: Place, gateway: Gateway, browser: Browser, tmp_path: Path) -> None:
    """Who clicked sees the call being made and the end of the session, without loading anything anew."""
    with ScriptedClaude(SCRIPT) as claude:
        world = World(place, "afar-page", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        page = browser.new_page(base_url=f"http://127.0.0.1:{gateway.port}")
        sign_in(page, Visited(gateway), path=f"/sessions/{form.session_id}", name="ada")
        expect(page.locator("#needs")).to_contain_text("Hello")
        page.get_by_role("button", name="Approve", exact=True).click()
        expect(page.locator("#needs form")).to_have_count(0)
        expect(page.locator("#head .badge")).to_have_text("✓ done", timeout=90_000)
        expect(page.locator("#items")).to_contain_text("ada (page): approve")
        page.close()
        has_gone_on(world, run, form, claude)
        answered = world.in_store(lambda store: store.form(form.id))
        assert (answered.status, answered.person, answered.via) == ("answered", "ada", "page")
