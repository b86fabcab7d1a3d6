"""Who may see and steer sessions: a bearer token, or the cookie that the session page gives for one."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request

from prefect_routines.errors import SettingsError
from prefect_routines.gateway.answers import Refused
from prefect_routines.gateway.limits import TooMany
from prefect_routines.gateway.service import Service
from prefect_routines.gateway.signatures import find_header
from prefect_routines.steering.acts import Person
from prefect_routines.store import Scope, SessionRecord, Token

COOKIE = "routines_session_page"
HOURS = 12
"""After which a person has to sign in again."""
_STEERS = 120  # acts of one token in a minute


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Args:
        token: With which he does.
        person: Under whose name what he does is journaled.
    """

    token: Token
    person: Person

    def may(self, scope: Scope) -> bool:
        """Whether he may do this at all."""
        return self.token.may(scope)

    def sees(self, record: SessionRecord) -> bool:
        """Whether this session is one of his."""
        if self.token.deployment_id:
            return record.deployment_id == self.token.deployment_id
        return self.token.deployment in ("", record.routine)

    def need(self, scope: Scope) -> None:
        """Raises:
        Refused: 403, he may not.
        """
        if not self.may(scope):
            has = self.token.scopes.replace(" ", ", ")
            raise Refused(403, f"this token may not {scope} (it may: {has}); `routines token create --scope {scope}` makes one that may")


async def visitor(service: Service, request: Request) -> Visitor:
    """Who calls the session API.

    Raises:
        Refused: 401 without a token that is known.
        TooMany: This address has tried too many.
    """
    kind, _, secret = (find_header(request.scope["headers"], "Authorization") or "").partition(" ")
    token = await service.store.token_of(secret.strip()) if kind.lower() == "bearer" else None
    if token is None:
        service.failed(request)
        raise Refused(401, "there is no bearer token, or it is not known; `routines token create --scope read --name YOU` makes one")
    await service.in_time(service.store.note_use(token))
    return _visitor(token, "api")


def _visitor(token: Token, via: str) -> Visitor:
    return Visitor(token, Person(token.name or token.id, via))


async def record_for(service: Service, who: Visitor, session_id: str) -> SessionRecord:
    """The session, if there is one and he may see it; nobody learns which of the two it is.

    Raises:
        Refused: 403 or 404.
    """
    who.need("read")
    record = await service.store.session(session_id)
    if record is None or not who.sees(record):
        raise Refused(404, "there is no such session")
    return record


def count(service: Service, who: Visitor) -> None:
    """Count something that changes a session.

    Raises:
        TooMany: This token has done a lot in the last minute.
    """
    seconds = service.rates.take(f"steer {who.token.id}", _STEERS)
    if seconds:
        raise TooMany(f"one token may act on sessions {_STEERS} times in a minute", seconds)


def page_key(home: Path) -> bytes:
    """The key with which cookies are signed, made at first use and kept in a file of the gateway's own.

    Raises:
        SettingsError: It can be neither read nor written.
    """
    place = home / "page-key"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not place.exists():
            _make(place)
    except OSError as error:
        raise SettingsError(f"the key for the session page cannot be kept in {place}: {error.strerror}; set ROUTINES_HOME") from error
    key = place.read_bytes()
    if len(key) != 32:
        raise SettingsError(f"{place} is damaged; remove it, and the gateway makes a new one (people then sign in again)")
    return key


def _make(place: Path) -> None:
    """Whole or not at all: of several gateways that start at once, one makes it."""
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".page-key-") as file:  # readable by us alone
        file.write(secrets.token_bytes(32))
        file.flush()
        with contextlib.suppress(FileExistsError):
            os.link(file.name, place)


def cookie(key: bytes, token: Token, now: float) -> str:
    """What the browser keeps: which token, until when, and our signature. The token's secret is not in it."""
    until = int(now) + HOURS * 3600
    return f"{token.id}.{until}.{_signature(key, token.id, until)}"


def _signature(key: bytes, token_id: str, until: int) -> str:
    return hmac.new(key, f"session page {token_id} {until}".encode(), hashlib.sha256).hexdigest()


async def signed_in(service: Service, request: Request) -> Visitor | None:
    """Who looks at a page; None if nobody has signed in, it is too long ago, or the token was revoked."""
    token_id, _, rest = (request.cookies.get(COOKIE) or "").partition(".")
    until, _, signature = rest.partition(".")
    if not (until.isascii() and until.isdigit() and len(until) < 15):
        return None
    if not hmac.compare_digest(signature.encode(), _signature(service.page_key, token_id, int(until)).encode()):
        return None
    if int(until) < time.time():
        return None
    token = await service.store.token(token_id)
    return _visitor(token, "page") if token is not None and token.may("read") else None


def own_origin(service: Service, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from one of our own pages. Browsers say so themselves; what says nothing is not believed.

    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(headers.get("origin") or "")
    return bool(origin.netloc) and origin.netloc in (headers.get("host"), urlsplit(service.url).netloc)
