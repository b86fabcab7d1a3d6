"""What a person sees in the Prefect UI, in a real browser: the run page, its artifacts, the form."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chromium import SHOTS
from prefect_routines.blocks import CONNECTORS
from prefect_routines.testing import LocalForge, ScriptedClaude, call, say

ROOT = Path(__file__).parents[2]
HOSTILE = (
    "<img src=x onerror=document.title='owned'> [click](javascript:alert(1)) ![pixel](http://127.0.0.1:9/pixel) \x1b[31mred\u202edlrow"
)


@pytest.fixture(scope="module")
def run_id(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished run whose repository, tool output and summary try to get out of the page."""
    directory = tmp_path_factory.mktemp("pages")
    docs = LocalForge(directory).repository("docs", files={"index.md": "# Docs"})
    settings = directory / "settings.json"
    settings.write_text(json.dumps({"repositories": [docs.url], "policy": {"allow": ["push(repository=docs)"]}}))
    script = [
        say(f"I write. {HOSTILE}", call("write", path="docs/index.md", content=f"# Docs\n```\n{HOSTILE}\n")),
        say(call("bash", command="cat docs/index.md; cd docs && git commit -qam 'Change <b>it</b>'")),
        say(call("push", repository="docs")),
        say(call("report", verdict="done", summary=f"Changed. {HOSTILE}", links=["https://example.org/a?b=c", "javascript:alert(1)"])),
    ]
    with ScriptedClaude(script) as claude:
        command = [str(Path(sys.executable).parent / "routines"), "run", "flows/ask.py", "--param", "prompt=Change it"]
        done = subprocess.run(
            [*command, "--settings", str(settings)],
            cwd=ROOT, env={**os.environ, **claude.environment()}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout.partition("/runs/flow-run/")[2][:36])


def api(server: str, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{server}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_the_run_page_tells_the_verdict_and_names_each_step(page: Page, prefect_server: str, run_id: str) -> None:
    """Completed with the verdict as a tag; turns and tool calls under names made for people."""
    page.goto(f"{prefect_server.removesuffix('/api')}/runs/flow-run/{run_id}")
    expect(page.get_by_text("verdict:done")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Completed").first).to_be_visible()
    page.get_by_text("Task Runs", exact=True).click()
    for name in ("Turn 3", "push: docs", "report: done", "write: docs/index.md"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=20_000)


@pytest.mark.parametrize("name", ["summary", "transcript", "diff", "usage", "writes"])
def test_artifacts_show_foreign_text_as_text(page: Page, prefect_server: str, run_id: str, name: str) -> None:
    """Nothing of it runs, nothing is fetched, no link leads anywhere but where it says."""
    [artifact] = [
        found
        for found in api(prefect_server, "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
        if found["key"].endswith(f"-{name}")
    ]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    page.goto(f"{prefect_server.removesuffix('/api')}/artifacts/artifact/{artifact['id']}", wait_until="networkidle")
    words = {"summary": "Changed.", "transcript": "I write.", "diff": "claude/ask-", "usage": "cache read", "writes": "index.md"}
    expect(page.get_by_text(words[name]).first).to_be_visible(timeout=20_000)
    assert page.title() != "owned"
    assert not [url for url in asked if url.endswith("/pixel")]
    links = page.locator("a[href]").evaluate_all("links => links.map(link => link.href)")
    assert not [link for link in links if link.startswith("javascript:")]
    if name == "summary":
        assert "https://example.org/a?b=c" in links
    if name not in ("usage", "writes"):
        assert "\\x1b[31m" in page.locator("body").inner_text()


def test_the_form_explains_the_parameters_and_shows_what_holds(page: Page, prefect_server: str, tmp_path: Path) -> None:
    """Titles, descriptions, defaults; the reserved parameter opens into fields that say what the routine has set."""
    shutil.copytree(ROOT / "flows", tmp_path / "flows")
    shutil.copytree(ROOT / "deployments", tmp_path / "deployments")
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    subprocess.run([*prefect, "work-pool", "create", "routines", "--type", "process", "--overwrite"], check=True, capture_output=True)
    deploy = [*prefect, "deploy", "--prefect-file", "deployments/docs-sync.yaml", "--all"]
    subprocess.run(deploy, cwd=tmp_path, check=True, capture_output=True)
    [deployment] = [found for found in api(prefect_server, "/deployments/filter", {}) if found["name"] == "weekly"]
    page.goto(f"{prefect_server.removesuffix('/api')}/deployments/deployment/{deployment['id']}/run", wait_until="networkidle")
    expect(page.get_by_text("From where on to look, as you would say it")).to_be_visible(timeout=20_000)
    page.get_by_text("change", exact=True).first.click()
    expect(page.get_by_text("Repositories the session may use. As set: sdk, docs.")).to_be_visible()
    expect(page.get_by_text("Claude model. As set: claude-opus-5-5.")).to_be_visible()


def test_each_connector_has_a_form_that_explains_itself(page: Page, prefect_server: str) -> None:
    """Registered with the collection; its fields say what goes where, and secrets are not shown as they are typed."""
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    subprocess.run([*prefect, "block", "register", "-m", "prefect_routines.collection"], check=True, capture_output=True)
    server = prefect_server.removesuffix("/api")
    for slug, home in CONNECTORS.items():
        module, _, name = home.partition(":")
        kind = getattr(importlib.import_module(module), name)
        page.goto(f"{server}/blocks/catalog/{slug}/create", wait_until="networkidle")
        expect(page.get_by_text("Block Name").first).to_be_visible(timeout=20_000)
        shown = " ".join(page.locator("body").inner_text().split())
        for title, field in kind.model_fields.items():
            assert field.description, f"{name}.{title} has no description"
            nested = "Credentials" in str(field.annotation)  # the UI tells of the block that is to be chosen there
            assert nested or field.description.replace("`", "").replace("*", "") in shown.replace("*", ""), f"{name}.{title}"
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/block-{slug}.png", full_page=True)
