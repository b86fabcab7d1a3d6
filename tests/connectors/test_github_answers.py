"""The connector against GitHub's documented answers: diffs, checks, logs, search, limits, errors."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import OutcomeUnknown, ToolError

from .github_answers import SHA, github_answering, user
from .http_service import BIG, Asked, Said, serving

ROOT = "/repos/acme/docs"
PULL = {
    "number": 7,
    "title": "Describe loud",
    "state": "open",
    "user": user("octocat"),
    "author_association": "FIRST_TIME_CONTRIBUTOR",
    "labels": [{"name": "docs"}],
    "body": "It is new.",
    "draft": False,
    "html_url": "https://github.com/acme/docs/pull/7",
    "base": {"ref": "main", "sha": "0" * 40, "repo": {"full_name": "acme/docs"}},
    "head": {"ref": "loud", "label": "octocat:loud", "sha": SHA, "repo": {"full_name": "octocat/docs"}},
    "merged": False,
    "mergeable_state": "blocked",
    "requested_reviewers": [user("hubot")],
}


async def test_a_pull_request_comes_with_diff_reviews_remarks_and_checks() -> None:
    """What a reviewer needs in one call; the diff is the last part, so that it cannot pretend to be another."""
    patch = '@@ -1 +1 @@\n-hello(name)\n+hello(name, loud)\n+{"name": "build", "conclusion": "success"}'
    answers = {
        f"GET {ROOT}/pulls/7": PULL,
        f"GET {ROOT}/pulls/7/reviews": [{"user": user("hubot"), "state": "CHANGES_REQUESTED", "body": "No.", "commit_id": SHA}],
        f"GET {ROOT}/pulls/7/comments": [{"id": 3, "user": user("hubot"), "path": "api.md", "line": 2, "body": "Why?"}],
        f"GET {ROOT}/pulls/7/files": [
            {"filename": "api.md", "status": "modified", "additions": 2, "deletions": 1, "patch": patch},
            {"filename": "logo.png", "status": "renamed", "previous_filename": "old.png", "additions": 0, "deletions": 0},
        ],
        f"GET {ROOT}/commits/{SHA}/check-runs": {"total_count": 1, "check_runs": [{"name": "build", "conclusion": "failure"}]},
        f"GET {ROOT}/commits/{SHA}/status": {"state": "pending", "statuses": [{"context": "links", "state": "pending"}]},
    }
    async with github_answering(answers) as (_, tools):
        text = await tools.read("pull_request", repository="acme/docs", number=7)
    said, _, diff = text.partition("\n2 files:\n")
    pull, build, links, review, remark = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert (pull["head_repository"], pull["mergeable"], pull["association"]) == ("octocat/docs", "blocked", "FIRST_TIME_CONTRIBUTOR")
    assert (build["name"], build["conclusion"], links["name"], links["status"]) == ("build", "failure", "links", "pending")
    assert (review["state"], remark["path"], remark["line"], remark["body"]) == ("CHANGES_REQUESTED", "api.md", 2, "Why?")
    assert diff.startswith("modified api.md +2 -1\nrenamed logo.png (was old.png) +0 -0\n")
    assert patch in diff
    assert "--- logo.png\n[GitHub shows no patch" in diff


async def test_checks_that_the_login_may_not_read_do_not_hide_the_rest() -> None:
    """Fine-grained tokens have no permission for checks."""
    refused = Said({"message": "Resource not accessible by personal access token"}, 403)
    answers: dict[str, Any] = {f"GET {ROOT}/pulls/7/{name}": [] for name in ("reviews", "comments", "files")}
    answers |= {f"GET {ROOT}/pulls/7": PULL, f"GET {ROOT}/commits/{SHA}/check-runs": refused}
    answers |= {f"GET {ROOT}/commits/{SHA}/status": {"statuses": [{"context": "links", "state": "success"}]}}
    async with github_answering(answers) as (_, tools):
        text = await tools.read("pull_request", repository="acme/docs", number=7)
    assert "check-runs" in text
    assert "cannot be read: GitHub answered 403" in text
    assert '"links"' in text


async def test_issues_are_listed_without_pull_requests() -> None:
    """GitHub lists both together."""
    one = {"number": 1, "title": "A gap", "state": "open", "user": None, "labels": ["docs"]}
    async with github_answering({f"GET {ROOT}/issues": [one, {**one, "number": 2, "pull_request": {}}]}) as (service, tools):
        text = await tools.read("issues", repository="acme/docs", labels="docs", assignee="none")
    assert [json.loads(line)["number"] for line in text.splitlines()] == [1]
    asked = service.asked[0].query
    assert (asked["labels"], asked["assignee"], asked["direction"]) == ("docs", "none", "desc")


async def test_code_is_found_with_the_lines_around_it() -> None:
    """In one repository, or wherever the login may look."""
    item = {"path": "api.md", "repository": {"full_name": "acme/docs"}, "text_matches": [{"fragment": "hello(name, loud)"}]}
    async with github_answering({"GET /search/code": {"total_count": 31, "incomplete_results": True, "items": [item]}}) as (service, tools):
        text = await tools.read("search_code", query="loud", repository="acme/docs")
        await tools.read("search_code", query="loud language:python")
    assert text.splitlines()[0] == "31 found, not all of them searched"
    assert json.loads(text.splitlines()[1])["lines"] == ["hello(name, loud)"]
    assert [asked.query["q"] for asked in service.asked] == ["loud repo:acme/docs", "loud language:python"]
    assert "text-match" in service.asked[0].headers["accept"]


async def test_a_file_of_more_than_a_megabyte_is_read_raw() -> None:
    """The usual answer has no content then. A file of 50 MB is not read."""
    sizes = iter([2_000_000, BIG])

    def answer(asked: Asked) -> Said:
        if "raw" in asked.headers["accept"]:
            return Said(b"a" * next(sizes))
        return Said({"type": "file", "encoding": "none", "content": "", "size": 2_000_000})

    async with github_answering({f"GET {ROOT}/contents/big.txt": answer}) as (_, tools):
        text = await tools.read("file", repository="acme/docs", path="big.txt", offset=1_999_000)
        assert text == "a" * 1000
        with pytest.raises(ToolError, match=r"larger than 10 MB and was not read; ask for less"):
            await tools.read("file", repository="acme/docs", path="big.txt")


async def test_a_log_is_read_from_its_end() -> None:
    """It lies at another host, which does not get the login."""
    log = "".join(f"2026-01-01T00:00:00Z line {number}\n" for number in range(3000))
    jobs = [
        {"id": 11, "name": "lint", "status": "completed", "conclusion": "success", "steps": []},
        {"id": 12, "name": "test", "conclusion": "failure", "steps": [{"name": "pytest", "conclusion": "failure"}]},
    ]
    with serving(lambda asked: Said(log.encode())) as store:
        moved = Said(status=302, headers={"Location": f"{store.url.replace('127.0.0.1', 'localhost')}/log?sig=x"})
        answers = {f"GET {ROOT}/actions/runs/5/jobs": {"jobs": jobs}, f"GET {ROOT}/actions/jobs/12/logs": moved}
        async with github_answering(answers) as (_, tools):
            text = await tools.read("workflow_logs", repository="acme/docs", run=5)
            head, _, tail = text.partition("log of job 12:\n")
            assert json.loads(head.splitlines()[1])["failed_steps"] == ["pytest"]
            mark, _, end = tail.partition("\n")
            assert end.endswith("line 2999\n")
            offset = int(mark.rpartition("offset=")[2].removesuffix("]"))
            before = (await tools.read("workflow_logs", repository="acme/docs", run=5, offset=offset)).partition("log of job 12:\n")[2]
            earlier = before.partition("\n")[2] if before.startswith("[") else before
            assert (earlier + end) == log[-len(earlier + end) :]
            assert len(earlier + end) == min(len(log), 80_000)
            with pytest.raises(ToolError, match="run 5 has no job 99; it has 11, 12"):
                await tools.read("workflow_logs", repository="acme/docs", run=5, job=99)
        assert store.asked
        assert all("authorization" not in asked.headers for asked in store.asked)


async def test_workflow_runs_are_listed() -> None:
    """Of one workflow or of all."""
    run = {"id": 5, "name": "deploy", "status": "completed", "conclusion": "failure", "head_sha": SHA, "run_attempt": 2, "actor": user("x")}
    answers = {f"GET {ROOT}/actions/{where}runs": {"total_count": 1, "workflow_runs": [run]} for where in ("", "workflows/deploy.yml/")}
    async with github_answering(answers) as (service, tools):
        one = await tools.read("workflow_runs", repository="acme/docs", workflow="deploy.yml", status="failure", head_sha=SHA)
        assert one == await tools.read("workflow_runs", repository="acme/docs")
    assert (json.loads(one)["id"], json.loads(one)["run_attempt"]) == (5, 2)
    assert (service.asked[0].query["status"], service.asked[0].query["head_sha"]) == ("failure", SHA)


async def test_a_review_comments_on_lines() -> None:
    """Each comment is made harmless like the review's own text."""
    made: list[Any] = []

    def create(asked: Asked) -> Said:
        made.append({**asked.json, "html_url": "https://github.com/acme/docs/pull/7#review"})
        return Said(made[-1])

    answers = {f"POST {ROOT}/pulls/7/reviews": create, f"GET {ROOT}/pulls/7/reviews": lambda asked: Said(made)}
    async with github_answering(answers) as (_, tools):
        remarks = [{"path": "api.md", "line": 2, "body": "@everyone \u202elook"}]
        await tools.write("review", repository="acme/docs", number=7, event="COMMENT", body="See.", comments=remarks)
    (review,) = made
    assert [(item["path"], item["line"], item["side"]) for item in review["comments"]] == [("api.md", 2, "RIGHT")]
    assert "\u202e" not in review["comments"][0]["body"]
    assert "`@everyone`" in review["comments"][0]["body"]


async def test_a_status_is_set() -> None:
    """The newest one of its context says whether it was."""
    statuses: list[Any] = [{"context": "links", "state": "success", "description": "old"}]

    def create(asked: Asked) -> Said:
        statuses.insert(0, asked.json)
        return Said(asked.json, 201)

    answers = {f"POST {ROOT}/statuses/{SHA}": create, f"GET {ROOT}/commits/{SHA}/statuses": lambda asked: Said(statuses)}
    async with github_answering(answers) as (_, tools):
        given = {"repository": "acme/docs", "sha": SHA, "context": "docs"}
        await tools.write("set_status", **given, state="failure", description="Two\nlinks are dead: " + "x" * 200)
        with pytest.raises(ToolError, match="sha"):
            await tools.plan("set_status", **{**given, "sha": "main"}, state="failure", description="x")
    assert statuses[0]["description"].startswith("Two links are dead")
    assert len(statuses[0]["description"]) <= 140


WORKFLOW = f"{ROOT}/actions/workflows/deploy.yml"


async def test_a_workflow_is_started() -> None:
    """Nothing says afterwards which request has started a run: there is nothing to find it by."""
    answers = {f"GET {WORKFLOW}": {"path": ".github/workflows/deploy.yml"}, f"POST {WORKFLOW}/dispatches": Said(status=204)}
    async with github_answering(answers) as (service, tools):
        plan = await tools.plan("dispatch_workflow", repository="acme/docs", workflow="deploy.yml", ref="main", inputs={"env": "x"})
        assert plan.find is None
        assert str(await plan.send()).startswith("Started deploy.yml on main")
        assert service.asked[-1].json == {"ref": "main", "inputs": {"env": "x"}}


@pytest.mark.parametrize("workflow", ["../x", "4711", "deploy", "deploy.yml/../x", "deploy.yml\n"])
async def test_a_workflow_goes_by_its_file_name_only(workflow: str) -> None:
    """A rule that denies 'deploy.yml' would not know it by its number."""
    async with github_answering({}) as (_, tools):
        with pytest.raises(ToolError, match="workflow: String should match pattern"):
            await tools.plan("dispatch_workflow", repository="acme/docs", workflow=workflow, ref="main")


async def test_a_second_spelling_of_a_workflow_is_refused() -> None:
    """Should GitHub take another letter case, rules do not."""
    answers = {f"GET {ROOT}/actions/workflows/Deploy.yml": {"path": ".github/workflows/deploy.yml"}}
    async with github_answering(answers) as (service, tools):
        plan = await tools.plan("dispatch_workflow", repository="acme/docs", workflow="Deploy.yml", ref="main")
        with pytest.raises(ToolError, match=r"the workflow Deploy\.yml is called deploy\.yml at GitHub; nothing was sent"):
            await plan.send()
    assert {asked.method for asked in service.asked} == {"GET"}


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", "heads/main", "refs/heads/heads/main"])
async def test_a_branch_has_one_spelling(ref: str) -> None:
    """The bare name: that is what rules look at, and what is sent."""
    async with github_answering({}) as (_, tools):
        plan = await tools.plan("dispatch_workflow", repository="acme/docs", workflow="deploy.yml", ref=ref)
        assert plan.request["body"]["ref"] == "main"
        plan = await tools.plan("open_pull_request", repository="acme/docs", head="loud", base=ref, title="x", body="y")
        assert plan.request["body"]["base"] == "main"


@pytest.mark.parametrize(
    "ref", ["refs/tags/v1", "tags/v1", "refs/\u200bheads/main", " main", "main ", "/main", "refs/heads/", "a..b", "ma\u200bin"]
)
async def test_what_names_a_branch_in_a_hidden_way_is_refused(ref: str) -> None:
    """What is taken away after a look at it would make another name of it."""
    async with github_answering({}) as (_, tools):
        with pytest.raises(ToolError, match=r"ref: Value error, (give the name of a branch or tag alone|leave out spaces)"):
            await tools.plan("dispatch_workflow", repository="acme/docs", workflow="deploy.yml", ref=ref)


@pytest.mark.parametrize("tool", ["add_label", "remove_label"])
async def test_a_second_spelling_of_a_label_is_refused(tool: str) -> None:
    """GitHub takes labels in any letter case, rules do not; the right one is named."""
    async with github_answering({f"GET {ROOT}/labels/Deploy": {"name": "deploy"}}) as (service, tools):
        plan = await tools.plan(tool, repository="acme/docs", number=1, label="Deploy")
        with pytest.raises(ToolError, match="the label Deploy is called deploy in acme/docs; nothing was sent: use that name"):
            await plan.send()
        for label in (" deploy", "deploy\n", "dep\u200bloy"):
            with pytest.raises(ToolError, match="label: Value error, leave out spaces around it"):
                await tools.plan(tool, repository="acme/docs", number=1, label=label)
    assert {asked.method for asked in service.asked} == {"GET"}


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"{}", b"[]", b"", b"7"])
async def test_an_answer_that_cannot_be_read_is_no_refusal(body: bytes) -> None:
    """GitHub has taken the comment, whatever stands between has made of its answer."""
    async with github_answering({f"POST {ROOT}/issues/1/comments": Said(body, 201)}) as (_, tools):
        plan = await tools.plan("comment", repository="acme/docs", number=1, body="x")
        with pytest.raises(OutcomeUnknown, match="; whether it was carried out is unknown"):
            await plan.send()


async def test_nothing_is_sent_after_an_answer_that_cannot_be_read() -> None:
    """What was asked before a write counts as refused."""
    async with github_answering({"GET /repos/acme/docs": {}}) as (service, tools):
        plan = await tools.plan("comment", repository="acme/docs", number=1, body="x")
        with pytest.raises(ServiceError, match="lacks something; nothing was sent"):
            await plan.send()
    assert {asked.method for asked in service.asked} == {"GET"}


async def test_a_run_is_started_again_once_per_attempt() -> None:
    """An attempt that is there already is not made twice, whoever asked for it."""
    run = {"id": 5, "run_attempt": 1}

    def again(asked: Asked) -> Said:
        run["run_attempt"] += 1
        return Said({}, 201)

    answers = {f"GET {ROOT}/actions/runs/5": lambda asked: Said(run), f"POST {ROOT}/actions/runs/5/rerun": again}
    async with github_answering(answers) as (_, tools):
        await tools.write("rerun_workflow", repository="acme/docs", run=5)
        with pytest.raises(ToolError, match="is at attempt 2 and not 1"):
            await (await tools.plan("rerun_workflow", repository="acme/docs", run=5)).send()
        await tools.write("rerun_workflow", repository="acme/docs", run=5, attempt=2)
    assert run["run_attempt"] == 3


@pytest.mark.parametrize("name", ["Acme/docs", "acme/old-docs"])
async def test_a_second_name_of_a_repository_is_refused_for_writes(name: str) -> None:
    """GitHub takes other letter case and former names, rules do not: a denied repository must not be reached by another name."""
    moved = Said(status=301, headers={"Location": ROOT})
    answers = {"GET /repos/acme/old-docs": moved, "GET /repos/Acme/docs": {"full_name": "acme/docs"}}
    async with github_answering(answers) as (service, tools):
        plan = await tools.plan("comment", repository=name, number=1, body="x")
        with pytest.raises(ServiceError, match=f"{name} is called acme/docs at GitHub; nothing was sent"):
            await plan.send()
    assert {asked.method for asked in service.asked} == {"GET"}


async def test_a_lost_answer_is_looked_up() -> None:
    """A gateway's error says nothing of what became of the request."""
    comments: list[Any] = []

    def create(asked: Asked) -> Said:
        comments.append({**asked.json, "html_url": "https://github.com/acme/docs/issues/1#issuecomment-1"})
        return Said({"message": "Server Error"}, 502)

    answers = {f"POST {ROOT}/issues/1/comments": create, f"GET {ROOT}/issues/1/comments": lambda asked: Said(comments)}
    async with github_answering(answers) as (_, tools):
        plan = await tools.plan("comment", repository="acme/docs", number=1, body="x")
        with pytest.raises(OutcomeUnknown):
            await plan.send()
        assert plan.find is not None
        assert str(await plan.find()).startswith("Commented: https")
    assert len(comments) == 1


async def test_an_expired_token_names_the_block() -> None:
    """And what to do."""
    async with github_answering({"GET /repos/acme/docs": Said({"message": "Bad credentials"}, 401)}) as (_, tools):
        with pytest.raises(ServiceError, match=r"401: Bad credentials\. The login of github/docs-bot is wrong or has expired") as caught:
            await tools.read("repository", repository="acme/docs")
    assert "github_pat_x" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "needed"), [("X-Accepted-GitHub-Permissions", "issues=write"), ("X-Accepted-OAuth-Scopes", "public_repo, repo")]
)
async def test_a_missing_permission_is_named(header: str, needed: str) -> None:
    """GitHub tells in a header which one it is."""
    refused = Said({"message": "Resource not accessible by personal access token"}, 403, {header: needed})
    async with github_answering({f"POST {ROOT}/issues": refused}) as (_, tools):
        plan = await tools.plan("open_issue", repository="acme/docs", title="x", body="y")
        with pytest.raises(ServiceError, match=f"a scope or permission is missing.*{needed}"):
            await plan.send()


async def test_a_field_that_github_does_not_take_is_named() -> None:
    """The message alone would only be 'Validation Failed'."""
    errors = [
        {"resource": "PullRequest", "field": "head", "code": "invalid"},
        {"resource": "PullRequest", "code": "custom", "message": "A pull request already exists for acme:loud."},
    ]
    refused = Said({"message": "Validation Failed", "errors": errors}, 422)
    async with github_answering({f"POST {ROOT}/pulls": refused}) as (_, tools):
        plan = await tools.plan("open_pull_request", repository="acme/docs", head="loud", base="main", title="x", body="y")
        with pytest.raises(ServiceError, match="Validation Failed: PullRequest head invalid; A pull request already exists"):
            await plan.send()


async def test_a_used_up_rate_limit_says_until_when() -> None:
    """An hour is not waited for."""
    until = int(time.time()) + 3600
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(until)}
    limited = Said({"message": "API rate limit exceeded for user ID 1."}, 403, headers)
    async with github_answering({"GET /search/code": limited}) as (service, tools):
        with pytest.raises(ServiceError, match=r"limits the rate of requests until \d\d:\d\d:\d\d UTC"):
            await tools.read("search_code", query="x")
    assert len(service.asked) == 1


async def test_a_secondary_rate_limit_is_waited_for() -> None:
    """Then the write is sent, once."""
    made: list[Any] = []
    said = iter([Said({"message": "You have exceeded a secondary rate limit."}, 403, {"Retry-After": "1"})])

    def create(asked: Asked) -> Said:
        if limited := next(said, None):
            return limited
        made.append(asked.json)
        return Said({"html_url": "https://github.com/acme/docs/issues/1#issuecomment-1"}, 201)

    async with github_answering({f"POST {ROOT}/issues/1/comments": create}) as (_, tools):
        plan = await tools.plan("comment", repository="acme/docs", number=1, body="x")
        assert str(await plan.send()).startswith("Commented")
    assert len(made) == 1
