"""The Prefect server goes away and comes back while a worker runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_process import PrefectProcess
from waiting import until

from .place import Place, alive


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrefectProcess]:
    made = PrefectProcess(tmp_path / "home")
    made.start()
    yield made
    made.stop()


@pytest.mark.timeout(400)
def test_a_worker_goes_on_when_the_server_comes_back(server: PrefectProcess, tmp_path: Path) -> None:
    """The same worker takes new runs afterwards and cancels them when asked; a run under way survives."""
    with Place(server.url, tmp_path / "place", "restart", {"PREFECT_HOME": str(server.home)}) as place:
        worker = place.worker()
        before = place.waiting()
        pid = place.pid(before)
        server.stop()
        assert alive(pid)
        server.start()
        after = place.waiting()
        later = place.pid(after)
        assert worker.process.poll() is None
        assert worker.zygote()
        place.set_state(after, type="CANCELLING")
        place.until(after, "CANCELLED")
        until(lambda: not alive(later))
        place.go()
        assert place.until(before, "COMPLETED")["run_count"] == 1
