"""Reading issues and pull requests, with what was said about them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prefect_routines.connectors.github.code import patches
from prefect_routines.connectors.github.service import (
    PER_PAGE,
    GitHubToolset,
    Number,
    Page,
    Repository,
    line,
    login_of,
    more,
    names_of,
    part,
    repo,
)
from prefect_routines.errors import ToolError
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import tool

State = Literal["open", "closed", "all"]


class DiscussionReads(GitHubToolset):
    """What Claude may read of issues and pull requests."""

    @tool(idempotent=True, outside=True)
    async def issues(
        self,
        repository: Repository,
        state: State = "open",
        labels: str | None = None,
        assignee: str | None = None,
        creator: str | None = None,
        since: str | None = None,
        sort: Literal["created", "updated", "comments"] = "created",
        page: Page = 1,
    ) -> str:
        """List issues, newest first. Pull requests are left out.

        Args:
            repository: 'owner/name'.
            state: Which ones.
            labels: Only those with all of these labels, separated by commas.
            assignee: Only those assigned to this login; 'none' or '*'.
            creator: Only those opened by this login.
            since: Only those changed after this time, e.g. '2026-03-01T00:00:00Z'.
            sort: What the order goes by.
            page: Page of the list.
        """

        def shown(item: Mapping[str, Any]) -> dict[str, Any] | None:
            return None if "pull_request" in item else {**issue_line(item), "comments": item.get("comments")}

        given = {"state": state, "labels": labels, "assignee": assignee, "creator": creator, "since": since, "sort": sort}
        return await self._listed(repo(repository, "issues"), shown, page, direction="desc", **given)

    @tool(idempotent=True, outside=True)
    async def issue(self, repository: Repository, number: Number, page: Page = 1, offset: int = 0) -> str:
        """Read an issue with its comments, oldest first.

        Args:
            repository: 'owner/name'.
            number: Number of the issue.
            page: Page of the comments.
            offset: Character to start from, when the page was too long for one call.
        """
        where = repo(repository, "issues", str(number))
        found, answer = await asyncio.gather(self._read(where), self._api.get(f"{where}/comments", {"per_page": PER_PAGE, "page": page}))
        told = {**issue_line(found), "state_reason": found.get("state_reason"), "body": found.get("body")}
        lines = [line(told)] if page == 1 else []
        lines += [line(comment_line(item)) for item in answer.json()]
        return window("\n".join([*(lines or ["none on this page"]), *more(answer, page)]), offset)

    @tool(idempotent=True, outside=True)
    async def pull_requests(
        self,
        repository: Repository,
        state: State = "open",
        base: str | None = None,
        head: str | None = None,
        sort: Literal["created", "updated", "popularity", "long-running"] = "created",
        page: Page = 1,
    ) -> str:
        """List pull requests, newest first.

        Args:
            repository: 'owner/name'.
            state: Which ones; merged ones are 'closed'.
            base: Only those into this branch.
            head: Only those from this branch: 'owner:branch'.
            sort: What the order goes by; 'updated' shows what was merged lately.
            page: Page of the list.
        """
        given = {"state": state, "base": base, "head": head, "sort": sort, "direction": "desc"}
        return await self._listed(repo(repository, "pulls"), pull_line, page, **given)

    @tool(idempotent=True, outside=True)
    async def pull_request(self, repository: Repository, number: Number, offset: int = 0) -> str:
        """Read a pull request: its text, checks, reviews, comments on lines, and the diff. The talk below it: the issue tool's comments.

        Args:
            repository: 'owner/name'.
            number: Number of the pull request.
            offset: Character to start from, when the answer was too long for one call.
        """
        where = repo(repository, "pulls", str(number))
        found = await self._read(where)
        reviews, remarks, files, checks = await asyncio.gather(
            self._all(f"{where}/reviews"), self._all(f"{where}/comments"), self._all(f"{where}/files"), self._checks(repository, found)
        )
        head, base = found["head"], found["base"]
        told = {
            **pull_line(found),
            "head_repository": (head.get("repo") or {}).get("full_name") if (head.get("repo") or {}) != base.get("repo") else None,
            "mergeable": found.get("mergeable_state"),
            "merged_by": login_of(found.get("merged_by")),
            "merge_commit_sha": found.get("merge_commit_sha") if found.get("merged") else None,
            "requested_reviewers": [login_of(user) for user in found.get("requested_reviewers", [])],
            "body": found.get("body"),
        }
        lines = [line(told), *_section("checks", *checks), *_section("reviews", [review_line(item) for item in reviews[0]], reviews[1])]
        lines += _section("comments on lines", [remark_line(item) for item in remarks[0]], remarks[1])
        lines += ["[GitHub has more files than are shown]"] if files[1] else []
        return window("\n".join([*lines, patches(files[0])]), offset)

    async def _checks(self, repository: str, pull: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """Checks and statuses of the head; a login may be kept from either of them."""
        where = repo(repository, "commits", part(pull["head"]["sha"]))

        async def read(path: str, under: str) -> tuple[list[Any], bool]:
            try:
                return await self._all(f"{where}/{path}", pages=2, under=under)
            except ToolError as error:
                return [{"name": path, "status": f"cannot be read: {error}"}], False

        runs, statuses = await asyncio.gather(read("check-runs", "check_runs"), read("status", "statuses"))
        lines = [{name: item.get(name) for name in ("name", "status", "conclusion", "details_url")} for item in runs[0]]
        lines += [
            {
                "name": item.get("context") or item["name"],
                "status": item.get("state") or item["status"],
                "details_url": item.get("target_url"),
            }
            for item in statuses[0]
        ]
        return lines, runs[1] or statuses[1]


def _section(title: str, items: Sequence[Mapping[str, Any]], further: bool) -> list[str]:
    return [f"{title}:{'' if items else ' none'}", *map(line, items), *(["[and more]"] if further else [])]


def issue_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """An issue in a list."""
    return {
        "number": item["number"],
        "title": item["title"],
        "state": item["state"],
        "author": login_of(item.get("user")),
        "association": item.get("author_association"),
        "labels": names_of(item.get("labels", [])),
        "assignees": [login_of(user) for user in item.get("assignees") or []],
        "milestone": (item.get("milestone") or {}).get("title"),
        "created_at": item.get("created_at"),
        "updated_at": item.get("updated_at"),
        "url": item.get("html_url"),
    }


def pull_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A pull request in a list."""
    return {
        **issue_line(item),
        "draft": item.get("draft") or None,
        "base": item["base"]["ref"],
        "head": item["head"].get("label") or item["head"]["ref"],
        "head_sha": item["head"]["sha"],
        "merged_at": item.get("merged_at"),
    }


def comment_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A comment below an issue or a pull request."""
    return {
        "comment": item["id"],
        "author": login_of(item.get("user")),
        "association": item.get("author_association"),
        "created_at": item.get("created_at"),
        "body": item.get("body"),
    }


def review_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A review."""
    return {
        "author": login_of(item.get("user")),
        "association": item.get("author_association"),
        "state": item["state"],
        "commit": item.get("commit_id"),
        "submitted_at": item.get("submitted_at"),
        "body": item.get("body"),
    }


def remark_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A comment on a line of the diff."""
    return {**comment_line(item), "path": item.get("path"), "line": item.get("line") or item.get("original_line")}
