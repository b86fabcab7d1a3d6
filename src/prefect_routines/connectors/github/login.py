"""Who a session is at GitHub: the owner of a token, or the installation of a GitHub App, whose tokens end after an hour."""

from __future__ import annotations

import asyncio
import re
import textwrap
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from prefect_routines.connectors.connector import revealed
from prefect_routines.connectors.http import Api, ServiceError
from prefect_routines.errors import SettingsError

MARGIN = timedelta(minutes=5)  # a token is renewed that long before its end
_PEM = re.compile(r"\s*-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.*?)-----END \1-----\s*\Z", re.DOTALL)


class Login:
    """A token that somebody made at GitHub.

    Args:
        secret: The token.
    """

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret

    async def token(self) -> SecretStr:
        """The token for the next request."""
        return self._secret

    def secrets(self) -> list[str]:
        """What must not show up anywhere."""
        return revealed(self._secret)

    def refused(self) -> None:
        """GitHub did not take the last token."""

    async def who(self, api: Api) -> str:
        """Whose token it is, and what it may do."""
        try:
            answer = await api.get("/user")
        except ServiceError as error:
            if error.status != 403:
                raise
            # a token of an App's installation, such as a workflow's GITHUB_TOKEN, belongs to no user
            count = (await api.get("/installation/repositories", {"per_page": 1})).json()["total_count"]
            return f"an App's token for {count} repositories"
        said = str(answer.json()["login"])
        scopes = answer.headers.get("x-oauth-scopes")  # only classic tokens have scopes
        said += f"; scopes: {scopes or 'none'}" if scopes is not None else "; a fine-grained token: GitHub shows its owner what it may do"
        until = answer.headers.get("github-authentication-token-expiration")
        return said + (f"; valid until {until}" if until else "")

    async def close(self) -> None:
        """End what it has opened."""


class Installation(Login):
    """A GitHub App where it is installed: it signs for itself and gets tokens, which are kept until shortly before their end.

    https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/authenticating-as-a-github-app-installation

    Args:
        base_url: Address of the API.
        app_id: Id of the App, or its client id.
        installation_id: Number of the installation.
        private_key: The App's key in PEM form.
        block: The block that holds it, for errors.
    """

    def __init__(self, base_url: str, app_id: str, installation_id: int, private_key: SecretStr, block: str) -> None:
        super().__init__(private_key)
        self._api = Api("GitHub", base_url, block=block, headers=self._signed)
        self._app_id, self._installation, self._block = app_id, installation_id, block
        self._current: tuple[SecretStr, datetime] | None = None
        self._fetched: list[SecretStr] = []
        self._turn = asyncio.Lock()
        self._granted: dict[str, Any] = {}

    async def token(self) -> SecretStr:
        """The token for the next request; a new one is fetched when the last one has nearly ended."""
        async with self._turn:
            if self._current is None or datetime.now(UTC) > self._current[1] - MARGIN:
                # a further token changes nothing, so a lost answer is simply asked for again
                self._granted = (await self._api.ask("POST", f"/app/installations/{self._installation}/access_tokens")).json()
                self._current = SecretStr(self._granted.pop("token")), datetime.fromisoformat(self._granted["expires_at"])
                self._fetched.append(self._current[0])
            return self._current[0]

    def secrets(self) -> list[str]:
        """The key, each long line of it too, and all tokens fetched so far."""
        lines = [line for key in super().secrets() for line in key.splitlines() if len(line) > 32 and not line.startswith("-----")]
        return [*super().secrets(), *lines, *revealed(*self._fetched)]

    def refused(self) -> None:
        """Somebody has revoked the token: the next request fetches another one."""
        self._current = None

    async def who(self, api: Api) -> str:
        """The App, and what its installation may do."""
        app = (await self._api.get("/app")).json()
        await self.token()
        may = ", ".join(f"{name}: {level}" for name, level in sorted(self._granted.get("permissions", {}).items()))
        where = {"all": "all repositories", "selected": "selected repositories"}.get(self._granted.get("repository_selection", ""), "")
        return f"GitHub App {app['slug']}, installation {self._installation}{f' on {where}' if where else ''}; permissions: {may or 'none'}"

    async def close(self) -> None:
        """End its connection."""
        await self._api.close()

    async def _signed(self) -> Mapping[str, str]:
        import jwt

        now = int(time.time())
        claims = {"iat": now - 60, "exp": now + 540, "iss": self._app_id}  # GitHub allows ten minutes, and clocks differ
        try:
            signed = jwt.encode(claims, _whole(self._secret.get_secret_value()), algorithm="RS256")
        except (ValueError, TypeError, jwt.PyJWTError):  # their texts may quote the key
            raise SettingsError(
                f"the private key of {self._block} is no RSA key in PEM form; generate one on the App's page at GitHub and store it whole"
            ) from None
        return {"Authorization": f"Bearer {signed}"}


def _whole(key: str) -> str:
    """The key with its line breaks: a form with one line, or an environment variable, loses them."""
    found = _PEM.match(key.replace("\\n", "\n"))
    if not found:
        raise ValueError("no PEM")
    body = "\n".join(textwrap.wrap("".join(found[2].split()), 64))
    return f"-----BEGIN {found[1]}-----\n{body}\n-----END {found[1]}-----\n"
