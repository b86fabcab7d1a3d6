"""kill -9 when an annotation is at Grafana and the journal does not know: it is there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from e2e.harness.pool import Pool
from prefect_routines.connectors.grafana import Grafana

from . import grafana_service, message_routines
from .grafana_service import EDITOR
from .killed_runs import Killed, running

pytestmark = pytest.mark.timeout(600)
NOTE = {"dashboard": "checkout1", "text": "Deployed 1.2.3"}


@pytest.fixture(scope="module")
def pool(prefect_server: str) -> Iterator[Pool]:
    with running() as pool:
        yield pool


def test_an_annotation_is_found_at_grafana(pool: Pool, tmp_path: Path) -> None:
    """By its mark: the next run adds none, and says that it is done."""
    with grafana_service.running() as grafana:
        name = f"killed-{uuid4().hex[:8]}"
        Grafana(url=grafana.url, token=EDITOR).save(name)
        flow = message_routines.annotate_grafana
        with Killed(pool, tmp_path, flow, f"grafana/{name}", "grafana_annotate", **NOTE) as case:
            case.kill()
            assert len(grafana.annotations) == 1, "it was killed before it sent anything"
            state = case.retry()
            assert state.is_completed(), state
            assert [output.status for output in case.outputs] == ["done"]
            assert "(annotation 1)" in case.heard
        assert [annotation["text"] for annotation in grafana.annotations] == ["Deployed 1.2.3"]
