"""Tokens of the gateway: for the fire endpoint of one deployment, or for people who look at sessions. Kept as hashes only."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from prefect_routines.errors import SettingsError
from prefect_routines.store import tables
from prefect_routines.store.database import Database

Scope = Literal["fire", "read", "steer", "approve"]
_table = tables.tokens
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH = 43  # digits to the base of 62 that hold 256 bits
_SHAPE = re.compile(r"rt_[0-9A-Za-z]{43}\Z")
_SHOWN = 9  # characters of a token that lists show: enough to tell two apart, of no use to a thief
_NOTED = timedelta(minutes=1)  # `last_used_at` is as exact as this: not every call shall cost a write


@dataclass(frozen=True, slots=True)
class Token:
    """A token as lists show it; the secret itself is nowhere.

    Attributes:
        deployment_id: The deployment that it belongs to; empty for a token that belongs to none.
        deployment: Its name, `flow/deployment`; without a deployment the one routine whose sessions it may see, or empty: all.
        name: What it is for. Of a token for sessions the person: what is done with it is journaled under this name.
        prefix: How the token begins.
        last_used_at: To the minute.
        scopes: What it may do, with spaces between: `fire`, `read`, `steer`, `approve`.
    """

    id: str
    deployment_id: str
    deployment: str
    name: str
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    scopes: str = "fire"

    def may(self, scope: Scope) -> bool:
        """Whether it allows this. Who may steer or approve may read, too."""
        given = self.scopes.split()
        return scope in given or (scope == "read" and not {"steer", "approve"}.isdisjoint(given))

    @property
    def reach(self) -> str:
        """What it is good for, in words: a deployment, a routine, or all of them."""
        return self.deployment or "all routines"


_shown = [_table.c[field.name] for field in fields(Token)]


def _token(row: Row[Any]) -> Token:
    return Token(**row._mapping)


def new_secret() -> str:
    """A new token: `rt_` and 32 random bytes in letters and digits, so that a double click selects it and scanners know it."""
    number, digits = int.from_bytes(secrets.token_bytes(32)), ""
    while number:
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return f"rt_{digits:0>{_LENGTH}}"


def _hash(secret: str) -> str:
    # A plain hash: 256 random bits cannot be guessed, however fast one can try. Slow hashes and salts are for what people make up.
    return hashlib.sha256(secret.encode()).hexdigest()


class Tokens:
    """The operations of the store on tokens."""

    _db: Database

    async def create_token(
        self, deployment_id: str, deployment: str, name: str = "", scopes: Sequence[Scope] = ("fire",)
    ) -> tuple[Token, str]:
        """Make a token for a deployment, or with an empty `deployment_id` for the sessions of one routine or of all.

        Returns:
            Its record, and the secret, which cannot be had again.

        Example:
            ```python
            token, secret = await store.create_token(str(deployment.id), "triage/production", "pipeline")
            ```
        """
        secret = new_secret()
        identity, made = f"tok-{uuid4().hex[:12]}", datetime.now(UTC)
        token = Token(identity, deployment_id, deployment, name, secret[:_SHOWN], made, None, None, " ".join(scopes))
        values = {field.name: getattr(token, field.name) for field in fields(token)} | {"sha256": _hash(secret)}

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(_table).values(**values))

        await self._db.write(work)
        return token, secret

    async def tokens(self) -> list[Token]:
        """All tokens, revoked ones too, the newest first."""
        return [_token(row) for row in await self._db.read(select(*_shown).order_by(_table.c.created_at.desc()))]

    async def token_of(self, secret: str) -> Token | None:
        """The token with this secret, unless it was revoked. Found by its hash, so the time that takes tells nothing about it."""
        if not _SHAPE.match(secret):
            return None
        rows = await self._db.read(select(*_shown).where(_table.c.sha256 == _hash(secret), _table.c.revoked_at.is_(None)))
        return _token(rows[0]) if rows else None

    async def token(self, token_id: str) -> Token | None:
        """The token with this id, unless it was revoked."""
        rows = await self._db.read(select(*_shown).where(_table.c.id == token_id, _table.c.revoked_at.is_(None)))
        return _token(rows[0]) if rows else None

    async def note_use(self, token: Token) -> None:
        """Write down that a token was used."""
        moment = datetime.now(UTC)
        if token.last_used_at is not None and moment - token.last_used_at < _NOTED:
            return

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(_table).where(_table.c.id == token.id).values(last_used_at=moment))

        await self._db.write(work)

    async def revoke_token(self, which: str) -> Token:
        """Revoke a token; from the next request on it opens nothing. Revoking it again changes nothing.

        Args:
            which: Its id, the beginning that lists show, or the token itself.

        Raises:
            SettingsError: There is none, or several begin so.
        """
        by_secret = _table.c.sha256 == _hash(which)
        rows = await self._db.read(select(*_shown).where(or_(_table.c.id == which, _table.c.prefix == which, by_secret)))
        if not rows:
            raise SettingsError("there is no such token; `routines token list` shows them")
        if len(rows) > 1:
            raise SettingsError(f"several tokens begin so ({', '.join(row.id for row in rows)}); give the id of one")
        moment = datetime.now(UTC)

        async def work(connection: AsyncConnection) -> None:
            mine = (_table.c.id == rows[0].id) & _table.c.revoked_at.is_(None)
            await connection.execute(update(_table).where(mine).values(revoked_at=moment))

        await self._db.write(work)
        return _token(rows[0])
