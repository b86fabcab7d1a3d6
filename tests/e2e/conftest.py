"""What the tests of whole runs share."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from prefect_routines.store import Store

pytest.register_assert_rewrite("e2e.harness.case")  # its asserts say what they saw

from .harness.pool import Pool  # noqa: E402

SHOTS = os.environ.get("TEST_SCREENSHOTS")  # a directory, for a person who wants to look
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def pool(prefect_server: str) -> Iterator[Pool]:
    """A process that forks runners; see harness/forks.py. The store has its tables, so all runs make the same writes."""

    async def make_tables() -> None:
        await (await Store.open()).close()

    asyncio.run(make_tables())
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab of its own."""
    page = browser.new_page(viewport={"width": 1300, "height": 1400})
    yield page
    page.close()
