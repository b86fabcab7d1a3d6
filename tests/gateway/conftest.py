"""Gateways for the tests, with sources saved on the real Prefect server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient

from chromium import browser
from prefect_routines.gateway.sources import WebhookSource

from .gateway_process import SECRET, Gateway
from .session_world import World

__all__ = ["browser"]
StartGateway = Callable[..., Gateway]


@flow
def nothing() -> None:
    """A flow that a deployment can be made of."""


@pytest.fixture(scope="session")
def sources(prefect_server: str) -> str:
    """The block for GitHub, and one with a bearer token."""
    WebhookSource(signature="github", secrets=[SECRET], identities=["docs-bot"]).save("github", overwrite=True)
    WebhookSource(signature="bearer", secrets=[SECRET], shape={"id_header": "X-Request-Id"}).save("pipeline", overwrite=True)
    return prefect_server


@pytest.fixture(scope="module")
def gateway(sources: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests of a module."""
    started = Gateway(tmp_path_factory.mktemp("gateway"), ROUTINES_GATEWAY_FAILURES_PER_MINUTE="10000")
    yield started
    assert started.stop() == 0
    assert "Unexpected" not in started.log, started.log


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start one with an environment of its own; it is gone when the test ends."""
    started: list[Gateway] = []

    def start(**environment: str) -> Gateway:
        started.append(Gateway(tmp_path / "home", **environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def deployment(prefect_server: str) -> tuple[str, str]:
    """Id and full name of a deployment of its own."""
    name = f"test-{uuid4().hex[:8]}"
    with get_client(sync_client=True) as client:
        assert isinstance(client, SyncPrefectClient)
        identity = client.create_deployment(flow_id=client.create_flow(nothing), name=name, entrypoint="x.py:nothing")
    return str(identity), f"nothing/{name}"


@pytest.fixture
def context(browser: Browser, world: World) -> Iterator[BrowserContext]:
    """A browser of its own, in which anything the page's policy has to stop is a failure."""
    context = browser.new_context(base_url=f"http://127.0.0.1:{world.gateway.port}", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
