"""Does it answer? Questions over HTTP to Prefect and the gateway."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from prefect_routines.errors import SettingsError
from prefect_routines.up.prefect_settings import PrefectSettings
from prefect_routines.visible import one_line

Check = Callable[[], Awaitable[str | None]]
"""None: it answers. Else why not, in a few words."""

SECONDS = 5.0


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("prefect.example.org")
        (True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class PrefectApi:
    """Prefect's API at an address, asked with the user's login.

    Args:
        url: With the `/api` at its end.
        settings: Logins and certificates.
    """

    def __init__(self, url: str, settings: PrefectSettings) -> None:
        self.url = url.rstrip("/")
        self._settings = settings

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded answer of one request.

        Raises:
            httpx.HTTPError: There was no answer.
        """
        settings = self._settings
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        login = settings.auth_string.partition(":")[::2] if settings.auth_string else None
        verify: Any = False
        if self.url.startswith("https:") and settings.verify:
            import ssl

            verify = ssl.create_default_context(cafile=settings.certificates)
        own = is_loopback(urlsplit(self.url).hostname or "")
        async with httpx.AsyncClient(headers=headers, auth=login, timeout=SECONDS, verify=verify, trust_env=not own) as client:
            answer = await client.request(method, f"{self.url}{path}", json=body)
        try:
            return answer.status_code, answer.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            return answer.status_code, None

    async def answers(self) -> str | None:
        """The check of a Prefect server: its health."""
        try:
            status, said = await self.ask("GET", "/health")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return one_line(str(error), 100) or type(error).__name__
        own = is_loopback(urlsplit(self.url).hostname or "")  # elsewhere somebody wrote the address down on purpose
        return None if status == 200 and (said is True or not own) else f"status {status}, and no word of Prefect's"


class WorkerCheck:
    """Whether a worker polls its pool, as the server sees it.

    Args:
        api: The server.
        pool: Name of the work pool.
        kind: Type that the pool must have.
        name: Of the worker.
        alone: Its sessions are kept where workers of other machines cannot see them.
    """

    def __init__(self, api: PrefectApi, pool: str, kind: str, name: str, *, alone: bool) -> None:
        self._api, self._pool, self._kind, self._name, self._alone = api, pool, kind, name, alone
        self._before: str | None = None

    async def prepare(self) -> str | None:
        """Before each start: the pool must fit, and an older heartbeat is not taken for a new one. What the user should know.

        Raises:
            SettingsError: There is a pool of this name that other workers serve.
        """
        try:
            status, pool = await self._api.ask("GET", f"/work_pools/{self._pool}")
            if status == 200 and pool["type"] != self._kind:
                raise SettingsError(
                    f"the work pool {self._pool!r} is of type {one_line(str(pool['type']), 40)!r}, and `routines up` needs one of type "
                    f"{self._kind!r}: remove it with `prefect work-pool delete {self._pool}`"
                )
            beats = await self._heartbeats()
        except httpx.HTTPError:
            beats = {}
        self._before = beats.pop(self._name, None)
        if not self._alone or not beats:
            return None
        others = one_line(", ".join(sorted(beats)), 200)
        return (
            f"other workers serve the pool {self._pool!r} ({others}), and this one keeps its sessions in SQLite: unless they share its "
            "ROUTINES_HOME, give all of them one PostgreSQL with ROUTINES_DATABASE_URL"
        )

    async def __call__(self) -> str | None:
        try:
            beat = (await self._heartbeats()).get(self._name)
        except httpx.HTTPError as error:
            return one_line(str(error), 100) or type(error).__name__
        if beat is None or beat == self._before:
            return "the server has not heard of it"
        return None

    async def _heartbeats(self) -> dict[str, str]:
        """When each worker was last heard of, of those that the server believes in."""
        body = {"workers": {"status": {"any_": ["ONLINE"]}}, "limit": 200}
        status, found = await self._api.ask("POST", f"/work_pools/{self._pool}/workers/filter", body)
        if status != 200 or not isinstance(found, list):
            return {}
        return {row["name"]: row["last_heartbeat_time"] for row in found}


def http_check(url: str) -> Check:
    """The check of a page of our own that answers 200 when all is well."""

    async def check() -> str | None:
        try:
            async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:
                status = (await client.get(url)).status_code
        except (httpx.HTTPError, OSError) as error:
            return one_line(str(error), 100) or type(error).__name__
        return None if status == 200 else f"status {status}"

    return check
