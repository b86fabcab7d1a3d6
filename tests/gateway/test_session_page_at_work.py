"""The session page beside a real run: what Claude writes is seen as it comes, and an approval on the page starts the call."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from prefect_routines.testing import ScriptedClaude, call, say

from .gateway_process import ROUTINES, Gateway
from .session_world import World, sign_in

FLOWS = Path(__file__).parents[2] / "flows"
LONG = "I think about what has to be done, and tell you while I do. " * 8
SCRIPT = [
    say(LONG, call("bash", command="echo looked"), delay=0.4),
    say("Now I write.", call("bash", command="touch /workspace/written && echo approved")),
    say(call("bash", command="touch /workspace/other && echo never")),
    say(call("report", verdict="done", summary="It is written.")),
]


@pytest.fixture
def world(gateway: Gateway) -> World:
    return World(gateway)


def test_a_run_is_watched_and_approved_on_the_page(gateway: Gateway, world: World, page: Page) -> None:
    """Live text before the turn is over; a message in the next request; an approved call runs, a denied one does not."""
    settings = {"policy": {"ask": ["bash(touch *)"]}, "unattended": "wait"}
    place = gateway.home / "settings.json"
    place.write_text(json.dumps(settings))
    with ScriptedClaude(SCRIPT) as claude:
        environment = {**os.environ, **claude.environment(), "ROUTINES_HOME": str(gateway.home)}
        command = [ROUTINES, "run", str(FLOWS / "ask.py"), "--param", "prompt=Work", "--settings", str(place)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            try:
                gateway.until(lambda: bool(gateway.in_store(lambda store: store.sessions(routine="ask"))), 90)
                [session] = gateway.in_store(lambda store: store.sessions(routine="ask"))
                sign_in(page, world, path=f"/sessions/{session.id}", name="ada")
                expect(page.locator("#live")).to_contain_text("I think about", timeout=60_000)
                assert not any(entry.kind == "agent.message" for entry in gateway.in_store(lambda store: store.entries(session.id)))
                page.get_by_label("Message to Claude").fill("Mind the spelling.")
                page.get_by_role("button", name="Send", exact=True).click()
                expect(page.locator("#needs")).to_contain_text("touch /workspace/written", timeout=60_000)
                assert "Mind the spelling." in json.dumps(claude.requests[1].body["messages"])
                expect(page.locator("article.person")).to_contain_text("Mind the spelling.")
                clicked = time.monotonic()
                page.get_by_role("button", name="Approve", exact=True).click()
                ran = page.locator(".call.ok").filter(has_text="touch /workspace/written")
                expect(ran).to_have_count(1, timeout=30_000)
                print(f"from the click on Approve to the call's result on the page: {time.monotonic() - clicked:.2f} s")
                expect(page.locator("#needs")).to_contain_text("touch /workspace/other", timeout=60_000)
                page.get_by_label("Reason").fill("One file is enough")
                page.get_by_role("button", name="Deny", exact=True).click()
                expect(page.locator("#head .badge")).to_have_text("✓ done", timeout=60_000)
                said = run.communicate(timeout=60)[0]
            finally:
                run.kill()
    assert run.returncode == 0, said
    assert "One file is enough" in json.dumps(claude.requests[3].body["messages"])
    expect(page.locator("#items")).to_contain_text("ada (page): approve")
    expect(page.locator("#items")).to_contain_text("ada (page): deny (One file is enough)")
    assert claude.problems == []
