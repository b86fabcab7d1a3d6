"""What Claude writes to GitHub: each write as the emulator has it afterwards, and found again by a process that knows only its key."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import ToolError

from .github_world import BRANCH, DOCS, Caller, World

HOSTILE = "\u202etxt.exe \x1b[31mred\x1b[0m @everyone @octocat fixes #1 <!-- hidden --> ![x](https://evil.example/p.png)"
KEY = "<!-- routine: "


async def test_a_pull_request_is_opened(world: World, github: Caller) -> None:
    """From the branch into the base, as a draft if so asked."""
    world.branch("claude/new")
    said = await github.write("open_pull_request", repository=DOCS, head="claude/new", base="main", title="A page", body="New.", draft=True)
    pull = world.get(f"/repos/{DOCS}/pulls")[0]
    assert said == f"Opened #{pull['number']}: {pull['html_url']}"
    assert (pull["title"], pull["head"]["ref"], pull["base"]["ref"], pull["draft"]) == ("A page", "claude/new", "main", True)
    assert pull["body"].startswith(f"New.\n\n{KEY}")


async def test_a_pull_request_names_the_page_where_others_can_reach_it(
    world: World, github: Caller, configure: Callable[..., None]
) -> None:
    """Behind the text, before the key by which it is found again."""
    world.branch("claude/linked")
    configure(ROUTINES_GATEWAY_URL="https://routines.example.org")
    await github.write("open_pull_request", repository=DOCS, head="claude/linked", base="main", title="A page", body="New.")
    body = world.get(f"/repos/{DOCS}/pulls")[0]["body"]
    assert re.match(rf"New\.\n\nSession: https://routines\.example\.org/sessions/\S+\n\n{re.escape(KEY)}", body), body


async def test_a_pull_request_that_is_open_for_the_branch_is_the_one(world: World, github: Caller) -> None:
    """GitHub lets a branch have one into each base: whoever opened it, nothing is left to do."""
    plan = await github.plan("open_pull_request", repository=DOCS, head=BRANCH, base="main", title="Again", body="x")
    assert plan.find is not None
    assert f"Opened #{world.pull}:" in str(await plan.find())
    other = await github.plan("open_pull_request", repository=DOCS, head=BRANCH, base="next", title="Again", body="x")
    assert other.find is not None
    assert await other.find() is None


async def test_a_comment_is_made_below_issues_and_pull_requests(world: World, github: Caller) -> None:
    """Each is found by its own key only."""
    for number in (world.issue, world.pull):
        said = await github.write("comment", repository=DOCS, number=number, body="It is.")
        assert said.startswith("Commented: http")
        assert world.comments(number)[-1].startswith(f"It is.\n\n{KEY}")
    assert len(world.comments(world.issue)) == 2


async def test_a_comment_is_found_among_hundreds(world: World, github: Caller) -> None:
    """GitHub gives the oldest first; the search begins at the other end and goes back some pages."""
    plan = await github.plan("comment", repository=DOCS, number=world.issue, body="Found?")
    for number in range(150):
        world.post(f"/repos/{DOCS}/issues/{world.issue}/comments", body=f"before {number}")
    said = await plan.send()
    for number in range(120):
        world.post(f"/repos/{DOCS}/issues/{world.issue}/comments", body=f"after {number}")
    assert plan.find is not None
    assert await plan.find() == said


async def test_what_is_planned_is_what_is_sent(world: World, github: Caller) -> None:
    """The journal, the scan for secrets and the rehearsal see the very text."""
    plan = await github.plan("comment", repository=DOCS, number=world.issue, body="Exactly so.")
    assert plan.request["request"] == f"POST /repos/{DOCS}/issues/{world.issue}/comments"
    assert len(world.comments(world.issue)) == 1
    await plan.send()
    assert world.comments(world.issue)[-1] == plan.request["body"]["body"]


async def test_hostile_text_arrives_harmless(world: World, github: Caller) -> None:
    """In bodies and titles: it calls nobody, closes nothing, hides nothing and fetches nothing."""
    await github.write("comment", repository=DOCS, number=world.issue, body=HOSTILE)
    await github.write("open_issue", repository=DOCS, title=HOSTILE, body=HOSTILE)
    await github.write("review", repository=DOCS, number=world.pull, event="COMMENT", body=HOSTILE)
    world.branch("claude/new")
    await github.write("open_pull_request", repository=DOCS, head="claude/new", base="main", title=HOSTILE, body=HOSTILE)
    await github.write("create_release", repository=DOCS, tag="v1", name=HOSTILE, body=HOSTILE)
    issue, pull = world.get(f"/repos/{DOCS}/issues")[0], world.get(f"/repos/{DOCS}/pulls")[0]
    release, review = world.get(f"/repos/{DOCS}/releases")[0], world.get(f"/repos/{DOCS}/pulls/{world.pull}/reviews")[0]
    texts = [world.comments(world.issue)[-1], review["body"], *(item["body"] for item in (issue, pull, release))]
    titles = [issue["title"], pull["title"], release["name"]]
    for text in (*texts, *titles):
        assert not {"\u202e", "\x1b"} & set(text)
        for bad in ("@everyone", "@octocat", "fixes #1"):
            assert bad not in text.replace(f"`{bad}`", ""), text
        assert "fixes #1" not in text
        assert "![" not in text
        assert "hidden" not in text
    assert all(text.count("<!--") == 1 for text in texts)
    assert all("<!--" not in title and "\n" not in title and len(title) <= 256 for title in titles)
    assert world.get(f"/repos/{DOCS}/issues/{world.issue}")["state"] == "open"


async def test_a_review_is_made(world: World, github: Caller) -> None:
    """With its event; an approval needs no text."""
    await github.write("review", repository=DOCS, number=world.pull, event="REQUEST_CHANGES", body="Not yet.")
    await github.write("review", repository=DOCS, number=world.pull, event="APPROVE", body="")
    reviews = world.get(f"/repos/{DOCS}/pulls/{world.pull}/reviews")
    assert [item["state"] for item in reviews] == ["CHANGES_REQUESTED", "APPROVED"]
    assert reviews[0]["body"].startswith("Not yet.")
    with pytest.raises(ToolError, match="body: write some text"):
        await github.plan("review", repository=DOCS, number=world.pull, event="COMMENT", body=" ")


async def test_labels_come_and_go(world: World, github: Caller) -> None:
    """The issue's labels say whether it was done; letter case does not count, as at GitHub."""
    for label in ("bug", "area/docs & more"):
        await github.write("add_label", repository=DOCS, number=world.issue, label=label)
    assert [item["name"] for item in world.get(f"/repos/{DOCS}/issues/{world.issue}/labels")] == ["bug", "area/docs & more"]
    again = await github.plan("add_label", repository=DOCS, number=world.issue, label="BUG")
    assert again.find is not None
    assert await again.find() is not None
    await github.write("remove_label", repository=DOCS, number=world.issue, label="area/docs & more")
    assert [item["name"] for item in world.get(f"/repos/{DOCS}/issues/{world.issue}/labels")] == ["bug"]


async def test_a_reviewer_is_asked(world: World, github: Caller) -> None:
    """The pull request says who is."""
    await github.write("request_review", repository=DOCS, number=world.pull, reviewer="octocat")
    assert [item["login"] for item in world.get(f"/repos/{DOCS}/pulls/{world.pull}")["requested_reviewers"]] == ["octocat"]
    with pytest.raises(ServiceError, match="GitHub answered 4"):
        await (await github.plan("request_review", repository=DOCS, number=world.pull, reviewer="nobody-there")).send()


async def test_an_issue_is_opened_closed_and_opened_again(world: World, github: Caller) -> None:
    """Its state says whether it was done."""
    await github.write("open_issue", repository=DOCS, title="A gap", body="There is one.")
    issue = world.get(f"/repos/{DOCS}/issues")[0]
    assert issue["title"] == "A gap"
    await github.write("close_issue", repository=DOCS, number=issue["number"], reason="not_planned")
    closed = world.get(f"/repos/{DOCS}/issues/{issue['number']}")
    assert (closed["state"], closed["state_reason"]) == ("closed", "not_planned")
    await github.write("reopen_issue", repository=DOCS, number=issue["number"])
    assert world.get(f"/repos/{DOCS}/issues/{issue['number']}")["state"] == "open"


async def test_a_pull_request_is_merged_only_as_it_was_looked_at(world: World, github: Caller) -> None:
    """A head that has moved on is refused, and nothing is merged."""
    where = f"/repos/{DOCS}/pulls/{world.pull}"
    with pytest.raises(ToolError, match=f"not merged: the head of #{world.pull} of {DOCS} is now {world.head}"):
        await (await github.plan("merge", repository=DOCS, number=world.pull, sha=world.base)).send()
    assert world.get(where)["merged"] is False
    said = await github.write("merge", repository=DOCS, number=world.pull, sha=world.head, method="squash")
    assert said.startswith(f"Merged #{world.pull} of {DOCS} at {world.head}")
    assert world.get(where)["merged"] is True


async def test_a_release_is_created(world: World, github: Caller) -> None:
    """A draft too, which cannot be looked up by its tag."""
    await github.write("create_release", repository=DOCS, tag="v1.0", name="One", body="All new.", draft=True)
    (release,) = world.get(f"/repos/{DOCS}/releases")
    assert (release["tag_name"], release["name"], release["draft"]) == ("v1.0", "One", True)
    assert release["body"].startswith(f"All new.\n\n{KEY}")


async def test_a_check_is_for_apps_only(world: World, github: Caller) -> None:
    """A token's owner has no such tool; the App's check carries the key where GitHub has a place for it."""
    assert "github_check_run" not in github.names
    connection = world.app().open("docs-app")
    app = Caller(connection)
    await app.write(
        "check_run", repository=DOCS, sha=world.head, name="docs review", conclusion="neutral", title="Two remarks", summary="See there."
    )
    await connection.close()
    (run,) = world.get(f"/repos/{DOCS}/commits/{world.head}/check-runs")["check_runs"]
    assert (run["name"], run["conclusion"], run["output"]["title"]) == ("docs review", "neutral", "Two remarks")
    assert run["external_id"]


async def test_an_unknown_repository_gets_nothing(github: Caller) -> None:
    """The text says both possibilities."""
    for tool, more in (("add_label", {"number": 1, "label": "x"}), ("open_issue", {"title": "x", "body": "x"})):
        with pytest.raises(ServiceError, match="no such thing, or the login of github/docs-bot may not see it"):
            await (await github.plan(tool, repository="acme/nope", **more)).send()
