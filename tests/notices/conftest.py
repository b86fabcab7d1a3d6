"""What the tests of notices share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from connectors.conftest import emulator
from gateway.conftest import start_gateway
from prefect_routines.notices.webhook import NoticeWebhook
from prefect_routines.store import Store

from .receiver import SECRET, Receiver, receiving

__all__ = ["emulator", "start_gateway"]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A fresh one."""
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}") as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A service that is told."""
    with receiving() as running:
        yield running


@pytest.fixture
async def hook(prefect_server: str, receiver: Receiver) -> str:
    """Its block's reference."""
    name = f"test-{uuid4().hex[:8]}"
    await NoticeWebhook(url=receiver.url, secret=SECRET).save(name)
    return f"notice-webhook/{name}"
