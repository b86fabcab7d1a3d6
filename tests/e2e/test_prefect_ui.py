"""A person with nothing but Prefect's UI: suspends a session, talks to it, approves and denies its calls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Locator, Page, expect

from chromium import SHOTS
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until
from workers.asking_world import REPORT, World
from workers.place import ENDED, Place

HELLO = "Hello <b>all</b>\u202e, [look](http://evil.example)"


@pytest.fixture(scope="module")
def ui_place(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(prefect_server, tmp_path_factory.mktemp("ui"), f"ui-{uuid4().hex[:8]}") as place:
        place.worker()
        yield place


def open_run(page: Page, place: Place, run: str) -> None:
    page.goto(f"{place.api_url.removesuffix('/api')}/runs/flow-run/{run}")
    expect(page.get_by_role("button", name="Cancel").or_(page.get_by_text("Suspended")).first).to_be_visible(timeout=30_000)


def form_field(page: Page, label: str) -> Locator:
    """The control that stands below a label in the form; Prefect's labels are not tied to theirs."""
    below = (
        f"xpath=//label[contains(., '{label}')]/following::*[self::textarea or self::input or self::button[@aria-haspopup] or self::select]"
    )
    return page.locator(below).first


def choose(page: Page, choice: str) -> None:
    """Choose in the form's only list, with the keyboard: the list is drawn elsewhere on the page."""
    page.locator("#p-modal-teleport-target .p-select-button__control").focus()
    page.keyboard.press("Space")
    page.get_by_role("option", name=choice, exact=True).click()


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


@pytest.mark.timeout(300)
def test_suspend_message_and_resume_by_clicks_alone(ui_place: Place, page: Page, tmp_path: Path) -> None:
    """Suspend on a running run turns into a form; what is written there is in Claude's next request."""
    with ScriptedClaude([say(call("bash", command="sleep 200")), REPORT]) as claude:
        world = World(ui_place, "ui-suspend", tmp_path, claude)
        run = world.start()
        until(lambda: claude.requests, 90)
        open_run(page, ui_place, run)
        page.get_by_role("button", name="Suspend").click()
        shot(page, "suspend-dialog")
        page.get_by_role("button", name=re.compile("Suspend|Submit")).last.click()
        form = world.form(run)
        assert form.kind == "pause"
        until(lambda: (ui_place.run(run)["state"]["state_details"] or {}).get("run_input_keyset"), 30)
        page.reload()
        page.get_by_role("button", name="Resume").click()
        page.get_by_text("The session waits.").wait_for(timeout=30_000)
        shot(page, "suspended-form")
        form_field(page, "Message to Claude").fill("There is a pull request already, stop.")
        page.get_by_role("button", name="Submit").click()
        ui_place.until(run, *ENDED)
        assert "There is a pull request already, stop." in str(claude.requests[1].body["messages"][-1])


@pytest.mark.timeout(300)
def test_approve_by_clicks_alone(ui_place: Place, page: Page, tmp_path: Path) -> None:
    """The form shows the call as it will be made, nothing in it acts, and the click makes it, once."""
    with ScriptedClaude([say(call("tell", room="all", text=HELLO)), REPORT]) as claude:
        world = World(ui_place, "ui-approve", tmp_path, claude)
        run = world.start()
        world.form(run)
        open_run(page, ui_place, run)
        shot(page, "waiting-run")
        page.get_by_role("button", name="Resume").click()
        page.get_by_text("This will be done, exactly:").wait_for(timeout=30_000)
        shot(page, "approval-form")
        assert page.get_by_role("link", name="look").count() == 0
        assert "\u202e" not in page.locator("body").inner_text()
        choose(page, "approve")
        page.get_by_role("button", name="Submit").click()
        ui_place.until(run, *ENDED)
        assert len(world.told) == 1
