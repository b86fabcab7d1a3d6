"""What a person gives a routine to work on: recorded in the inbox like any delivery, so that only its id travels."""

from __future__ import annotations

import secrets
from pathlib import Path

from prefect_routines.errors import SettingsError

LARGEST = 25 * 1024 * 1024
"""Bytes, as GitHub's largest webhook payload."""


def read_payload(file: Path) -> str:
    """The text of a file; bytes that are no UTF-8 are kept as they are.

    Raises:
        SettingsError: It cannot be read, or is too large.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise SettingsError(f"payload {file}: {file.stat().st_size:,} bytes; {LARGEST:,} are taken")
        return file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise SettingsError(f"payload {file}: {error.strerror}") from None


async def record(body: str, kind: str) -> str:
    """Write a delivery of a person's into the inbox; its id. The same body again is the same delivery.

    Raises:
        StoreError: The store cannot be written.
    """
    from prefect_routines.store import Delivery, Store

    delivery_id = f"evt-{secrets.token_hex(12)}"
    async with await Store.open() as store:
        recorded, _ = await store.record_delivery(Delivery(delivery_id, "person", delivery_id, kind, body))
    return recorded.id
