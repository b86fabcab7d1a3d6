"""Reading repositories: what they are, commits, differences, files, search."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from prefect_routines.connectors.github.service import (
    PER_PAGE,
    GitHubToolset,
    Page,
    Repository,
    file_path,
    line,
    login_of,
    more,
    ref,
    repo,
)
from prefect_routines.errors import ToolError
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import tool

REPOSITORY = ("full_name", "description", "html_url", "default_branch", "visibility", "private", "fork", "archived", "language", "topics")
RAW = {"Accept": "application/vnd.github.raw+json"}
FRAGMENTS = {"Accept": "application/vnd.github.text-match+json"}


class CodeReads(GitHubToolset):
    """What Claude may read of code."""

    @tool(idempotent=True, outside=True)
    async def repository(self, repository: Repository) -> str:
        """Describe a repository: default branch, visibility, what the login may do there.

        Args:
            repository: 'owner/name'.
        """
        found = await self._read(repo(repository))
        values = {name: found.get(name) for name in (*REPOSITORY, "open_issues_count", "pushed_at", "permissions")}
        return line({**values, "license": (found.get("license") or {}).get("spdx_id")})

    @tool(idempotent=True, outside=True)
    async def compare(self, repository: Repository, base: str, head: str, offset: int = 0) -> str:
        """Compare two refs: the commits that `head` has and `base` has not, and the files they change, with patches.

        Args:
            repository: 'owner/name'.
            base: Branch, tag or commit.
            head: Branch, tag or commit; 'owner:branch' for a fork.
            offset: Character to start from, when the answer was too long for one call.
        """
        path = repo(repository, "compare", f"{ref(base)}...{ref(head)}")
        answer = await self._api.get(path, {"per_page": 100})
        found = answer.json()
        commits, page = list(found["commits"]), 1
        while (more(answer, page)) and page < 5:
            page += 1
            answer = await self._api.get(path, {"per_page": 100, "page": page})
            commits += answer.json()["commits"]
        told = line({name: found.get(name) for name in ("status", "ahead_by", "behind_by", "total_commits", "html_url")})
        left = found.get("total_commits", 0) - len(commits)
        rest = [f"[{left} more commits: list them with the commits tool, sha={head}]"] if left > 0 else []
        return window(
            "\n".join([told, "commits:", *(line(commit_line(item)) for item in commits), *rest, patches(found.get("files", []))]), offset
        )

    @tool(idempotent=True, outside=True)
    async def commits(
        self,
        repository: Repository,
        sha: str | None = None,
        path: str | None = None,
        author: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page: Page = 1,
    ) -> str:
        """List commits, newest first.

        Args:
            repository: 'owner/name'.
            sha: Branch, tag or commit to start from. Default: the default branch.
            path: Only those that touch this file or directory.
            author: Login or e-mail address.
            since: Only those after this time, e.g. '2026-03-01T00:00:00Z'.
            until: Only those before this time.
            page: Page of the list.
        """
        given = {"sha": sha, "path": path, "author": author, "since": since, "until": until}
        return await self._listed(repo(repository, "commits"), commit_line, page, **given)

    @tool(idempotent=True, outside=True)
    async def commit(self, repository: Repository, sha: str, offset: int = 0) -> str:
        """Show one commit: its message, author, and the files it changes, with patches.

        Args:
            repository: 'owner/name'.
            sha: Commit, branch or tag.
            offset: Character to start from, when the answer was too long for one call.
        """
        found = await self._read(repo(repository, "commits", ref(sha)))
        told = {**commit_line(found), "message": found["commit"]["message"], "parents": [parent["sha"] for parent in found["parents"]]}
        return window(f"{line(told)}\n{patches(found.get('files', []))}", offset)

    @tool(idempotent=True, outside=True)
    async def file(self, repository: Repository, path: str = "", ref: str | None = None, offset: int = 0) -> str:
        """Read a text file, or list a directory, as it is at a ref.

        Args:
            repository: 'owner/name'.
            path: Path in the repository; empty: its top directory.
            ref: Branch, tag or commit. Default: the default branch.
            offset: Character to start from, when the file was too long for one call.
        """
        where = repo(repository, "contents", *([file_path(path)] if path.strip("/") else []))
        answer = await self._api.get(where, {"ref": ref})
        found = answer.json()
        if isinstance(found, list):
            return window("\n".join(line({name: item.get(name) for name in ("type", "path", "size")}) for item in found) or "empty", offset)
        if found.get("type") != "file":
            told = {name: found.get(name) for name in ("type", "path", "target", "submodule_git_url", "sha")}
            return line(told)
        data = base64.b64decode(found.get("content") or "")
        if found.get("encoding") != "base64":  # larger than 1 MB
            data = (await self._api.get(where, {"ref": ref}, headers=RAW)).body
        try:
            if b"\0" in data:
                raise ValueError
            return window(data.decode(), offset) or "[the file is empty]"
        except ValueError:
            raise ToolError(f"{path} is a binary file of {found.get('size', len(data))} bytes; it cannot be shown as text") from None

    @tool(idempotent=True, outside=True)
    async def search_code(self, query: str, repository: Repository | None = None, page: Page = 1) -> str:
        """Search code on default branches. Finds files with the words; shows the lines around them.

        Args:
            query: Words and qualifiers of GitHub's code search, e.g. 'parse_url language:python path:src'.
            repository: 'owner/name' to search in. Default: all that the login may see.
            page: Page of the list.
        """
        asked = f"{query} repo:{repository}" if repository else query
        answer = await self._api.get("/search/code", {"q": asked, "per_page": PER_PAGE, "page": page}, headers=FRAGMENTS)
        found = answer.json()
        lines = [
            line(
                {
                    "repository": item["repository"]["full_name"],
                    "path": item["path"],
                    "url": item.get("html_url"),
                    "lines": [match.get("fragment", "") for match in item.get("text_matches") or []],
                }
            )
            for item in found["items"]
        ]
        told = f"{found['total_count']} found{', not all of them searched' if found.get('incomplete_results') else ''}"
        return "\n".join([told, *lines, *more(answer, page)])


def commit_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A commit in a list."""
    commit = item["commit"]
    return {
        "sha": item["sha"],
        "message": commit["message"].partition("\n")[0],
        "author": login_of(item.get("author")) or (commit.get("author") or {}).get("name"),
        "date": (commit.get("committer") or commit.get("author") or {}).get("date"),
    }


def patches(files: list[Mapping[str, Any]]) -> str:
    """Changed files with their patches: all that follows in an answer, since a patch may hold any text."""
    lines = [f"{len(files)} files:"]
    for file in files:
        before = f" (was {file['previous_filename']})" if file.get("previous_filename") else ""
        lines.append(f"{file['status']} {file['filename']}{before} +{file.get('additions', 0)} -{file.get('deletions', 0)}")
    for file in files:
        lines += ["", f"--- {file['filename']}", file.get("patch") or "[GitHub shows no patch: binary, empty, or too large]"]
    if len(files) >= 300:
        lines.insert(1, "[GitHub tells of the first 300 files only]")
    return "\n".join(lines)
