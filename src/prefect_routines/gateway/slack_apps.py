"""Which Slack apps may send interactions: those whose block holds a signing secret, known to the gateway also while Prefect is away."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from prefect_routines.gateway.answers import Refused
from prefect_routines.gateway.signatures import SCHEMES, SignatureError, verify
from prefect_routines.gateway.sources import documents_of

_EVERY, _AT_MOST = 30.0, 5.0  # seconds between two looks at the blocks, and at most after a wrong signature
_PATIENCE = 2.0  # seconds for which somebody who clicks may be kept waiting for a look
_log = logging.getLogger(__name__)


@dataclass
class SlackApps:
    """The signing secrets of the Slack blocks, by the block's name; what was read last holds while Prefect is away."""

    known: dict[str, str] = field(default_factory=dict)
    asked_at: float = -_EVERY
    reached: bool = False
    reading: asyncio.Task[None] | None = None

    async def signers(self, headers: Any, raw: bytes) -> list[str]:
        """The blocks with whose secret a request is signed; empty if it is not to be believed.

        Raises:
            Refused: Nobody knows yet who may sign.
        """
        await self.look()
        found = self._signed(headers, raw)
        if not found and await self.look(_AT_MOST):
            found = self._signed(headers, raw)
        if not found and not self.reached:
            raise Refused(503, "the gateway has not heard from Prefect yet who may send interactions", retry_after=5)
        return found

    def _signed(self, headers: Any, raw: bytes) -> list[str]:
        found = []
        for name, secret in self.known.items():
            try:
                verify(SCHEMES["slack"], headers, raw, [secret], now=time.time())
                found.append(name)
            except SignatureError:
                continue
        return found

    async def look(self, after: float = _EVERY) -> bool:
        """Read the blocks, unless that was done a moment ago; who comes meanwhile waits for what is found, but not for long.

        Returns:
            Whether it was done.
        """
        if self.reading is None or (self.reading.done() and time.monotonic() - self.asked_at >= after):
            self.asked_at = time.monotonic()
            self.reading = asyncio.create_task(self._read())
        elif self.reading.done():
            return False
        await asyncio.wait([self.reading], timeout=_PATIENCE)
        return self.reading.done()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(20):
                documents = await documents_of("slack")
        except Exception as error:  # whatever a server or a proxy before it answers
            _log.warning("Prefect does not tell the Slack blocks (%s); what is known goes on to hold", type(error).__name__)
            return
        secrets = {str(one["name"]): str((one["data"] or {}).get("signing_secret") or "") for one in documents}
        self.known, self.reached = {name: secret for name, secret in secrets.items() if secret.strip()}, True
