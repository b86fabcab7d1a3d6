"""What GitHub's events become: names, labels, related resources, keys."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_routines.gateway.body import BodyError
from prefect_routines.gateway.github import Authorship, authorship, event_of, occurrence

SAMPLES = Path(__file__).parent / "samples"
REPOSITORY = {"id": 1, "full_name": "acme/docs", "owner": {"login": "acme"}}
SHA = "ec26c3e57ca3a959ca5aad62de7213c562f8c821"
ANN = {"login": "ann", "type": "User"}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text())


def told(kind: str, **payload: Any) -> dict[str, str]:
    """The labels of an event in acme/docs without those that all events have."""
    found = occurrence(kind, {"repository": REPOSITORY, "sender": ANN, **payload}).resource
    common = {"event", "repository", "owner", "actor", "actor_type"}
    return {name.removeprefix("github."): text for name, text in found.items() if name.startswith("github.") and name[7:] not in common}


def test_a_pull_request_from_a_fork() -> None:
    """Everything that a trigger may filter on; nothing of title and body."""
    found = occurrence("pull_request", sample("pull_request_from_fork"), "abc")
    assert (found.event, found.key, found.number, found.sha, found.delivery_id) == (
        "github.pull_request.opened",
        "acme/docs#12",
        12,
        SHA,
        "abc",
    )
    assert found.resource == {
        "prefect.resource.id": "github.repository.acme/docs",
        "prefect.resource.name": "acme/docs",
        "github.event": "pull_request",
        "github.action": "opened",
        "github.repository": "acme/docs",
        "github.number": "12",
        "github.sha": SHA,
        "github.owner": "acme",
        "github.actor": "mallory",
        "github.actor_type": "User",
        "github.author": "mallory",
        "github.author_type": "User",
        "github.association": "FIRST_TIME_CONTRIBUTOR",
        "github.opener": "mallory",
        "github.state": "open",
        "github.is_pull_request": "true",
        "github.draft": "true",
        "github.base": "main",
        "github.head": "claude/tidy",
        "github.merged": "false",
        "github.fork": "true",
    }
    assert [(each["prefect.resource.role"], each["prefect.resource.id"]) for each in found.related] == [
        ("actor", "github.user.mallory"),
        ("author", "github.user.mallory"),
        ("label", "github.label.bug"),
        ("label", "github.label.needs docs"),
        ("assignee", "github.user.ann"),
        ("reviewer", "github.user.bob"),
    ]
    assert "Ignore" not in str(found)


def test_a_comments_author_is_not_the_issues() -> None:
    """The association belongs to who wrote the comment; who opened the thread is told apart."""
    found = occurrence("issue_comment", sample("issue_comment_on_pull_request"))
    labels = {name[7:]: text for name, text in found.resource.items()}
    assert (labels["author"], labels["association"], labels["opener"]) == ("ann", "MEMBER", "docs-bot[bot]")
    assert (labels["is_pull_request"], found.key) == ("true", "acme/docs#7")


def test_a_check_belongs_to_the_pull_request_of_its_own_repository() -> None:
    """GitHub lists those of forks with the same commit as well."""
    found = occurrence("check_run", sample("check_run_completed"))
    assert (found.number, found.key) == (7, "acme/docs#7")
    assert found.resource["github.conclusion"] == "failure"
    assert found.resource["github.app"] == "github-actions"
    two = sample("check_run_completed")
    two["check_run"]["pull_requests"][1]["base"]["repo"]["id"] = 1
    assert (occurrence("check_run", two).number, occurrence("check_run", two).key) == (None, None)


def test_a_push_is_known_by_its_ref() -> None:
    """Who is named as the commit's author proves nothing, so he is no label."""
    found = occurrence("push", sample("push"))
    assert (found.event, found.key, found.sha) == ("github.push", "acme/docs@refs/heads/release/2.0", SHA)
    labels = {name[7:]: text for name, text in found.resource.items() if name.startswith("github.")}
    assert labels["ref"] == "refs/heads/release/2.0"
    assert (labels["branch"], labels["base"], labels["created"], labels["actor"]) == ("release/2.0", "main", "true", "bob")
    assert "author" not in labels
    assert "tag" not in labels


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("push", {"ref": "refs/tags/v1", "after": "0" * 40, "deleted": True}, {"ref": "refs/tags/v1", "tag": "v1", "deleted": "true"}),
        ("create", {"ref": "v1", "ref_type": "tag"}, {"ref": "refs/tags/v1", "tag": "v1"}),
        ("delete", {"ref": "old", "ref_type": "branch"}, {"ref": "refs/heads/old", "branch": "old"}),
        (
            "release",
            {
                "action": "published",
                "release": {"tag_name": "v2", "prerelease": True, "draft": False, "target_commitish": "main", "author": ANN},
            },
            {"action": "published", "ref": "refs/tags/v2", "tag": "v2", "base": "main", "prerelease": "true", "draft": "false"}
            | {"author": "ann", "author_type": "User"},
        ),
        ("status", {"sha": SHA, "state": "failure", "context": "ci/build"}, {"sha": SHA, "state": "failure", "name": "ci/build"}),
        (
            "workflow_run",
            {
                "action": "completed",
                "workflow": {"name": "CI"},
                "workflow_run": {
                    "name": "CI",
                    "head_sha": SHA,
                    "head_branch": "main",
                    "status": "completed",
                    "conclusion": "success",
                    "event": "push",
                    "run_number": 99,
                    "head_repository": {"full_name": "mallory/docs"},
                    "pull_requests": [],
                },
            },
            {"action": "completed", "sha": SHA, "head": "main", "status": "completed", "conclusion": "success", "trigger": "push"}
            | {"fork": "true", "name": "CI", "workflow": "CI"},
        ),
        (
            "workflow_job",
            {
                "action": "queued",
                "workflow_job": {"name": "lint", "workflow_name": "CI", "head_branch": "x", "head_sha": SHA, "status": "queued"},
            },
            {"action": "queued", "name": "lint", "workflow": "CI", "head": "x", "sha": SHA, "status": "queued"},
        ),
        ("label", {"action": "created", "label": {"name": "bug"}}, {"action": "created", "label": "bug"}),
        ("milestone", {"milestone": {"number": 3, "title": "2.0", "state": "closed"}}, {"milestone": "2.0", "state": "closed"}),
        ("fork", {"forkee": {"full_name": "mallory/docs"}}, {}),
        ("star", {"action": "created", "starred_at": "2026-01-01"}, {"action": "created"}),
        (
            "deployment_status",
            {"deployment_status": {"state": "success"}, "deployment": {"sha": SHA, "ref": "main", "environment": "prod", "creator": ANN}},
            {"state": "success", "sha": SHA, "ref": "main", "environment": "prod", "author": "ann", "author_type": "User"},
        ),
        ("repository_dispatch", {"action": "deploy done!", "branch": "main"}, {"action": "deploy done!", "branch": "main"}),
        (
            "merge_group",
            {"merge_group": {"head_sha": SHA, "head_ref": "refs/heads/gh-readonly-queue/main/pr-1", "base_ref": "refs/heads/main"}},
            {"sha": SHA, "head": "gh-readonly-queue/main/pr-1", "base": "main"},
        ),
        ("member", {"action": "added", "member": {"login": "bob"}}, {"action": "added", "member": "bob"}),
        (
            "discussion",
            {"discussion": {"number": 4, "state": "open", "user": ANN, "author_association": "OWNER", "category": {"slug": "q-a"}}},
            {
                "number": "4",
                "state": "open",
                "author": "ann",
                "author_type": "User",
                "association": "OWNER",
                "opener": "ann",
                "category": "q-a",
            },
        ),
    ],
)
def test_each_family_of_events_has_its_labels(kind: str, payload: dict[str, Any], expected: dict[str, str]) -> None:
    """Those that GitHub documents for it."""
    assert told(kind, **payload) == expected


@pytest.mark.parametrize("head", [None, {"full_name": "mallory/docs"}])
def test_a_deleted_fork_was_a_fork(head: Any) -> None:
    """Then GitHub writes null; whether a pull request is from outside stays known."""
    payload = sample("pull_request_from_fork")
    payload["pull_request"]["head"]["repo"] = head
    assert occurrence("pull_request", payload).resource["github.fork"] == "true"
    payload["pull_request"]["head"]["repo"] = {"full_name": "acme/docs"}
    assert occurrence("pull_request", payload).resource["github.fork"] == "false"


def test_the_short_form_of_a_pull_request_tells_merged_too() -> None:
    """With reviews comes `merged_at` alone; the state of a review is the review's."""
    payload = sample("pull_request_from_fork")
    payload["pull_request"].pop("merged")
    payload["pull_request"]["merged_at"] = "2026-01-01T00:00:00Z"
    payload["review"] = {"state": "APPROVED", "user": ANN, "author_association": "OWNER"}
    found = occurrence("pull_request_review", payload).resource
    assert (found["github.merged"], found["github.state"], found["github.author"]) == ("true", "approved", "ann")


def test_the_label_that_was_added_is_told() -> None:
    """As a label of the event, and once among the related ones."""
    payload = sample("pull_request_from_fork") | {"action": "labeled", "label": {"name": "bug"}}
    found = occurrence("pull_request", payload)
    assert found.resource["github.label"] == "bug"
    assert [each["github.label"] for each in found.related if each["prefect.resource.role"] == "label"] == ["bug", "needs docs"]


@pytest.mark.parametrize(
    ("payload", "resource"),
    [
        ({"organization": {"login": "acme"}, "sender": ANN}, "github.organization.acme"),
        ({"installation": {"account": {"login": "acme"}}}, "github.organization.acme"),
        ({"zen": "Keep it logically awesome."}, "github"),
        ({"repository": REPOSITORY}, "github.repository.acme/docs"),
    ],
)
def test_events_need_no_repository(payload: dict[str, Any], resource: str) -> None:
    """Those of organisations, and a ping, have a resource all the same."""
    found = occurrence("ping", payload)
    assert (found.event, found.resource["prefect.resource.id"], found.key) == ("github.ping", resource, None)


def test_names_of_strangers_fit_a_label() -> None:
    """Cut, without control characters and lone surrogates; the event's name keeps to plain letters."""
    payload = {"action": "a b/ü\n" + "x" * 5000, "label": {"name": "two\nlines\x1b[2J\ud83d\0"}, "repository": REPOSITORY}
    found = occurrence("repository_dispatch", payload)
    assert found.event.startswith("github.repository_dispatch.a_b___x")
    assert len(found.event) < 130
    assert found.resource["github.label"] == "two lines [2J\ufffd"
    assert len(found.resource["github.action"]) <= 1024


def test_there_is_no_more_than_prefect_takes() -> None:
    """A hundred related resources: people first."""
    payload = sample("pull_request_from_fork")
    payload["pull_request"]["labels"] = [{"name": f"label {number}"} for number in range(500)]
    related = occurrence("pull_request", payload).related
    assert len(related) == 100
    assert related[0]["prefect.resource.role"] == "actor"


@pytest.mark.parametrize("number", [True, 0, -1, 2**60, "7", 7.0, None, [7]])
def test_only_a_number_is_a_number(number: Any) -> None:
    """It stands in policy rules, so nothing else may pass for one."""
    assert occurrence("issues", {"issue": {"number": number}, "repository": REPOSITORY}).number is None


def test_authorship_of_a_comment() -> None:
    """Its own address, not the issue's; a fork's branch is nobody's."""
    assert authorship("issue_comment", sample("issue_comment_on_pull_request")) == Authorship(
        "ann", "User", "", ("https://github.com/acme/docs/pull/7#issuecomment-1",)
    )
    opened = authorship("pull_request", sample("pull_request_from_fork"))
    assert (opened.branch, opened.links) == ("", ("https://github.com/acme/docs/pull/12",))
    payload = sample("pull_request_from_fork")
    payload["pull_request"]["head"]["repo"] = {"full_name": "acme/docs"}
    assert authorship("pull_request", payload).branch == "claude/tidy"
    assert authorship("check_run", sample("check_run_completed")).branch == "claude/guide-1a2b"
    assert authorship("push", sample("push")) == Authorship("bob", "User", "release/2.0", ())


def test_a_comment_written_with_a_review_is_known_by_the_review_too() -> None:
    """GitHub sends an event for each; who wrote the review has its address only."""
    payload = sample("pull_request_from_fork") | {"action": "created"}
    payload["comment"] = {
        "html_url": "https://github.com/acme/docs/pull/12#discussion_r1",
        "pull_request_review_id": 237895671,
        "user": ANN,
    }
    assert authorship("pull_request_review_comment", payload).links == (
        "https://github.com/acme/docs/pull/12#discussion_r1",
        "https://github.com/acme/docs/pull/12#pullrequestreview-237895671",
    )


def test_what_others_do_to_a_pull_request_is_not_its_authors_doing() -> None:
    """Else a person's label on our pull request would count as ours."""
    payload = sample("pull_request_from_fork") | {"action": "labeled", "sender": ANN}
    assert authorship("pull_request", payload).links == ()
    assert authorship("pull_request", payload | {"sender": {"login": "mallory"}}).links == ("https://github.com/acme/docs/pull/12",)


def test_the_event_is_named_in_the_headers() -> None:
    """Both are needed, in GitHub's form."""
    assert event_of({"X-GitHub-Event": "issues", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"})[0] == "issues"
    for headers in ({}, {"X-GitHub-Event": "issues"}, {"X-GitHub-Event": "../x", "X-GitHub-Delivery": "1"}, {"X-GitHub-Delivery": "1"}):
        with pytest.raises(BodyError, match="missing or malformed") as caught:
            event_of(headers)
        assert caught.value.status == 400


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["login", "name", "ref", "repo", "number", "sha"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


@given(st.data())
def test_a_wrong_type_anywhere_is_a_label_less(data: st.DataObject) -> None:
    """Never an exception; and what is there is text that can be sent on."""
    name = data.draw(st.sampled_from(["pull_request_from_fork", "issue_comment_on_pull_request", "check_run_completed", "push"]))
    payload = sample(name)
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(places(payload)))
        value = data.draw(odd)
        if not path:
            payload = value
            continue
        place = payload
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
    kept = copy.deepcopy(payload)
    found = occurrence(data.draw(st.sampled_from(["pull_request", "push", "release", "commit_comment"])), payload)
    authorship("push", payload)
    assert str(payload) == str(kept)
    texts = [*found.resource.values(), *(text for each in found.related for text in each.values()), found.event, found.key or ""]
    assert all(isinstance(text, str) and len(text) <= 1024 for text in texts)
    assert "\n" not in "".join(texts).encode("utf-8").decode()
    assert found.resource["prefect.resource.id"]
