"""GitHub's answers as its documentation shows them, for what the emulator cannot play. https://docs.github.com/en/rest"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prefect_github import GitHubCredentials
from pydantic import SecretStr

from prefect_routines.connectors.github import GitHub

from .github_world import Caller
from .http_service import Asked, HttpService, Said, serving

Answer = Said | Callable[[Asked], Said]
NOT_FOUND = Said({"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"}, 404)
REPOSITORY = {"full_name": "acme/docs", "default_branch": "main"}
SHA = "6dcb09b5b57875f334f61aebed695e2e4193db5e"


@asynccontextmanager
async def github_answering(answers: Mapping[str, Answer | Any], token: str = "github_pat_x") -> AsyncIterator[tuple[HttpService, Caller]]:
    """A server that knows these requests, 'GET /repos/acme/docs' for example, and no others; and the tools, logged in there.

    Args:
        answers: By request. What is neither an answer nor gives one is the body of one.
        token: The login.
    """
    known = {"GET /repos/acme/docs": REPOSITORY, **answers}

    def answer(asked: Asked) -> Said:
        found = known.get(f"{asked.method} {asked.path}", NOT_FOUND)
        said = found(asked) if callable(found) else found
        return said if isinstance(said, Said) else Said(said)

    with serving(answer) as service:
        connection = GitHub(credentials=GitHubCredentials(token=SecretStr(token)), base_url=service.url).open("docs-bot")
        try:
            yield service, Caller(connection)
        finally:
            await connection.close()


def user(login: str) -> dict[str, Any]:
    """A user as GitHub shows one."""
    return {"login": login, "id": 1, "type": "User"}
