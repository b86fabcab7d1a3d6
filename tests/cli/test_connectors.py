"""`routines connectors` as a person sees it, against a real Prefect server and a real server behind a connector."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from connectors.prometheus_server import running
from prefect_routines.connectors.prometheus import Prometheus

from .terminal import Terminal


@pytest.fixture(scope="module")
def blocks(prefect_server: str) -> Iterator[None]:
    """One block that works and one that does not."""
    assert prefect_server
    with running() as url:
        Prometheus(url=url).save("works", overwrite=True)
        Prometheus(url="http://127.0.0.1:9").save("broken", overwrite=True)
        yield
    for name in ("works", "broken"):
        Prometheus.delete(name)


@pytest.mark.usefixtures("blocks")
def test_blocks_are_listed_with_their_tools_and_whether_they_work(online: Terminal) -> None:
    """One line for each login that works or does not, and the exit status tells."""
    done = online.run("connectors", "prometheus/works", "prometheus/broken")
    assert done.status == 1
    assert "✓ prometheus/works  Prometheus 2." in done.out
    assert "✗ prometheus/broken  Prometheus (http://127.0.0.1:9): cannot be reached" in done.out
    assert "reads  prometheus_alerts, prometheus_query, prometheus_query_range, prometheus_rules, prometheus_series" in done.out
    assert done.err == ""


@pytest.mark.usefixtures("blocks")
def test_one_alone_and_for_programs(online: Terminal) -> None:
    """With exit status 0 when it works."""
    done = online.run("connectors", "prometheus/works", "--json")
    assert done.status == 0
    [found] = json.loads(done.out)
    assert found["works"] is True
    assert {"name": "prometheus_query", "writes": False, "targets": []} in found["tools"]


@pytest.mark.usefixtures("blocks")
def test_all_blocks_of_the_server_by_default(online: Terminal) -> None:
    """Whatever their type, the blocks of others aside."""
    done = online.run("connectors", "--no-check", "--json")
    assert {"prometheus/works", "prometheus/broken"} <= {found["connector"] for found in json.loads(done.out)}


@pytest.mark.usefixtures("blocks")
def test_without_logging_in(online: Terminal) -> None:
    """`--no-check` asks nobody."""
    done = online.run("connectors", "prometheus/broken", "--no-check")
    assert (done.status, done.out.splitlines()[:1]) == (0, ["· prometheus/broken"]), done.out


def test_what_is_not_there_is_said(online: Terminal) -> None:
    """With how to make it."""
    done = online.run("connectors", "prometheus/nobody")
    assert done.status == 1
    assert "there is no block 'prometheus/nobody' on this Prefect server" in done.out


def test_a_server_that_is_gone_is_one_line(terminal: Terminal) -> None:
    """What to do stands in it."""
    done = terminal.run("connectors", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert "run `prefect server start`" in done.err
