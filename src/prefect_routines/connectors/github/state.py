"""Writing the state of issues and pull requests: labels, reviewers, open or closed, merged. The state itself says whether it was done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from prefect_routines.connectors.github.conversation import GitHubWrites
from prefect_routines.connectors.github.service import Number, Repository, Sha, login_of, names_of, part, plain, repo, web
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import ToolError
from prefect_routines.tools.tool import Write, tool

Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(plain)]
Reviewer = Annotated[str, Field(pattern=r"^(team:)?[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class StateWrites(GitHubWrites):
    """Labels, reviewers, open or closed, merged."""

    @tool(target=("repository", "number", "label"), writes=True, outside=True)
    async def add_label(self, repository: Repository, number: Number, label: Label) -> Write:
        """Add a label to an issue or a pull request.

        Args:
            repository: 'owner/name'.
            number: Number of the issue or pull request.
            label: Its name.
        """
        where = repo(repository, "issues", str(number), "labels")
        done = f"#{number} of {repository} has the label {label}: {self._page(repository, number)}"

        async def find() -> str | None:
            return done if label.casefold() in await self._labels(where) else None

        return self._write(repository, "POST", where, {"labels": [label]}, lambda _: done, find, self._spelled(repository, label))

    @tool(target=("repository", "number", "label"), writes=True, outside=True)
    async def remove_label(self, repository: Repository, number: Number, label: Label) -> Write:
        """Take a label off an issue or a pull request.

        Args:
            repository: 'owner/name'.
            number: Number of the issue or pull request.
            label: Its name.
        """
        where = repo(repository, "issues", str(number), "labels")
        done = f"#{number} of {repository} is without the label {label}: {self._page(repository, number)}"

        async def find() -> str | None:
            return None if label.casefold() in await self._labels(where) else done

        before = self._spelled(repository, label)
        return self._write(repository, "DELETE", f"{where}/{part(label)}", None, lambda _: done, find, before)

    @tool(target=("repository", "number", "reviewer"), writes=True, outside=True)
    async def request_review(self, repository: Repository, number: Number, reviewer: Reviewer) -> Write:
        """Ask somebody to review a pull request.

        Args:
            repository: 'owner/name'.
            number: Number of the pull request.
            reviewer: Login of a person, or 'team:slug' of a team.
        """
        where = repo(repository, "pulls", str(number))
        done = f"{reviewer} is asked to review #{number} of {repository}: {self._page(repository, number)}"
        team, name = reviewer.startswith("team:"), reviewer.removeprefix("team:")

        async def find() -> str | None:
            pull = await self._read(where)
            asked = [item["slug"] for item in pull["requested_teams"]] if team else [login_of(item) for item in pull["requested_reviewers"]]
            return done if name.casefold() in [str(item).casefold() for item in asked] else None

        request = {"team_reviewers" if team else "reviewers": [name]}
        return self._write(repository, "POST", f"{where}/requested_reviewers", request, lambda _: done, find)

    @tool(target=("repository", "number"), writes=True, outside=True)
    async def close_issue(self, repository: Repository, number: Number, reason: Literal["completed", "not_planned"] = "completed") -> Write:
        """Close an issue.

        Args:
            repository: 'owner/name'.
            number: Number of the issue.
            reason: Why.
        """
        return self._turned(repository, number, {"state": "closed", "state_reason": reason})

    @tool(target=("repository", "number"), writes=True, outside=True)
    async def reopen_issue(self, repository: Repository, number: Number) -> Write:
        """Open a closed issue again.

        Args:
            repository: 'owner/name'.
            number: Number of the issue.
        """
        return self._turned(repository, number, {"state": "open"})

    @tool(target=("repository", "number", "sha"), writes=True, outside=True)
    async def merge(
        self, repository: Repository, number: Number, sha: Sha, method: Literal["merge", "squash", "rebase"] = "merge"
    ) -> Write:
        """Merge a pull request, if its head is still the commit that was looked at.

        Args:
            repository: 'owner/name'.
            number: Number of the pull request.
            sha: The commit that its head must be.
            method: How.
        """
        where = repo(repository, "pulls", str(number))
        done = f"Merged #{number} of {repository} at {sha}: {self._page(repository, number, 'pull')}"

        async def find() -> str | None:
            pull = await self._read(where)
            return done if pull["merged"] and pull["head"]["sha"] == sha else None

        async def unmoved() -> None:
            head = (await self._read(where))["head"]["sha"]
            if head != sha:
                raise ToolError(
                    f"not merged: the head of #{number} of {repository} is now {head}; read what has changed before merging that"
                )

        return self._write(repository, "PUT", f"{where}/merge", {"sha": sha, "merge_method": method}, lambda _: done, find, unmoved)

    def _turned(self, repository: str, number: int, state: dict[str, Any]) -> Write:
        """An issue closed or opened again."""
        where = repo(repository, "issues", str(number))
        done = f"#{number} of {repository} is {state['state']}: {self._page(repository, number)}"

        async def find() -> str | None:
            return done if (await self._read(where))["state"] == state["state"] else None

        return self._write(repository, "PATCH", where, state, lambda _: done, find)

    def _spelled(self, repository: str, label: str) -> Callable[[], Awaitable[None]]:
        """GitHub takes a label in any letter case. Rules do not: a denied label must have no second name."""

        async def before() -> None:
            try:
                name = (await self._read(repo(repository, "labels", part(label))))["name"]
            except ServiceError as error:
                if error.status != 404:
                    raise
                return  # a new one
            if name != label:
                raise ToolError(f"the label {label} is called {name} in {repository}; nothing was sent: use that name")

        return before

    async def _labels(self, where: str) -> list[str]:
        return [name.casefold() for name in names_of((await self._all(where, pages=1))[0])]

    def _page(self, repository: str, number: int, kind: str = "issues") -> str:
        return f"{web(self._api)}/{repository}/{kind}/{number}"
