"""What the tests of whole runs share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from chromium import browser
from prefect_routines.store import Store

pytest.register_assert_rewrite("e2e.harness.case")  # its asserts say what they saw

from .harness.pool import Pool  # noqa: E402

__all__ = ["browser"]


@pytest.fixture(scope="session")
def pool(prefect_server: str) -> Iterator[Pool]:
    """A process that forks runners; see harness/forks.py. The store has its tables, so all runs make the same writes."""

    async def make_tables() -> None:
        await (await Store.open()).close()

    asyncio.run(make_tables())
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of its own."""
    page = browser.new_page(viewport={"width": 1300, "height": 1400})
    yield page
    page.close()
