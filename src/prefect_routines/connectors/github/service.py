"""GitHub's REST API: its headers, its errors, its pages, and names that are safe in a path.

https://docs.github.com/en/rest
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, Field

from prefect_routines.connectors.connector import Toolset
from prefect_routines.connectors.github.login import Login
from prefect_routines.connectors.http import Answer, Api, ServiceError
from prefect_routines.errors import ToolError
from prefect_routines.outgoing import Allowance, Outgoing, sanitise

_NO_REF = re.compile(r"[\x00-\x20\x7f~^?*\[\\]|\.\.|@\{|//")  # https://git-scm.com/docs/git-check-ref-format


def plain(name: str) -> str:
    """A name as it stands: with nothing in or around it that the session or GitHub would take away after a rule has looked at it.

    Raises:
        ValueError: It has something of that kind.
    """
    if name != name.strip() or sanitise(name, Outgoing(), Allowance()) != name:
        raise ValueError("leave out spaces around it and characters that cannot be seen")
    return name


def _ref_name(name: str) -> str:
    """A branch or tag by its bare name: rules must not miss one that is spelled otherwise.

    Raises:
        ValueError: It can be none.
    """
    while name.startswith(("refs/heads/", "heads/")):
        name = name.removeprefix("refs/").removeprefix("heads/")
    if not name or name.startswith(("refs/", "tags/", "/")) or name.endswith("/") or _NO_REF.search(name):
        raise ValueError("give the name of a branch or tag alone, without 'refs/' or 'tags/' before it")
    return plain(name)


RefName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_ref_name)]
Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}/[A-Za-z0-9._-]{1,100}$")]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Number = Annotated[int, Field(gt=0)]
Page = Annotated[int, Field(gt=0, le=1000)]

PER_PAGE = 30
HEADERS = {
    "Accept": "application/vnd.github+json",
    "User-Agent": "prefect-routines",
    "X-GitHub-Api-Version": "2022-11-28",  # https://docs.github.com/en/rest/about-the-rest-api/api-versions
}
_LAST = re.compile(r'<[^>]*[?&]page=(\d+)[^>]*>;\s*rel="last"')


class GitHubApi(Api):
    """GitHub, logged in to.

    Args:
        base_url: Address of the API.
        block: The block that holds the login, as in 'github/docs-bot'.
        login: Gives the token of each request.
    """

    def __init__(self, base_url: str, block: str, login: Login) -> None:
        async def headers() -> Mapping[str, str]:
            return {"Authorization": f"Bearer {(await login.token()).get_secret_value()}"}

        super().__init__("GitHub", base_url, block=block, headers=headers, explain=explained)
        self._account = login

    @property
    def web_host(self) -> str:
        """Host of the pages that people look at."""
        hosted = self.host == "api.github.com" or (self.host.startswith("api.") and self.host.endswith(".ghe.com"))
        return self.host.removeprefix("api.") if hosted else self.host

    async def _once(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **content: Any) -> Answer:
        return await super()._once(method, path, headers={**HEADERS, **(headers or {})}, **content)

    def _checked(self, answer: Answer) -> Answer:
        try:
            return super()._checked(answer)
        except ServiceError as error:
            raise ServiceError(self._more(error, answer), error.status) from None

    def _more(self, error: ServiceError, answer: Answer) -> str:
        """The error with what GitHub alone tells.

        https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
        """
        if answer.status == 401:
            self._account.refused()
        if answer.status == 404:  # GitHub says so of what is there and may not be seen, too
            return (
                f"{error}. Either there is no such thing, or the login of {self.block} may not see it: "
                "check the name; the author can give the login access"
            )
        if answer.status in (301, 302, 307, 308):
            return f"{error}. The repository has moved: look up its new name and use that"
        needed = answer.headers.get("x-accepted-github-permissions") or answer.headers.get("x-accepted-oauth-scopes")
        return f"{error} ({needed})" if answer.status == 403 and needed else str(error)


def explained(body: Any) -> str:
    """What GitHub's errors say: a message, and which field is wrong how.

    https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api#validation-failed
    """
    if not isinstance(body, dict):
        return str(body or "")
    errors = body.get("errors")
    wrong = [
        item.get("message") or " ".join(str(item[name]) for name in ("resource", "field", "code") if item.get(name))
        if isinstance(item, dict)
        else str(item)
        for item in (errors if isinstance(errors, list) else [errors] if errors else [])[:5]
    ]
    return ": ".join(part for part in (str(body.get("message") or ""), "; ".join(wrong)) if part)


class GitHubToolset(Toolset):
    """What the tools share: reading pages, and showing what came.

    Args:
        api: GitHub.
    """

    def __init__(self, api: GitHubApi) -> None:
        self._api = api

    async def _read(self, path: str, /, **params: Any) -> Any:
        return (await self._api.get(path, params)).json()

    async def _listed(
        self, path: str, shown: Callable[[Any], dict[str, Any] | None], page: int, /, *, under: str | None = None, **params: Any
    ) -> str:
        """One page of a list, an item per line."""
        answer = await self._api.get(path, {"per_page": PER_PAGE, "page": page, **params})
        items = answer.json()
        lines = [line(value) for item in (items[under] if under else items) if (value := shown(item)) is not None]
        return "\n".join([*(lines or ["none" if page == 1 else "none on this page"]), *more(answer, page)])

    async def _all(self, path: str, /, *, pages: int = 3, under: str | None = None, **params: Any) -> tuple[list[Any], bool]:
        """All items of a list, up to that many pages of a hundred; and whether there are more."""
        found: list[Any] = []
        for page in range(1, pages + 1):
            answer = await self._api.get(path, {"per_page": 100, "page": page, **params})
            found += answer.json()[under] if under else answer.json()
            if 'rel="next"' not in answer.headers.get("link", ""):
                return found, False
        return found, True

    async def _newest(
        self, path: str, /, *, pages: int = 5, under: str | None = None, ascending: bool = True, **params: Any
    ) -> AsyncIterator[Any]:
        """The items of a list from the newest on, up to that many pages of a hundred.

        Args:
            path: Where the list is.
            pages: How many pages are read.
            under: Name under which the answer holds the list.
            ascending: GitHub gives the oldest first, and does not let one turn that round.
            params: Query.
        """
        query = {"per_page": 100, **params}
        answer = await self._api.get(path, query)
        last = _LAST.search(answer.headers.get("link", "")) if ascending else None
        if last is None:
            page, step = 1, 1
        else:
            page, step = int(last[1]), -1
            answer = await self._api.get(path, {**query, "page": page})
        for _ in range(pages):
            items = answer.json()[under] if under else answer.json()
            for item in reversed(items) if ascending else items:
                yield item
            if ('rel="prev"' if step < 0 else 'rel="next"') not in answer.headers.get("link", ""):
                return
            page += step
            answer = await self._api.get(path, {**query, "page": page})


def repo(repository: str, *rest: str) -> str:
    """Path of something in a repository; what `rest` holds is part of a path already.

    Raises:
        ToolError: The name would lead elsewhere.
    """
    owner, _, name = repository.partition("/")
    return "/".join(["/repos", part(owner), part(name), *rest])


def part(text: str | int) -> str:
    """One part of a path, in which nothing can lead elsewhere.

    Raises:
        ToolError: It is empty, or '.' or '..'.
    """
    if str(text) in ("", ".", ".."):
        raise ToolError(f"{str(text)!r} is no name")
    return quote(str(text), safe="")


def file_path(path: str) -> str:
    """The path of a file, part by part."""
    return "/".join(part(piece) for piece in path.split("/") if piece)


def ref(name: str) -> str:
    """A branch, tag or commit as part of a path.

    Raises:
        ToolError: It can be none.
    """
    if _NO_REF.search(name):
        raise ToolError(f"{name!r} is no branch, tag or commit; give one without '..', '~', '^' or spaces")
    return part(name)


def more(answer: Answer, page: int) -> list[str]:
    """The line that says that there are further pages."""
    return [f"[more: page={page + 1}]"] if 'rel="next"' in answer.headers.get("link", "") else []


def line(value: Mapping[str, Any]) -> str:
    """A value on one line; as JSON, so that no text in it can look like another one's. What is empty is left out."""
    kept = {name: item for name, item in value.items() if item not in (None, "", [], {})}
    return json.dumps(kept, ensure_ascii=False, separators=(", ", ": "))


def login_of(user: Mapping[str, Any] | None) -> str | None:
    """Name of a user, who may be gone."""
    return user["login"] if user else None


def names_of(items: Iterable[Any]) -> list[str]:
    """Names of labels, as objects or as text."""
    return [item["name"] if isinstance(item, dict) else str(item) for item in items]


def web(api: GitHubApi) -> str:
    """Address of the pages for people."""
    parts = urlsplit(api.base_url)
    return f"{parts.scheme}://{api.web_host}{f':{parts.port}' if parts.port else ''}"
