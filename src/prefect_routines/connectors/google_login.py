"""Access tokens for Google's APIs, from the key of a service account or a `gcp-credentials` block; fetched when first needed."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefect_routines.blocks import import_type, load_block
from prefect_routines.connectors.http import TIMEOUT, ServiceError
from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

KEY_FIELDS = ("client_email", "private_key", "token_uri")  # what a service account's key cannot do without


class GoogleLogin:
    """One login, for one session. Nothing is imported or asked before `headers` is awaited.

    Args:
        block: The connector's block, for errors.
        scopes: What the tokens are for.
        key: The key of a service account, as in the JSON file that Google gives.
        credentials: Instead of it, a block such as 'gcp-credentials/main'.
    """

    def __init__(self, block: str, scopes: list[str], *, key: Mapping[str, Any] | None = None, credentials: str | None = None) -> None:
        self._block, self._scopes, self._key, self._reference = block, scopes, key, credentials
        self._credentials: Credentials | None = None
        self._turn = asyncio.Lock()
        self._held: list[str] = [str(key["private_key"])] if key else []

    @property
    def secrets(self) -> list[str]:
        """The private key and the tokens, as far as they are known by now."""
        return list(self._held)

    @property
    def who(self) -> str:
        """The service account, for people."""
        return str(getattr(self._credentials, "service_account_email", None) or (self._key or {}).get("client_email") or self._block)

    async def headers(self) -> Mapping[str, str]:
        """Headers with a token that is valid now.

        Raises:
            ServiceError: Google gives none.
            SettingsError: The block or the library that it needs is not there.
        """
        async with self._turn:
            if self._credentials is None:
                self._credentials = await self._load()
            if not self._credentials.valid:
                await asyncio.to_thread(self._refresh, self._credentials)
                self._held.append(str(self._credentials.token))
            return {"Authorization": f"Bearer {self._credentials.token}"}

    def forget(self) -> None:
        """Take the next token from Google: the one at hand was refused."""
        if self._credentials is not None:
            self._credentials.token = None

    async def _load(self) -> Credentials:
        if self._reference is None:
            return await asyncio.to_thread(self._from_key)
        await asyncio.to_thread(import_type, "gcp-credentials")  # takes a second
        block: Any = await load_block(self._reference)
        if not hasattr(block, "get_credentials_from_service_account"):
            raise SettingsError(f"{self._reference} holds no login for Google; {self._block} wants a block of type gcp-credentials")
        if info := getattr(block, "service_account_info", None):
            self._held.append(str(info.get_secret_value().get("private_key", "")))
        found: Any = await asyncio.to_thread(block.get_credentials_from_service_account)
        return found.with_scopes(self._scopes) if hasattr(found, "with_scopes") else found  # type: ignore[no-any-return]

    def _from_key(self) -> Credentials:
        try:
            from google.oauth2 import service_account
        except ImportError:
            raise SettingsError(
                f"{self._block} needs the package google-auth, which is not installed here: pip install 'prefect-routines[google]'"
            ) from None
        try:
            return service_account.Credentials.from_service_account_info(self._key, scopes=self._scopes)  # type: ignore[no-any-return, no-untyped-call]
        except ValueError as error:  # says nothing of the key itself
            raise ServiceError(f"the key of {self._block} is no service account's: {one_line(str(error), 150)}", 401) from None

    def _refresh(self, credentials: Credentials) -> None:
        """Blocks. https://developers.google.com/identity/protocols/oauth2/service-account"""
        from google.auth.exceptions import GoogleAuthError, RefreshError
        from google.auth.transport.requests import Request

        try:
            credentials.refresh(functools.partial(Request(), timeout=TIMEOUT))  # type: ignore[no-untyped-call]
        except RefreshError as error:
            said = one_line(str(error.args[0]) if error.args else "", 200)
            if error.retryable:
                raise ServiceError(f"Google gives no token for {self._block} just now ({said}); try again later", 503) from None
            raise ServiceError(f"Google refused the login of {self._block} ({said}); the author has to renew it", 401) from None
        except GoogleAuthError as error:
            raise ServiceError(f"Google cannot be asked for a token for {self._block} ({one_line(str(error), 200)})") from None
