"""A run of a deployment waits, without a process; a click in Slack or on the session's page has it go on, and the call is made once."""

from __future__ import annotations

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
from prefect_routines.testing import ScriptedClaude
from waiting import until
from workers.asking_world import TELLS, World
from workers.place import Place

__all__ = ["emulator"]


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


@pytest.mark.timeout(300)
def test_a_click_in_slack(place: Place, gateway: Gateway, emulator: Emulator, tmp_path: Path) -> None:
    """The message comes when the run waits; a second click, when it has gone on, changes nothing."""
    with ScriptedClaude(TELLS) as claude, slack_block(emulator) as (slack, block):
        world = World(place, "afar-slack", tmp_path, claude, notify=[f"slack/{block}"])
        run = world.start()
        form = world.form(run)
        asking = Asking(gateway, slack, block)
        message = until(lambda: asking.message(form))
        assert world.told == []
        assert asking.click(message, "Approve").status == 200
        world.went_on_once(run)
        assert world.told == ["all: Hello"]
        assert len(claude.requests) == 2
        assert asking.click(message, "Deny", "max").status == 200
        answered = asking.form(form)
        assert (answered.status, answered.person, answered.via) == ("answered", f"slack:T1/{slack.user('jane')} jane", "slack")
        assert world.told == ["all: Hello"]


@pytest.mark.timeout(300)
def test_a_click_on_the_page(place: Place, gateway: Gateway, browser: Browser, tmp_path: Path) -> None:
    """Who clicked sees the call being made and the end of the session, without loading anything anew."""
    with ScriptedClaude(TELLS) as claude:
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
        world.went_on_once(run)
        assert world.told == ["all: Hello"]
        answered = world.in_store(lambda store: store.form(form.id))
        assert (answered.status, answered.person, answered.via) == ("answered", "ada", "page")
