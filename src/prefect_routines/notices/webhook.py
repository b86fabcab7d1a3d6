"""Outgoing webhooks, signed as Standard Webhooks says: a block for each receiver, and one attempt at telling it.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator

from prefect_routines.errors import SettingsError
from prefect_routines.notices.told import Told, payload
from prefect_routines.notices.undelivered import NotDelivered, NotWanted
from prefect_routines.store import NoticeKind
from prefect_routines.visible import one_line

SLUG = "notice-webhook"
_CONNECT, _ANSWER = 10.0, 15.0  # seconds; "15s-30s is recommended"
_LONGEST_PAUSE = 86_400.0


class NoticeWebhook(Block):
    """A service that is told when sessions start, need a person and have finished. A routine names it in `notify`.

    Example:
        ```python
        from prefect_routines.notices.webhook import NoticeWebhook

        NoticeWebhook(url="https://ci.acme.com/routines", secret="whsec_...", kinds=["finished"]).save("ci")
        ```

        The receiver checks the headers `webhook-id`, `webhook-timestamp` and `webhook-signature` with any library for Standard
        Webhooks, and takes a `webhook-id` that it has seen before for the same notice.
    """

    model_config = ConfigDict(hide_input_in_errors=True)  # it may be a secret with a slip of the pen in it

    _block_type_name = "Notice Webhook"
    _block_type_slug = SLUG

    url: str = Field(description="Address that is posted to, http or https. It may be one of your own network.")
    secret: SecretStr = Field(description="Key of the signature: 'whsec_' and base64 of 24 to 64 bytes, as of `openssl rand -base64 32`.")
    kinds: list[NoticeKind] = Field(default=["started", "approval", "finished"], description="What it is told.")
    arguments: bool = Field(default=False, description="Whether the arguments of calls that wait for approval go along.")
    enabled: bool = Field(default=True, description="Off: nothing is sent. A receiver that answers 410 Gone switches itself off.")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment:
            raise ValueError("give an address that begins with https:// or http://")
        if "@" in parts.netloc:
            raise ValueError("the address holds an '@', as with a user or password; the signature tells who sends")
        return value

    @field_validator("secret")
    @classmethod
    def _key(cls, value: SecretStr) -> SecretStr:
        signing_key(value.get_secret_value())
        return value

    async def tell(self, told: Told) -> str:
        """Send a notice, once. Returns what the receiver said.

        Raises:
            NotWanted: Such notices are not wanted, or the receiver is gone.
            NotDelivered: It was not taken.
        """
        if not self.enabled:
            raise NotWanted("the block is switched off")
        if told.notice.kind not in self.kinds:
            raise NotWanted(f"the block does not want notices of the kind {told.notice.kind}")
        status = await self._post(told.notice.id, payload(told, arguments=self.arguments))
        if status == 410:
            await self._switch_off()
            raise NotWanted("the receiver answered 410 Gone; the block was switched off")
        return f"answered {status}"

    async def check(self) -> str:
        """Send a signed `ping`, which a receiver must take.

        Raises:
            NotDelivered: It did not.
        """
        body = {"type": "ping", "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "data": {}}
        status = await self._post(f"ntc-{uuid4().hex}", body)
        if status == 410:
            raise NotDelivered(f"{self._shown} answered 410 Gone: it wants no notices any more")
        return f"{self._shown} took a signed ping ({status}); it is told {', '.join(self.kinds)}{'' if self.enabled else '; switched off'}"

    @property
    def _shown(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{one_line(parts.netloc, 80)}"  # a path or query may be a secret

    async def _post(self, id_: str, body: Mapping[str, Any]) -> int:
        import httpx

        content = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "prefect-routines"}
        headers |= signed_headers(self.secret.get_secret_value(), id_, content, now=time.time())
        try:
            async with (
                httpx.AsyncClient(timeout=httpx.Timeout(_ANSWER, connect=_CONNECT), follow_redirects=False) as client,
                client.stream("POST", self.url, content=content, headers=headers) as answer,  # the body of the answer is nobody's concern
            ):
                status, after = answer.status_code, answer.headers.get("retry-after", "").strip()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NotDelivered(f"{self._shown} cannot be reached: {type(error).__name__} {one_line(str(error), 120)}".rstrip()) from error
        if 200 <= status < 300 or status == 410:
            return status
        if 300 <= status < 400:
            raise NotDelivered(f"{self._shown} answered {status}, a redirect, which is not followed; set the url of the block right")
        pause = min(float(after), _LONGEST_PAUSE) if after.isdecimal() and status in (429, 503) else None
        raise NotDelivered(f"{self._shown} answered {status}", seconds=pause)

    async def _switch_off(self) -> None:
        self.enabled = False
        if self._block_document_name:
            await self.save(self._block_document_name, overwrite=True)


def signing_key(secret: str) -> bytes:
    """The bytes of a secret.

    Raises:
        ValueError: It is none of Standard Webhooks.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError('the secret must be "whsec_" and base64 of 24 to 64 bytes: echo "whsec_$(openssl rand -base64 32)"')
    return key


def signed_headers(secret: str, id_: str, body: bytes, *, now: float) -> dict[str, str]:
    """The three headers of Standard Webhooks.

    Args:
        id_: Of the notice: the same with each attempt.
        now: Seconds since 1970, of this attempt.

    Raises:
        SettingsError: The secret is none.
    """
    try:
        key = signing_key(secret)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    at = str(int(now))
    signature = base64.b64encode(hmac.new(key, f"{id_}.{at}.".encode() + body, hashlib.sha256).digest()).decode()
    return {"webhook-id": id_, "webhook-timestamp": at, "webhook-signature": f"v1,{signature}"}
