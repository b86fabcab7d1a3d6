"""Prometheus as a session asks it: a real server, and for what that would not say a small one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from uuid import uuid4

import pytest

from prefect_routines.connectors.http import ServiceError
from prefect_routines.connectors.prometheus import Prometheus
from prefect_routines.errors import ToolError
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT, run

from . import prometheus_server
from .http_service import BIG, Said, answered, serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with prometheus_server.running() as address:
        yield address


@pytest.fixture
def block(url: str) -> Prometheus:
    return Prometheus(url=url)


def constants(many: int) -> str:
    """An expression with many series, each there at all times."""
    return " or ".join(f'label_replace(vector({number}),"n","{number}","","")' for number in range(many))


async def test_a_query_shows_series_and_values(block: Prometheus, url: str) -> None:
    """One line for each series, as PromQL writes it."""
    host = url.removeprefix("http://")
    said = await answered(block, "prometheus_query", query="up")
    assert said.startswith(f'up{{instance="{host}",job="self"}} 1 at ')
    assert await answered(block, "prometheus_query", query="scalar(vector(7))", time="1000") == "7 at 1000"
    assert await answered(block, "prometheus_query", query='"text"', time="1000") == "text at 1000"
    assert await answered(block, "prometheus_query", query="vector(7)", time="1000") == "{} 7 at 1000"


async def test_a_query_that_matches_nothing_says_so(block: Prometheus) -> None:
    """An empty answer is no failure, and no guess either."""
    assert "matches nothing" in await answered(block, "prometheus_query", query="no_such_metric")


async def test_a_range_shows_each_point(block: Prometheus) -> None:
    """A line for each series, a word for each point."""
    said = await answered(block, "prometheus_query_range", query="vector(3)", start="0", end="120", step="60s")
    assert said == "{} 0:3 60:3 120:3"


async def test_moments_may_be_relative(block: Prometheus) -> None:
    """Claude does not know what time it is."""
    said = await answered(block, "prometheus_query_range", query="time()", start="now-10m", end="now", step="5m")
    points = [float(point.partition(":")[2]) for point in said.split()[1:]]
    assert [round(later - earlier) for earlier, later in pairwise(points)] == [300, 300]
    assert abs(points[-1] - time.time()) < 60


async def test_a_bad_query_brings_the_words_of_prometheus(block: Prometheus) -> None:
    """Claude reads where the expression is wrong."""
    with pytest.raises(ServiceError, match=r"Prometheus answered 400: .*1:4: parse error: unexpected end of input inside braces"):
        await answered(block, "prometheus_query", query="up{")


async def test_too_fine_a_step_brings_the_words_of_prometheus(block: Prometheus) -> None:
    """It says what to change."""
    with pytest.raises(ServiceError, match="exceeded maximum resolution of 11,000 points"):
        await answered(block, "prometheus_query_range", query="up", start="0", end="1000000000", step="1s")


async def test_the_firing_alert_is_listed_and_no_other(block: Prometheus) -> None:
    """With its labels, its annotations and its state."""
    said = await answered(block, "prometheus_alerts")
    assert '"alertname":"CheckoutDown","severity":"page"' in said
    assert "Checkout answers nobody" in said
    assert '"state":"firing"' in said
    assert "NeverTrue" not in said


async def test_rules_are_listed_by_type(block: Prometheus) -> None:
    """With state and expression, without the server's file names."""
    both = (await answered(block, "prometheus_rules")).splitlines()
    assert ['"state":"firing"' in line for line in both] == [True, False, False]
    assert '"name":"CheckoutDown"' in both[0]
    assert '"query":"sum by (job) (up)"' in await answered(block, "prometheus_rules", type="record")
    assert "CheckoutDown" not in await answered(block, "prometheus_rules", type="record")
    assert "rules.yml" not in "".join(both)


async def test_series_tell_which_labels_there_are(block: Prometheus) -> None:
    """As PromQL writes them; none is said to be none."""
    assert 'job="self"' in await answered(block, "prometheus_series", match='{__name__="up"}')
    assert await answered(block, "prometheus_series", match="no_such_metric") == "No series matches."


async def test_a_long_answer_is_read_in_pieces(block: Prometheus) -> None:
    """The last line says how to go on, and the pieces are the whole."""
    asked = {"query": constants(20), "start": "0", "end": "10000", "step": "10s"}
    pieces, offset = [], 0
    while True:
        piece, _, more = (await answered(block, "prometheus_query_range", **asked, offset=offset)).partition("\n\n[")
        pieces.append(piece)
        if not more:
            break
        offset = int(more.rpartition("offset=")[2].rstrip("]"))
    lines = "".join(pieces).splitlines()
    assert len(pieces) > 3
    assert len(lines) == 20
    assert all(line.count(":") == 1001 for line in lines)


async def test_an_answer_of_50_megabytes_is_not_swallowed(block: Prometheus) -> None:
    """Prometheus does give such an answer; Claude is told to ask for less."""
    now = int(time.time())
    with pytest.raises(ServiceError, match="larger than 10 MB and was not read; ask for less"):
        await answered(block, "prometheus_query_range", query=constants(200), start=str(now - 10_999), end=str(now), step="1s")


async def test_check_says_version_and_targets(block: Prometheus, url: str) -> None:
    """It asks for real."""
    said = await block.check()
    assert said.startswith("Prometheus 2.")
    assert said.endswith(f"at {url} with 1 targets; read only")


async def test_a_wrong_token_names_the_block() -> None:
    """A proxy before Prometheus that wants another token."""
    with serving(lambda asked: Said(b"who are you?", 401)) as proxy, pytest.raises(ServiceError, match="prometheus/test is wrong"):
        await answered(Prometheus(url=proxy.url, token="t0ken-of-mine"), "prometheus_query", query="up")
    assert proxy.asked[0].headers["authorization"] == "Bearer t0ken-of-mine"


async def test_a_missing_permission_names_the_block() -> None:
    """The login holds, but may not do that."""
    said = r"tenant 7 is not yours.*prometheus/test may not do that"
    with serving(lambda asked: Said({"error": "tenant 7 is not yours"}, 403)) as proxy, pytest.raises(ServiceError, match=said):
        await answered(Prometheus(url=proxy.url), "prometheus_alerts")


async def test_a_query_that_takes_too_long_brings_the_words_of_prometheus() -> None:
    """Prometheus says 503 then; after some tries Claude learns that the query was too much."""
    timeout = {"status": "error", "errorType": "timeout", "error": "query timed out in expression evaluation"}
    said = "503: query timed out in expression evaluation"
    with serving(lambda asked: Said(timeout, 503)) as slow, pytest.raises(ServiceError, match=said):
        await answered(Prometheus(url=slow.url), "prometheus_query", query="up")
    assert len(slow.asked) == 3


@pytest.mark.parametrize("body", [b'[{"status": "success"}]', b'{"status": "success"}', b"null"])
async def test_something_else_at_the_address_is_no_prometheus(body: bytes) -> None:
    """The author gave a wrong address; the error says so."""
    with serving(lambda asked: Said(body)) as other, pytest.raises(ServiceError, match=r"is no Prometheus; .*prometheus/test"):
        await answered(Prometheus(url=other.url), "prometheus_alerts")


async def test_a_page_instead_of_json_is_quoted() -> None:
    """A login page of a proxy, for example."""
    with serving(lambda asked: Said(b"<html>Log in, please")) as other, pytest.raises(ServiceError, match="no JSON: <html>Log in"):
        await answered(Prometheus(url=other.url), "prometheus_alerts")


async def test_a_rate_limit_says_until_when() -> None:
    """A hosted Prometheus has one."""
    limited = Said(b"", 429, {"Retry-After": "3600"})
    with serving(lambda asked: limited) as busy, pytest.raises(ServiceError, match=r"until \d\d:\d\d:\d\d UTC"):
        await answered(Prometheus(url=busy.url), "prometheus_query", query="up")


async def test_arguments_that_do_not_fit_are_named(block: Prometheus) -> None:
    """Before anything is asked."""
    with pytest.raises(ToolError, match="type: Input should be 'alert' or 'record'"):
        await answered(block, "prometheus_rules", type="alarm")


async def test_a_session_investigates_with_prometheus(prefect: str, block: Prometheus) -> None:
    """From the saved block to the results that Claude reads; a bad query costs an error, never the session."""
    name = f"test-{uuid4().hex[:8]}"
    await block.save(name)
    script = [
        say(call("prometheus_alerts")),
        say(call("prometheus_query", query="up{"), call("prometheus_query", query="sum(up)")),
        REPORT,
    ]
    with ScriptedClaude(script) as claude:
        ran = await run(claude, connectors=[f"prometheus/{name}"])
    assert ran.outcome.verdict == "done"
    _, first, second = ran.requests
    assert "CheckoutDown" in first.results[0].text
    bad, good = second.results
    assert "unexpected end of input" in bad.text
    assert good.text.startswith("{} 1 at ")
    asked = [entry for entry in ran.entries("tool.result") if entry["name"] != "report"]
    assert sorted(entry["is_error"] for entry in asked) == [False, False, True]
    assert all(entry["data"]["outside"] for entry in asked)


async def test_an_answer_too_large_for_the_connector_is_dropped_early() -> None:
    """50 MB from something that pretends to be Prometheus."""
    with serving(lambda asked: Said(b" " * BIG)) as big, pytest.raises(ServiceError, match="larger than 10 MB"):
        await answered(Prometheus(url=big.url), "prometheus_alerts")
