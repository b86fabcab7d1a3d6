"""Who may send webhooks: a block for each source, known to the gateway also while Prefect is away."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from prefect.blocks.core import Block
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from prefect_routines.events import Source
from prefect_routines.gateway.signatures import SCHEMES, Scheme
from prefect_routines.gateway.webhooks import Shape
from prefect_routines.settings import first_problem
from prefect_routines.visible import one_line

SLUG = "webhook-source"
# A delivery's source decides how far its text is trusted; no block may pass for one of ours.
RESERVED = frozenset(get_args(Source)) - {"github"}
_EVERY = 30.0  # seconds between two looks at the blocks
_AT_MOST = 5.0  # seconds between two looks that a failed signature may cause
_PATIENCE = 3.0  # seconds that a sender may be kept waiting for such a look
_PAGE = 200
_log = logging.getLogger(__name__)


class WebhookSource(Block):
    """A sender of webhooks: how it signs, with which secrets, and where its deliveries say what.

    The block's name is the source's: deliveries come to `/hooks/NAME` of the gateway. GitHub's come to `/hooks/github`.

    Example:
        ```python
        from prefect_routines.gateway.sources import WebhookSource

        WebhookSource(signature="github", secrets=["..."], identities=["acme-app[bot]"]).save("github")
        WebhookSource(signature="bearer", secrets=["..."], shape={"preset": "alertmanager"}, quiet_after=1440).save("alerts")
        ```

        To replace a secret without a gap: put the new one first, change it at the sender, take the old one away.
    """

    _block_type_name = "Webhook Source"
    _block_type_slug = SLUG

    signature: Literal["github", "standard", "pagerduty", "sentry", "slack", "bearer", "basic", "custom"] = Field(
        description="How deliveries prove where they come from. 'standard': Standard Webhooks. 'bearer': the secret in Authorization: "
        "Bearer. 'basic': as the password. 'custom': as `scheme` says."
    )
    secrets: list[SecretStr] = Field(
        description="The secrets that hold: one, or two while one is being replaced.", min_length=1, max_length=10
    )
    scheme: Scheme | None = Field(default=None, description="For 'custom': which header holds what.")
    shape: Shape = Field(default_factory=Shape, description="Where deliveries say their kind, id and labels, or a preset that knows it.")
    identities: list[str] = Field(
        default_factory=list,
        description="Logins under which our routines write there, e.g. 'docs-bot' or 'acme-app[bot]': what they cause starts no routine "
        "that does not ask for it.",
    )
    repeats: bool = Field(
        default=False,
        description="For senders without ids that may say the same twice and mean it, such as a pipeline after each deploy. By default the "
        "same body again is a delivery sent twice.",
    )
    quiet_after: int | None = Field(default=None, ge=1, description="Minutes of silence after which an alarm is raised. Empty: none.")
    rate_per_minute: int = Field(default=6000, ge=1, description="Deliveries taken in a minute; more are told to wait.")
    max_body: int | None = Field(default=None, ge=1, description="Most bytes of a delivery. Empty: what the gateway takes.")

    @field_validator("secrets")
    @classmethod
    def _not_empty(cls, value: list[SecretStr]) -> list[SecretStr]:
        if any(not secret.get_secret_value().strip() for secret in value):
            raise ValueError("a secret is empty: then anybody could sign")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.signature == "custom") != (self.scheme is not None):
            raise ValueError("`scheme` belongs to signature='custom', and that needs it")
        return self

    def how(self) -> Scheme:
        """How it signs."""
        return self.scheme or SCHEMES[self.signature]

    def known_secrets(self) -> list[str]:
        """The secrets that hold now."""
        return [secret.get_secret_value() for secret in self.secrets]


class Sources:
    """All sources, read from Prefect now and then. What was read last holds until Prefect answers again.

    With a key they are also kept on disk, encrypted, for a gateway that starts while Prefect is away. Secrets are never on disk in
    clear, and a key beside what it encrypts would be no better than that: so it comes from the environment, or there is no file.

    Args:
        file: Where they are kept.
        key: The key; None to keep them in memory only.
    """

    def __init__(self, file: Path | None = None, key: str | None = None) -> None:
        self._file = file if key else None
        self._key = key
        self._known: dict[str, WebhookSource] = {}
        self.origin: Literal["nowhere", "prefect", "disk"] = "nowhere"
        self.reached = False  # whether Prefect answered when it was last asked
        self._asked_at = -_AT_MOST
        self._reading: asyncio.Task[None] | None = None
        self._complained = ""
        self._problems: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self._open_file()
        await self._waited(self._read_once())
        self._refreshing = asyncio.create_task(self._refresh(), name="sources")
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in (self._refreshing, self._reading):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def get(self, name: str) -> WebhookSource | None:
        """The source of that name."""
        return self._known.get(name)

    async def identities(self, source: str) -> Collection[str]:
        """The logins under which our routines write at a source; for 'github' at all that sign as GitHub does."""
        return {
            who
            for name, one in self._known.items()
            if name == source or (source, one.signature) == ("github", "github")
            for who in one.identities
        }

    async def look_again(self) -> bool:
        """Read the blocks now, unless that was done a moment ago: one may be new, or its secret changed. Whether it was done."""
        if time.monotonic() - self._asked_at < _AT_MOST:
            return False
        await self._waited(self._read_once())
        return True

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_EVERY if self.reached else _AT_MOST)
            await asyncio.shield(self._read_once())

    async def _waited(self, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task], timeout=_PATIENCE)

    def _read_once(self) -> asyncio.Task[None]:
        """The reading under way, or a new one."""
        if self._reading is None or self._reading.done():
            self._asked_at = time.monotonic()
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(20):
                documents = await documents_of(SLUG)
        except Exception as error:  # whatever a server or a proxy before it answers: what is known goes on to hold
            self.reached = False
            self._complain(f"Prefect does not tell the webhook sources ({type(error).__name__}: {one_line(str(error), 200)})")
            return
        self.reached, self.origin, self._complained = True, "prefect", ""
        self._take(documents)
        try:
            self._write_file(documents)
        except OSError as error:
            _log.warning("The sources cannot be kept at %s: %s", self._file, error.strerror)

    def _take(self, documents: list[dict[str, Any]]) -> None:
        self._known, problems = _sort(documents)
        for name, problem in problems.items():
            if self._problems.get(name) != problem:
                _log.warning("The block %s/%s takes no deliveries: %s", SLUG, one_line(name), problem)
        self._problems = problems

    def _complain(self, text: str) -> None:
        if text != self._complained:
            _log.warning("%s; %s", text, "what is known goes on to hold" if self.origin != "nowhere" else "no webhook can be taken yet")
        self._complained = text

    def _seal(self) -> Any:
        from cryptography.fernet import Fernet

        return Fernet(base64.urlsafe_b64encode(hashlib.sha256(str(self._key).encode()).digest()))

    def _open_file(self) -> None:
        from cryptography.fernet import InvalidToken

        if self._file is None:
            return
        try:
            self._take(json.loads(self._seal().decrypt(self._file.read_bytes())))
        except FileNotFoundError:
            return
        except (InvalidToken, OSError, ValueError) as error:
            _log.warning("The sources kept at %s cannot be read (%s); they come from Prefect", self._file, type(error).__name__)
            return
        self.origin = "disk"

    def _write_file(self, documents: list[dict[str, Any]]) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
            kept.write(self._seal().encrypt(json.dumps(documents).encode()))
        beside.replace(self._file)


async def documents_of(slug: str) -> list[dict[str, Any]]:
    """Name and data of all blocks of a type, secrets too, in as many requests as it takes."""
    from prefect import get_client

    found: list[dict[str, Any]] = []
    async with get_client() as client:
        while True:
            asked = {"block_types": {"slug": {"any_": [slug]}}, "include_secrets": True, "limit": _PAGE, "offset": len(found)}
            page = (await client.request("POST", "/block_documents/filter", json=asked)).json()
            found += [{"name": one["name"], "data": one["data"]} for one in page]
            if len(page) < _PAGE:
                return found


def _sort(documents: list[dict[str, Any]]) -> tuple[dict[str, WebhookSource], dict[str, str]]:
    """The sources by name, and what is wrong with the blocks that are none."""
    problems = {str(one["name"]): problem for one in documents if (problem := _problem(str(one["name"]), one["data"]))}
    good = {str(one["name"]): WebhookSource.model_validate(one["data"]) for one in documents if str(one["name"]) not in problems}
    return good, problems


def _problem(name: str, data: Mapping[str, Any]) -> str | None:
    if name in RESERVED:
        return "the name stands for something else; give it another"
    try:
        source = WebhookSource.model_validate(data)
    except ValidationError as error:  # its text would show the input, secrets too
        return first_problem(error)
    if name == "github" and source.signature != "github":
        return "under this name only GitHub's signature is taken; give it another"
    return None
