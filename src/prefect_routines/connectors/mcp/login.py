"""How we log in to an MCP server over HTTP: with a bearer token, or with one that OAuth client credentials fetch."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from prefect_routines.connectors.mcp.trouble import Failed
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    import httpx2

ANSWER_MAX = 64 * 1024
EARLY = 60.0  # seconds before its end at which a token is renewed


@dataclass
class Login:
    """The header that goes with each request.

    The token's address is the author's: a server is never asked where our client secret should go.

    Args:
        token: A bearer token that the author gave.
        client_id: For the client-credentials grant (RFC 6749, section 4.4).
        client_secret: Likewise.
        token_url: Where tokens are fetched.
        scope: What is asked for; empty: what the token's server gives by itself.
        resource: The MCP server's address, which the token is for (RFC 8707).
    """

    token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token_url: str | None = None
    scope: str = ""
    resource: str = ""
    _fetched: str | None = field(default=None, repr=False)
    _until: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def secrets(self) -> list[str]:
        """All values that must not be shown."""
        return [secret for secret in (self.token, self.client_secret, self._fetched) if secret]

    @property
    def renewable(self) -> bool:
        """Whether another token can be fetched when one is refused."""
        return self.token_url is not None

    async def header(self, client: httpx2.AsyncClient, *, refused: str | None = None) -> str | None:
        """The value of `Authorization`, or None if nothing logs in.

        Args:
            client: Fetches a token where that is needed.
            refused: The value that the server has just refused.

        Raises:
            Failed: No token is to be had.
        """
        if self.token_url is None:
            return f"Bearer {self.token}" if self.token else None
        async with self._lock:
            if self._fetched is None or time.monotonic() > self._until or refused == f"Bearer {self._fetched}":
                await self._fetch(client)
            return f"Bearer {self._fetched}"

    async def _fetch(self, client: httpx2.AsyncClient) -> None:
        asked = {"grant_type": "client_credentials", "resource": self.resource}
        if self.scope:
            asked["scope"] = self.scope
        pair = f"{quote_plus(self.client_id or '')}:{quote_plus(self.client_secret or '')}"
        basic = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        status, answer = await self._post(client, asked, basic)
        if status in (400, 401) and answer.get("error") == "invalid_client":  # some take the login in the body only
            status, answer = await self._post(
                client, asked | {"client_id": self.client_id or "", "client_secret": self.client_secret or ""}
            )
        token = answer.get("access_token")
        if status != 200 or not isinstance(token, str) or not token.isascii() or not token.isprintable():
            told = one_line(f"{answer.get('error') or ''} {answer.get('error_description') or ''}", 200) or "no token in it"
            raise Failed(f"no token from {self.token_url}: status {status}, {told}; check the OAuth client of the block", taken=False)
        lasts = answer.get("expires_in")
        self._fetched = token
        self._until = time.monotonic() + (max(1.0, float(lasts) - EARLY) if isinstance(lasts, int | float) else 3600.0)

    async def _post(
        self, client: httpx2.AsyncClient, form: dict[str, str], headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        import httpx2

        assert self.token_url is not None
        accepted = {"accept": "application/json", "accept-encoding": "identity"}
        try:
            async with client.stream("POST", self.token_url, data=form, headers={**accepted, **(headers or {})}) as response:
                body = b""
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > ANSWER_MAX:
                        break
        except httpx2.HTTPError as error:
            said = one_line(str(error), 200) or type(error).__name__
            raise Failed(f"no token from {self.token_url}: it cannot be reached ({said})", taken=False) from error
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        return response.status_code, answer if isinstance(answer, dict) else {}
