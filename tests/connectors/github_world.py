"""A small GitHub for tests: the emulator with an organisation, a few commits, an issue and a pull request; read back over its own API."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import httpx
from prefect_github import GitHubCredentials
from pydantic import SecretStr

from prefect_routines.connectors.connector import Connection
from prefect_routines.connectors.github import GitHub
from prefect_routines.outgoing import Allowance
from prefect_routines.tools.prose import harmless
from prefect_routines.tools.tool import ToolContext, ToolResult, Write

from .emulator import Emulator, Service

TOKEN = "ghp_docsbot"
SEED: dict[str, Any] = {
    "tokens": {TOKEN: {"login": "docs-bot", "scopes": ["repo", "workflow"]}, "ghp_octocat": {"login": "octocat", "scopes": ["repo"]}},
    "github": {
        "users": [{"login": "docs-bot"}, {"login": "octocat"}],
        "orgs": [{"login": "acme", "members": [{"login": "docs-bot", "role": "admin"}, {"login": "octocat", "role": "admin"}]}],
        "repos": [{"owner": "acme", "name": "docs", "auto_init": True}, {"owner": "acme", "name": "other", "auto_init": True}],
        "apps": [
            {
                "app_id": 12345,
                "slug": "docs-app",
                "name": "Docs App",
                "permissions": {"contents": "write", "issues": "write", "pull_requests": "write", "checks": "write"},
                "installations": [{"installation_id": 100, "account": "acme", "repository_selection": "all"}],
            }
        ],
    },
}
DOCS = "acme/docs"
BRANCH = "claude/loud"
_ids = itertools.count()


class World:
    """A running GitHub.

    Args:
        service: The emulator's.
    """

    def __init__(self, service: Service) -> None:
        self.url = service.url
        self.app_key = next(secret["value"] for secret in service.secrets)
        self.http = httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {TOKEN}"})
        self.base = self.put_file("api.md", "# API\nhello(name)\n", "Describe hello")
        self.branch(BRANCH)
        self.head = self.put_file("api.md", "# API\nhello(name, loud=False)\n", "Describe loud", BRANCH)
        self.issue: int = self.post(f"/repos/{DOCS}/issues", title="Is loud documented?", body="I cannot find it.")["number"]
        self.post(f"/repos/{DOCS}/issues/{self.issue}/comments", body="Me neither.")
        self.pull: int = self.post(f"/repos/{DOCS}/pulls", title="Describe loud", body="It is new.", head=BRANCH, base="main")["number"]

    def get(self, path: str, **params: Any) -> Any:
        """What GitHub says of something, without our code."""
        answer = self.http.get(path, params={"per_page": 100, **params})
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> Any:
        """Make something, without our code."""
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def branch(self, name: str) -> None:
        """Make a branch where the default branch began."""
        self.post(f"/repos/{DOCS}/git/refs", ref=f"refs/heads/{name}", sha=self.base)

    def put_file(self, path: str, content: str | bytes, message: str, branch: str = "main") -> str:
        """Commit a file; returns the commit."""
        data = content.encode() if isinstance(content, str) else content
        before = self.http.get(f"/repos/{DOCS}/contents/{path}", params={"ref": branch})
        body = {"message": message, "content": base64.b64encode(data).decode(), "branch": branch}
        if before.is_success:
            body["sha"] = before.json()["sha"]
        answer = self.http.put(f"/repos/{DOCS}/contents/{path}", json=body)
        assert answer.is_success, answer.text
        return str(answer.json()["commit"]["sha"])

    def state(self) -> dict[str, Any]:
        """All that a tool could have changed."""
        found: dict[str, Any] = {}
        for name in (DOCS, "acme/other"):
            root = f"/repos/{name}"
            issues, pulls = self.get(f"{root}/issues", state="all"), self.get(f"{root}/pulls", state="all")
            found[name] = {
                "repository": self.get(root),
                "issues": issues,
                "pulls": pulls,
                "comments": {item["number"]: self.get(f"{root}/issues/{item['number']}/comments") for item in [*issues, *pulls]},
                "remarks": {item["number"]: self.get(f"{root}/pulls/{item['number']}/comments") for item in pulls},
                "labels": {item["number"]: self.get(f"{root}/issues/{item['number']}/labels") for item in [*issues, *pulls]},
                "reviews": {item["number"]: self.get(f"{root}/pulls/{item['number']}/reviews") for item in pulls},
                "releases": self.get(f"{root}/releases"),
                "branches": self.get(f"{root}/branches"),
                "runs": self.get(f"{root}/actions/runs"),
                "checks": {item["number"]: self.get(f"{root}/commits/{item['head']['sha']}/check-runs") for item in pulls},
            }
        return found

    def comments(self, number: int) -> list[str]:
        """Texts of an issue's comments."""
        return [item["body"] for item in self.get(f"/repos/{DOCS}/issues/{number}/comments")]

    def block(self, token: str = TOKEN, **fields: Any) -> GitHub:
        """The connector, with a token."""
        return GitHub(credentials=GitHubCredentials(token=SecretStr(token)), base_url=self.url, **fields)

    def app(self, **fields: Any) -> GitHub:
        """The connector, as a GitHub App."""
        given = {"app_id": "12345", "installation_id": 100, "private_key": SecretStr(self.app_key)} | fields
        return GitHub(base_url=self.url, **given)


@contextmanager
def github_world(emulator: Emulator) -> Iterator[World]:
    """A GitHub of a test's own."""
    with emulator.start("github", SEED) as service:
        world = World(service)
        try:
            yield world
        finally:
            world.http.close()


class Caller:
    """Calls a connector's tools as a session does: arguments checked, then made harmless.

    Args:
        connection: An open connection.
        hosts: Hosts to which outgoing text may link.
    """

    def __init__(self, connection: Connection, hosts: Iterable[str] = ()) -> None:
        self.connection = connection
        self._tools = {tool.name: tool for tool in connection.tools}
        self._allowance = Allowance(outside=True, hosts=frozenset(hosts))

    @property
    def names(self) -> list[str]:
        return list(self._tools)

    async def read(self, tool: str, /, **arguments: Any) -> str:
        """What a read tool tells Claude."""
        result = await self._called(tool, f"r{next(_ids)}", arguments)
        assert isinstance(result, ToolResult)
        assert isinstance(result.content, str)
        return result.content

    async def plan(self, tool: str, /, id: str | None = None, **arguments: Any) -> Write:
        """What a write tool would do; nothing is sent."""
        plan = await self._called(tool, id or f"w{next(_ids)}", arguments)
        assert isinstance(plan, Write)
        return plan

    async def write(self, tool: str, /, **arguments: Any) -> str:
        """Write, and check what every write promises: it is not found before it is sent, and found as the same thing afterwards."""
        plan = await self.plan(tool, **arguments)
        if plan.find is not None:
            assert await plan.find() is None
        said = await plan.send()
        if plan.find is not None:
            assert await plan.find() == said
        assert isinstance(said, str)
        return said

    async def _called(self, name: str, id: str, arguments: dict[str, Any]) -> ToolResult | Write:
        tool = self._tools[f"github_{name}"]
        checked = tool.check(arguments)
        if tool.writes:
            checked = harmless(checked, tool, self._allowance)
        return await tool(ToolContext(session_id="ses_1", tool_use_id=id, workspace=cast(Any, None)), checked)
