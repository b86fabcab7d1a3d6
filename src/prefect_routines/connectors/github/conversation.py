"""Writing what people read: pull requests, issues, comments, reviews. Each carries a hidden mark by which it can be found again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from prefect_routines.connectors.github.service import GitHubToolset, Number, RefName, Repository, repo
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.outgoing import Outgoing
from prefect_routines.tools.tool import ToolContext, Write, tool

Title = Annotated[str, Outgoing("github", 256, one_line=True), Field(min_length=1)]
Body = Annotated[str, Outgoing("github", 65_000)]  # GitHub takes 65,536 characters, and the mark needs some
Line = Annotated[int, Field(gt=0)]


class InlineComment(BaseModel):
    """A comment on one line of a pull request's diff."""

    path: str = Field(description="Path of the file.")
    line: Line = Field(description="Line in the new version of the file; it must be part of the diff.")
    body: Body = Field(description="The comment, in Markdown.")


def mark(context: ToolContext) -> str:
    """What a text carries, unseen, to be found again."""
    return f"<!-- routine: {context.key} -->"


def marked(body: str, context: ToolContext) -> str:
    """The text with its mark. A code block that was left open would show it, so it stands on a line of its own."""
    return f"{body}\n\n{mark(context)}" if body else mark(context)


def is_marked(item: Mapping[str, Any], context: ToolContext) -> bool:
    """Whether it carries this call's mark."""
    return mark(context) in (item.get("body") or "")


class GitHubWrites(GitHubToolset):
    """What writes share: the request that is shown is the request that is sent."""

    def _write(
        self,
        repository: str,
        method: str,
        path: str,
        body: Any,
        said: Callable[[Any], str],
        find: Callable[[], Awaitable[str | None]] | None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Write:
        """A write.

        Args:
            repository: Where to; a name that is not the repository's own is refused.
            method: Of the request.
            path: Of the request.
            body: What it carries.
            said: What Claude is told, from GitHub's answer.
            find: Looks for what it would make.
            before: What must hold; asked right before it is sent.
        """

        async def send() -> str:
            try:
                await self._own_name(repository)
                if before is not None:
                    await before()
            except (LookupError, TypeError, ValueError) as error:
                raise ServiceError("GitHub's answer to what was asked before lacks something; nothing was sent") from error
            answer = await self._api.send(method, path, json=body)
            try:
                return said(answer.json())
            except Exception as error:  # whatever it is, GitHub has taken the request
                why = str(error) if isinstance(error, ServiceError) else f"GitHub's answer to {method} {path} lacks something"
                raise OutcomeUnknown(f"{why}; whether it was carried out is unknown") from error

        return Write(request={"request": f"{method} {path}", "body": body}, send=send, find=find)

    async def _own_name(self, repository: str) -> None:
        """GitHub takes other letter case and former names as well. Rules do not: a denied repository must have no second name."""
        name = (await self._read(repo(repository)))["full_name"]
        if name != repository:
            raise ServiceError(f"{repository} is called {name} at GitHub; nothing was sent: use that name")


class ConversationWrites(GitHubWrites):
    """Pull requests, issues, comments and reviews."""

    @tool(target="repository", writes=True, outside=True)
    async def open_pull_request(
        self,
        context: ToolContext,
        repository: Repository,
        head: str,
        base: RefName,
        title: Title,
        body: Body,
        draft: bool = False,
    ) -> Write:
        """Open a pull request for a branch that was pushed.

        Args:
            repository: 'owner/name' of the repository that is to take the change.
            head: Branch with the change, as `push` named it; 'owner:branch' when it is in a fork.
            base: Branch that is to take it, e.g. 'main'.
            title: One line.
            body: What changes, and why, in Markdown.
            draft: Whether it is not ready yet.
        """
        where = repo(repository, "pulls")
        owner = repository.partition("/")[0]

        async def find() -> str | None:
            source = head if ":" in head else f"{owner}:{head}"
            pulls, _ = await self._all(where, pages=1, head=source, base=base, state="all", sort="created", direction="desc")
            for item in [item for item in pulls if is_marked(item, context)] or [item for item in pulls if item["state"] == "open"]:
                return _opened(item)  # one branch has one open pull request into another
            return None

        whole = f"{body}\n\nSession: {context.page}" if context.page else body  # ours, hence behind what was made harmless
        request = {"title": title, "head": head, "base": base, "body": marked(whole, context), "draft": draft}
        return self._write(repository, "POST", where, request, _opened, find)

    @tool(target=("repository", "number"), writes=True, outside=True)
    async def comment(self, context: ToolContext, repository: Repository, number: Number, body: Body) -> Write:
        """Comment on an issue or a pull request.

        Args:
            repository: 'owner/name'.
            number: Number of the issue or pull request.
            body: The comment, in Markdown.
        """
        where = repo(repository, "issues", str(number), "comments")

        def said(item: Mapping[str, Any]) -> str:
            return f"Commented: {item['html_url']}"

        async def find() -> str | None:
            async for item in self._newest(where):
                if is_marked(item, context):
                    return said(item)
            return None

        _not_empty(body)
        return self._write(repository, "POST", where, {"body": marked(body, context)}, said, find)

    @tool(target=("repository", "number", "event"), writes=True, outside=True)
    async def review(
        self,
        context: ToolContext,
        repository: Repository,
        number: Number,
        event: Literal["APPROVE", "REQUEST_CHANGES", "COMMENT"],
        body: Body,
        comments: list[InlineComment] | None = None,
    ) -> Write:
        """Review a pull request, with comments on lines of its diff.

        Args:
            repository: 'owner/name'.
            number: Number of the pull request.
            event: What the review says.
            body: The review's text, in Markdown.
            comments: Comments on lines.
        """
        where = repo(repository, "pulls", str(number), "reviews")

        def said(item: Mapping[str, Any]) -> str:
            return f"Reviewed ({event}): {item['html_url']}"

        async def find() -> str | None:
            async for item in self._newest(where):
                if is_marked(item, context):
                    return said(item)
            return None

        if event != "APPROVE":
            _not_empty(body)
        remarks = [{"path": item.path, "line": item.line, "side": "RIGHT", "body": item.body} for item in comments or []]
        request = {"event": event, "body": marked(body, context), **({"comments": remarks} if remarks else {})}
        return self._write(repository, "POST", where, request, said, find)

    @tool(target="repository", writes=True, outside=True)
    async def open_issue(self, context: ToolContext, repository: Repository, title: Title, body: Body) -> Write:
        """Open an issue.

        Args:
            repository: 'owner/name'.
            title: One line.
            body: The text, in Markdown.
        """
        where = repo(repository, "issues")

        async def find() -> str | None:
            async for item in self._newest(where, ascending=False, state="all", sort="created", direction="desc"):
                if is_marked(item, context):
                    return _opened(item)
            return None

        return self._write(repository, "POST", where, {"title": title, "body": marked(body, context)}, _opened, find)


def _opened(item: Mapping[str, Any]) -> str:
    return f"Opened #{item['number']}: {item['html_url']}"


def _not_empty(body: str) -> None:
    if not body.strip():
        raise ToolError("body: write some text")
