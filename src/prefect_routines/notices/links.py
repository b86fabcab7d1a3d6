"""Signed links with which one person answers one form by e-mail. They show a page; what is on it is done with its button only.

A link says which form, with which calls, what is decided, for whom and until when, and is signed with a key that Prefect
holds. That it works once is the form's doing: it is answered once.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import astuple, dataclass
from typing import Any

from prefect_routines.errors import RoutinesError, SettingsError

BLOCK = "routines-answer-links"
"""The `secret` block with the key, the same for gateways, workers and plain runs; made when it is first needed."""
LONGEST = 4096
_PURPOSE = b"prefect-routines answer link v1"
_FRESH = 60.0  # seconds


class LinkRefused(RoutinesError):
    """A link that is not to be followed; the text says why.

    Args:
        status: HTTP status: 400 for one that is not ours, 410 for one that leads nowhere any more.
        form: Id of the form that a link of ours was about, if there is one.
    """

    def __init__(self, message: str, status: int = 400, form: str = "") -> None:
        super().__init__(message)
        self.status, self.form = status, form


@dataclass(frozen=True)
class AnswerLink:
    """What one link says.

    Args:
        form: Id of the form.
        calls: Digest of its calls, see `told.calls_digest`.
        decision: `approve`, `approve_all` or `deny`.
        person: Address of the one it was sent to.
        expires: Seconds since 1970.
    """

    form: str
    calls: str
    decision: str
    person: str
    expires: int

    def signed(self, key: bytes) -> str:
        """As it stands in an address."""
        said = json.dumps(list(astuple(self)), ensure_ascii=True, separators=(",", ":")).encode()
        return f"{_text(said)}.{_text(_mac(key, said))}"

    @classmethod
    def read(cls, token: str, key: bytes, *, now: float) -> AnswerLink:
        """From an address.

        Raises:
            LinkRefused: It is not ours, or its time is over.
        """
        wrong = LinkRefused("this link is not one of ours, or not all of it came along; open the whole link from the message")
        said, _, signature = token.partition(".")
        if len(token) > LONGEST:
            raise wrong
        try:
            raw = _bytes(said)
            if not hmac.compare_digest(_bytes(signature), _mac(key, raw)):
                raise wrong
            link = cls(*json.loads(raw))
        except (ValueError, TypeError):
            raise wrong from None
        if now > link.expires:
            raise LinkRefused("the time of this link is over; open the session instead", 410, link.form)
        return link


class LinkKey:
    """The key of the links, read from Prefect once a minute at most."""

    def __init__(self) -> None:
        self._known, self._at = b"", -_FRESH

    async def get(self) -> bytes:
        """The key.

        Raises:
            SettingsError: Prefect cannot be asked for it.
        """
        if not self._known or time.monotonic() - self._at > _FRESH:
            secret = await _kept()
            self._known, self._at = hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).digest(), time.monotonic()
        return self._known


async def _kept() -> str:
    """The block's value; of several processes that make it at once, one wins."""
    from prefect.blocks.system import Secret

    try:
        try:
            block: Any = await Secret.aload(BLOCK)
        except ValueError:
            with contextlib.suppress(ValueError):  # another process was first
                await Secret(value=secrets.token_urlsafe(32)).save(BLOCK)
            block = await Secret.aload(BLOCK)
    except Exception as error:  # whatever a server or a proxy before it answers
        raise SettingsError(
            f"the key of the answer links cannot be had from Prefect ({type(error).__name__}, block secret/{BLOCK}); is it up?"
        ) from error
    return str(block.get())


def _mac(key: bytes, said: bytes) -> bytes:
    return hmac.new(key, said, hashlib.sha256).digest()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None
    if _text(found) != text:  # one spelling each
        raise ValueError("no base64 of ours")
    return found
