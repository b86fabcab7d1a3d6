"""A pool with one worker for the tests that do not harm it, and empty pools for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from .place import Place


@pytest.fixture
def make_place(prefect_server: str, tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    """Makes a pool of its own for a test."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Place(prefect_server, tmp_path / name, f"{name}-{tmp_path.name}"))


@pytest.fixture(scope="module")
def shared(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One pool with one worker for each module, for tests that leave it as it is."""
    with Place(prefect_server, tmp_path_factory.mktemp("shared"), f"shared-{uuid4().hex[:8]}") as place:
        place.worker()
        yield place


@pytest.fixture
def place(shared: Place, tmp_path: Path) -> Place:
    """The shared pool, with a directory of the test's own."""
    return Place(shared.api_url, tmp_path, shared.pool, shared.env, shared.workers)
