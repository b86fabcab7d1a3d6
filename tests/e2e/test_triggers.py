"""The whole way on one machine: a webhook of GitHub's, a run, its pull request, the webhook of that, and a second routine's review."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chromium import SHOTS
from connectors.emulator import running
from connectors.github_world import DOCS, TOKEN, World, github_world
from prefect_routines.testing import ForgeRepository, LocalForge, ScriptedClaude, call, say
from waiting import until

from .machine import Machine

SECRET = "it-is-a-secret-of-the-webhook"
FLOWS = """\
from prefect_routines import Event, Policy, routine


@routine(
    repositories=["{docs}"],
    connectors=["github/bot"],
    policy=Policy(allow=["push(repository=docs) x1", "github_open_pull_request(repository=acme/docs) x1"]),
)
def gap(event: Event | None = None) -> str:
    \"\"\"Close a gap.\"\"\"
    return "Close the gap."


@routine(
    connectors=["github/bot"],
    policy=Policy(allow=["github_review(repository={{event.repository}}, number={{event.number}}, event=COMMENT) x1"]),
    own_events="others",
)
def critic(event: Event | None = None) -> str:
    \"\"\"Review.\"\"\"
    return "Review the pull request."
"""
DEPLOYMENTS = """\
deployments:
  - name: issues
    entrypoint: flows/work.py:gap
    work_pool: {name: routines}
    triggers:
      - expect: [github.issues.opened]
        match: {github.repository: acme/docs}
        parameters: {event: "{{ event.id | string }}"}
  - name: pulls
    entrypoint: flows/work.py:critic
    work_pool: {name: routines}
    triggers:
      - expect: [github.pull_request.opened]
        match: {github.repository: acme/docs, github.head: "claude/*"}
        parameters: {event: "{{ event.id | string }}"}
"""
REPORT = say(call("report", verdict="done", summary="It is done."))


class Scene:
    """The machine, the GitHub beside it, and what Claude does in each routine."""

    def __init__(self, machine: Machine, github: World, docs: ForgeRepository, up: subprocess.Popen[bytes]) -> None:
        self.machine, self.github, self.docs, self.up = machine, github, docs, up

    def pulls(self, issue: int) -> list[Any]:
        """Pull requests that were opened for an issue."""
        return [pull for pull in self.github.get(f"/repos/{DOCS}/pulls", state="all") if pull["title"] == f"Close the gap of {issue}"]

    def reviews(self, issue: int) -> list[Any]:
        return [review for pull in self.pulls(issue) for review in self.github.get(f"/repos/{DOCS}/pulls/{pull['number']}/reviews")]

    def inbox(self) -> list[Any]:
        found: list[Any] = json.loads(self.machine.run("inbox", "--json"))
        return found


def scripts(github: World, docs: ForgeRepository) -> dict[str, Any]:
    """What Claude does."""

    def write(request: Any) -> Any:
        text = request.result("read_event").text
        issue = json.loads(text[text.index("{") :])["issue"]["number"]
        return say(call("bash", command=f"cd docs && echo gap {issue} >> index.md && git commit -qam 'Close the gap of {issue}'"))

    def open_pull(request: Any) -> Any:
        branch = request.result("push").text.partition(" on ")[2].partition(" at ")[0]
        github.branch(branch)  # GitHub hears of a push; the emulator keeps no git repository
        github.put_file(f"{branch[-8:]}.md", "gap", "Close the gap", branch)
        title = re.findall("Close the gap of [0-9]+", json.dumps(request.body))[0]
        return say(call("github_open_pull_request", repository=DOCS, head=branch, base="main", title=title, body="See the issue."))

    def review(request: Any) -> Any:
        text = request.result("read_event").text
        pull = json.loads(text[text.index("{") :])["pull_request"]["number"]
        return say(call("github_review", repository=DOCS, number=pull, event="COMMENT", body="Looked at it; the claim holds."))

    return {
        "Close the gap.": [say(call("read_event")), write, say(call("push", repository="docs")), open_pull, REPORT],
        "Review the pull request.": [say(call("read_event")), review, REPORT],
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, let_others_in: Any) -> Iterator[Scene]:
    """Two routines at work on one machine, and a GitHub that sends it webhooks."""
    home = tmp_path_factory.mktemp("machine")
    let_others_in(home)
    docs = LocalForge(home / "forge").repository("docs", files={"index.md": "# Docs\n"})
    with running() as emulator, github_world(emulator) as github, ScriptedClaude(scripts(github, docs), strict=False) as claude:
        machine = Machine(home / "m", claude.environment())
        (machine.project / "flows").mkdir()
        (machine.project / "deployments").mkdir()
        (machine.project / "flows" / "work.py").write_text(FLOWS.format(docs=docs.url))
        (machine.project / "deployments" / "work.yaml").write_text(DEPLOYMENTS)
        with machine.up() as up:
            machine.python(f"""
from prefect_github import GitHubCredentials
from prefect_routines.connectors.github import GitHub
from prefect_routines.gateway.sources import WebhookSource
GitHub(credentials=GitHubCredentials(token={TOKEN!r}), base_url={github.url!r}).save("bot")
WebhookSource(signature="github", secrets=[{SECRET!r}], identities=["docs-bot"]).save("github")
""")
            machine.run("deploy", "--all")
            config = {"url": f"{machine.gateway}/hooks/github", "secret": SECRET, "content_type": "json"}
            github.post(f"/repos/{DOCS}/hooks", config=config, events=["*"], active=True)
            yield Scene(machine, github, docs, up)


def _open_issue(scene: Scene) -> int:
    """A person opens an issue."""
    headers = {"Authorization": "Bearer ghp_octocat"}
    answer = scene.github.http.post(f"/repos/{DOCS}/issues", json={"title": "How do I do it?", "body": "It is not said."}, headers=headers)
    return int(answer.json()["number"])


@pytest.mark.timeout(600)
def test_an_issue_becomes_a_reviewed_pull_request(scene: Scene) -> None:
    """Each step once; the inbox tells of all that came: two that started a run, and the echoes of our own writes that did not."""
    issue = _open_issue(scene)
    until(lambda: scene.reviews(issue))
    assert len(scene.pulls(issue)) == 1
    assert [review["body"].partition("\n")[0] for review in scene.reviews(issue)] == ["Looked at it; the claim holds."]

    def ended() -> bool:
        with contextlib.suppress(OSError):  # SQLite is busy
            return {run["state"]["message"] for run in scene.machine.ask("/flow_runs/filter", {})} == {"done: It is done."}
        return False

    until(ended)
    assert len(scene.machine.ask("/flow_runs/filter", {})) == 2


@pytest.mark.timeout(600)
def test_prefect_dies_in_the_middle(scene: Scene) -> None:
    """kill -9 of its server right before a delivery: the gateway takes it, and when the server is back the work is done, once."""
    scene.machine.kill(scene.up, "server start")
    issue = _open_issue(scene)
    until(lambda: scene.reviews(issue), 240)
    assert (len(scene.pulls(issue)), len(scene.reviews(issue))) == (1, 1)


@pytest.mark.timeout(300)
def test_people_see_it_in_prefects_pages(scene: Scene, page: Page) -> None:
    """The triggers among the automations, what happened in the event feed, the run with its verdict."""
    ui = scene.machine.api.removesuffix("/api")
    _look(page, f"{ui}/automations", "issues__automation", "automations")
    happened = {"filter": {"event": {"name": ["github.issues.opened"]}}, "limit": 1}
    [event] = scene.machine.ask("/events/filter", happened)["events"]
    _look(page, f"{ui}/events/event/{event['occurred'][:10]}/{event['id']}", "github.issues.opened", "event")
    runs = scene.machine.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
    _look(page, f"{ui}/runs/flow-run/{runs[0]['id']}", "Turn 1", "run")


def _look(page: Page, address: str, text: str, name: str) -> None:
    page.goto(address)
    expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/triggers-{name}.png", full_page=True)
