"""Sessions run for real: a Prefect server, a sandbox, a store. Only Claude is scripted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture
def prefect(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Prefect server, and an environment whose logins end with the test."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
        monkeypatch.setenv(name, "")
    return prefect_server
