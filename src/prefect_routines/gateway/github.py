"""GitHub's webhooks: any event and action becomes an occurrence, with labels that triggers filter on.

Payloads: https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_routines.gateway.body import BodyError
from prefect_routines.gateway.occurrence import Occurrence, commit, distinct, event_name, label, labels
from prefect_routines.gateway.signatures import Headers, find_header

_KIND = re.compile(r"[a-z_]{1,64}\Z")
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
_LARGEST_NUMBER = 2**31
# What carries a number of the one sequence that a repository has for them. Milestones, runs and alerts count for themselves.
_THREADS = ("pull_request", "issue", "discussion")
# What an event may be about, the most particular first: a comment is on an issue, a review of a pull request.
_THINGS = ("comment", "review", "release", "pull_request", "issue", "discussion")
_MAKES = {"opened", "created", "submitted", "published", "released", "prereleased"}
_CHECKS = ("check_run", "check_suite", "workflow_run", "workflow_job")


@dataclass(frozen=True)
class Authorship:
    """Who and what caused an event, for telling our own doings from those of others.

    Args:
        sender: Login of who caused it.
        sender_type: 'User', 'Bot' or 'Organization'.
        branch: Branch of this repository that it is about; '' if that is a fork's, where anybody chooses the names.
        links: Address of the comment, review, pull request ... that the event tells of, if the sender wrote that. Somebody else's label on
            a pull request is not the pull request's author's doing, so then there is none.
    """

    sender: str = ""
    sender_type: str = ""
    branch: str = ""
    links: tuple[str, ...] = ()


def event_of(headers: Headers) -> tuple[str, str]:
    """Name of the event and id of the delivery, from GitHub's headers.

    Raises:
        BodyError: 400 if one of them is missing or malformed.
    """
    headers = headers if isinstance(headers, Mapping) else list(headers)
    kind, delivery_id = find_header(headers, "X-GitHub-Event") or "", find_header(headers, "X-GitHub-Delivery") or ""
    if not _KIND.match(kind):
        raise BodyError(400, "the header X-GitHub-Event is missing or malformed")
    if not _ID.match(delivery_id):
        raise BodyError(400, "the header X-GitHub-Delivery is missing or malformed")
    return kind, delivery_id


def occurrence(kind: str, payload: Any, delivery_id: str = "") -> Occurrence:
    """What a payload of GitHub's says has happened. Whatever is missing, or not of its type, is a label less; nothing is an error.

    Args:
        kind: The event, from the header X-GitHub-Event.
        payload: The parsed payload.
        delivery_id: From the header X-GitHub-Delivery.

    Example:
        ```python
        occurrence("issues", {"action": "opened", "issue": {"number": 7}, "repository": {"full_name": "acme/docs"}}).key  # 'acme/docs#7'
        ```
    """
    action, repository = label(_at(payload, "action")), label(_at(payload, "repository", "full_name"))
    number, sha = _number(payload), _sha(payload)
    text = {
        **_who(payload),
        **_thing(payload),
        **_pull_request(payload),
        **_refs(kind, payload),
        **_check(payload),
    }
    resource = labels(
        {
            "prefect.resource.id": _resource(payload, repository),
            "prefect.resource.name": repository,
            "github.event": kind,
            "github.action": action,
            "github.repository": repository,
            "github.number": number,
            "github.sha": sha,
            **{f"github.{name}": value for name, value in text.items()},
        }
    )
    return Occurrence(
        source="github",
        delivery_id=delivery_id,
        kind=kind,
        action=action,
        event=event_name("github", kind, action),
        resource=resource,
        related=_related(payload),
        repository=repository,
        number=number,
        sha=sha,
        key=_key(kind, payload, repository, number),
    )


def authorship(kind: str, payload: Any) -> Authorship:
    """Who and what caused an event."""
    sender, thing = label(_at(payload, "sender", "login")), _first(payload, _THINGS)
    author = label(_at(thing, "user", "login")) or label(_at(thing, "author", "login"))
    links = [label(_at(thing, "html_url"))]
    if review := _positive(_at(payload, "comment", "pull_request_review_id"), 2**63):  # written with it, and known by its address
        links.append(label(f"{label(_at(payload, 'pull_request', 'html_url'))}#pullrequestreview-{review}"))
    # a comment's event brings its issue along; only of the comment itself does `created` tell
    made = label(_at(payload, "action")) in _MAKES or kind == "commit_comment"
    wrote = made or (author != "" and author == sender)
    branches = _refs(kind, payload)
    pull = _at(payload, "pull_request")
    foreign = (_from_fork(pull) if isinstance(pull, dict) else _run_from_fork(payload)) is True
    branch = branches.get("head") or branches.get("branch") or label(_at(payload, "branches", 0, "name"))
    return Authorship(
        sender=sender,
        sender_type=label(_at(payload, "sender", "type")),
        branch="" if foreign else label(_at(pull, "head", "ref")) or branch,
        links=tuple(link for link in links if wrote and link.startswith(("https://", "http://"))),
    )


def _at(value: Any, *path: str | int) -> Any:
    """The value at a path, or None if anything on the way is missing or something else."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and len(value) > step:
            value = value[step]
        else:
            return None
    return value


def _first(payload: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return next((found for name in names if isinstance(found := _at(payload, name), dict)), {})


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _resource(payload: Any, repository: str) -> str:
    if repository:
        return f"github.repository.{repository}"
    owner = _owner(payload)
    return f"github.organization.{owner}" if owner else "github"


def _owner(payload: Any) -> str:
    ways = (("repository", "owner", "login"), ("organization", "login"), ("installation", "account", "login"), ("enterprise", "slug"))
    return next((text for way in ways if (text := label(_at(payload, *way)))), "")


def _who(payload: Any) -> dict[str, Any]:
    """Sender, and author of the thing itself: of the comment, not of the issue that it is on. The association is that author's."""
    thing = _first(payload, _THINGS)
    thread = _first(payload, _THREADS)
    author = next((each for name in ("user", "author") if isinstance(each := _at(thing, name), dict)), None) or _at(
        payload, "deployment", "creator"
    )
    return {
        "owner": _owner(payload),
        "actor": _at(payload, "sender", "login"),
        "actor_type": _at(payload, "sender", "type"),
        "author": _at(author, "login"),
        "author_type": _at(author, "type"),
        "association": _at(thing, "author_association"),
        "opener": _at(thread, "user", "login"),
        "app": next((slug for name in (*_CHECKS[:2], *_THINGS) if (slug := _app(_at(payload, name)))), None),
    }


def _app(thing: Any) -> str:
    return label(_at(thing, "app", "slug")) or label(_at(thing, "performed_via_github_app", "slug"))


def _thing(payload: Any) -> dict[str, Any]:
    """State of what the event is about, and what has changed at it."""
    release, dispatched = _at(payload, "release"), _at(payload, "deployment_status")
    stated = ("review", "deployment_status", "pull_request", "issue", "discussion", "milestone", "alert")
    state = _at(_first(payload, stated), "state") or _at(payload, "state")
    on_pull_request = None
    if isinstance(_at(payload, "issue"), dict):
        on_pull_request = isinstance(_at(payload, "issue", "pull_request"), dict)
    return {
        "state": state.lower() if isinstance(state, str) else None,
        "is_pull_request": True if isinstance(_at(payload, "pull_request"), dict) else on_pull_request,
        "label": _at(payload, "label", "name"),
        "assignee": _at(payload, "assignee", "login"),
        "reviewer": _at(payload, "requested_reviewer", "login") or _at(payload, "requested_team", "slug"),
        "milestone": _at(payload, "milestone", "title") or _at(_first(payload, _THREADS), "milestone", "title"),
        "category": _at(payload, "discussion", "category", "slug"),
        "prerelease": _flag(_at(release, "prerelease")),
        "draft": _flag(_at(release, "draft")),
        "environment": _at(payload, "deployment", "environment") or _at(dispatched, "environment"),
        "member": _at(payload, "member", "login") or _at(payload, "membership", "user", "login"),
        "team": _at(payload, "team", "slug"),
        "forced": _flag(_at(payload, "forced")),
        "created": _flag(_at(payload, "created")),
        "deleted": _flag(_at(payload, "deleted")),
    }


def _pull_request(payload: Any) -> dict[str, Any]:
    pull = _at(payload, "pull_request")
    if not isinstance(pull, dict):
        return {"fork": _run_from_fork(payload)}
    merged = _flag(_at(pull, "merged"))
    if merged is None and "merged_at" in pull:  # the short form that comes with reviews has no `merged`
        merged = isinstance(pull["merged_at"], str)
    return {
        "base": _at(pull, "base", "ref"),
        "head": _at(pull, "head", "ref"),
        "draft": _flag(_at(pull, "draft")),
        "merged": merged,
        "fork": _from_fork(pull),
    }


def _from_fork(pull: Any) -> bool | None:
    """Whether its branch is in another repository. One that has been deleted (null) was a fork: the base repository is there."""
    base = label(_at(pull, "base", "repo", "full_name"))
    head = _at(pull, "head")
    if not base or not isinstance(head, dict) or "repo" not in head:
        return None
    return label(_at(head, "repo", "full_name")) != base


def _run_from_fork(payload: Any) -> bool | None:
    head, here = label(_at(payload, "workflow_run", "head_repository", "full_name")), label(_at(payload, "repository", "full_name"))
    return head != here if head and here else None


def _refs(kind: str, payload: Any) -> dict[str, str]:
    """`ref` in full (refs/heads/main), and its name as `branch` or `tag`; `head` and `base` are names of branches."""
    found = {}
    ref, ref_type = label(_at(payload, "ref")), label(_at(payload, "ref_type"))
    if ref and ref_type in ("branch", "tag"):  # `create` and `delete` tell the bare name
        ref = f"refs/{'heads' if ref_type == 'branch' else 'tags'}/{ref}"
    if kind == "release" and (tag := label(_at(payload, "release", "tag_name"))):
        ref = f"refs/tags/{tag}"
        target = label(_at(payload, "release", "target_commitish"))
        found["base"] = "" if commit(target) else target
    found["ref"] = ref or label(_at(payload, "deployment", "ref"))
    found["branch"] = ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else label(_at(payload, "branch"))
    found["tag"] = ref.removeprefix("refs/tags/") if ref.startswith("refs/tags/") else ""
    group = _at(payload, "merge_group")
    if base := label(_at(payload, "base_ref")) or label(_at(group, "base_ref")):
        found["base"] = base.removeprefix("refs/heads/")
    heads = [_at(group, "head_ref"), _at(payload, "check_run", "check_suite", "head_branch")]
    heads += [_at(payload, name, "head_branch") for name in _CHECKS]
    found["head"] = next((text for head in heads if (text := label(head))), "").removeprefix("refs/heads/")
    return {name: text for name, text in found.items() if text}


def _check(payload: Any) -> dict[str, Any]:
    check = _first(payload, _CHECKS)
    return {
        "status": _at(check, "status"),
        "conclusion": _at(check, "conclusion"),
        "name": _at(check, "name") or _at(payload, "context"),
        "workflow": _at(payload, "workflow", "name") or _at(check, "workflow_name") or label(_at(payload, "workflow")),
        "trigger": _at(payload, "workflow_run", "event"),
    }


def _pull_requests_here(payload: Any) -> set[int]:
    """Numbers of the pull requests that a check belongs to. GitHub also lists those of other repositories with the same commit."""
    here = _at(payload, "repository", "id")
    lists = [_at(payload, name, "pull_requests") for name in _CHECKS] + [_at(payload, "check_run", "check_suite", "pull_requests")]
    pulls = next((found for each in lists if (found := _items(each))), [])
    return {
        number
        for pull in pulls
        if here is None or _at(pull, "base", "repo", "id") in (here, None)
        if (number := _positive(_at(pull, "number"))) is not None
    }


def _positive(value: Any, limit: int = _LARGEST_NUMBER) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < limit else None


def _number(payload: Any) -> int | None:
    number = _positive(_at(_first(payload, _THREADS), "number"))
    pulls = _pull_requests_here(payload)
    return number if number is not None else pulls.pop() if len(pulls) == 1 else None


def _sha(payload: Any) -> str:
    ways: list[tuple[str, ...]] = [("pull_request", "head", "sha"), *((name, "head_sha") for name in _CHECKS), ("merge_group", "head_sha")]
    ways += [("deployment", "sha"), ("comment", "commit_id"), ("after",), ("sha",), ("head_commit", "id")]
    return next((sha for way in ways if (sha := commit(_at(payload, *way)))), "")


def _key(kind: str, payload: Any, repository: str, number: int | None) -> str | None:
    if not repository:
        return None
    if number is not None:
        return label(f"{repository}#{number}")
    ref = label(_at(payload, "ref")) if kind == "push" else ""
    return label(f"{repository}@{ref}") if ref else None


def _related(payload: Any) -> list[dict[str, str]]:
    thing, thread = _first(payload, _THINGS), _first(payload, _THREADS)
    author = label(_at(thing, "user", "login")) or label(_at(thing, "author", "login"))
    found = [_user("actor", _at(payload, "sender", "login")), _user("author", author)]
    named = [label(_at(each, "name")) for each in [_at(payload, "label"), *_items(_at(thread, "labels"))]]
    found += [
        {"prefect.resource.id": label(f"github.label.{name}"), "prefect.resource.role": "label", "github.label": name}
        for name in named
        if name
    ]
    found += [_user("assignee", _at(each, "login")) for each in _items(_at(thread, "assignees"))]
    found += [_user("reviewer", _at(each, "login")) for each in _items(_at(thread, "requested_reviewers"))]
    return distinct(each for each in found if each)


def _user(role: str, login: Any) -> dict[str, str]:
    text = label(login)
    return {"prefect.resource.id": label(f"github.user.{text}"), "prefect.resource.role": role, "github.login": text} if text else {}
