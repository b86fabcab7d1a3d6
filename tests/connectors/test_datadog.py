"""Datadog as a session asks it, against a small server that answers as documented."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from prefect_routines.connectors.datadog import Datadog
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import ToolError
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT, run

from . import datadog_service
from .datadog_service import ALL, API_KEY, LOGS_ONLY, answer
from .http_service import BIG, Asked, HttpService, Said, answered, serving


@pytest.fixture
def datadog() -> Iterator[HttpService]:
    with datadog_service.running() as running:
        yield running


@pytest.fixture
def block(datadog: HttpService) -> Datadog:
    return Datadog(api_key=API_KEY, app_key=ALL, base_url=datadog.url)


async def test_logs_are_searched_piece_by_piece(block: Datadog, datadog: HttpService) -> None:
    """The newest first, with a cursor for the rest, and with what Datadog warns of."""
    asked = {"query": "service:checkout status:error", "start": "2026-03-01T12:00:00Z", "end": "2026-03-01T12:01:00Z"}
    first = (await answered(block, "datadog_logs_search", **asked, limit=3)).splitlines()
    assert first[:2] == ["[warning: an index is slow]", "[Datadog ran out of time: these are not all; search a shorter time]"]
    assert first[2].startswith(
        '{"timestamp":"2026-03-01T12:00:59.000Z","status":"error","service":"checkout","host":"web-1","message":"order 0'
    )
    assert first[2].endswith('"attributes":{"http":{"status_code":500}}}')
    assert first[-1] == "[more: cursor=3]"
    rest = (await answered(block, "datadog_logs_search", **asked, limit=3, cursor="3")).splitlines()
    assert len(rest) == 2 + 2
    body = datadog_service.body_of(datadog.asked[0])
    assert body["filter"] == {"query": asked["query"], "from": "1772366400000", "to": "1772366460000"}
    assert body["sort"] == "-timestamp"


async def test_metrics_show_each_point(block: Datadog, datadog: HttpService) -> None:
    """With the unit; a gap is a gap."""
    said = await answered(block, "datadog_metrics_query", query="avg:system.cpu.user{*} by {host}", start="1772366400", end="1772367000")
    assert said == "avg:system.cpu.user{host:web-1} [percent] 1772366400:0.5 1772366420:None"
    assert (datadog.asked[0].query["from"], datadog.asked[0].query["to"]) == ("1772366400", "1772367000")
    assert "matches nothing" in await answered(block, "datadog_metrics_query", query="none{*}")


async def test_monitors_are_listed_and_shown(block: Datadog) -> None:
    """The list without decoration; one with its thresholds and the groups that are not OK."""
    listed = (await answered(block, "datadog_monitors", query="status:Alert")).splitlines()
    assert listed == ['{"id":7,"name":"Checkout errors","status":"Alert","type":"metric alert"}', "[more: page=1]"]
    assert "[more" not in await answered(block, "datadog_monitors", page=1)
    shown, group = (await answered(block, "datadog_monitor", monitor=7)).splitlines()
    assert '"overall_state":"Alert"' in shown
    assert '"thresholds":{"critical":5}' in shown
    assert "renotify" not in shown
    assert group == 'group {"name":"host:web-1","status":"Alert","last_triggered_ts":1772366400}'


async def test_events_are_listed(block: Datadog) -> None:
    """What is nested twice comes on one line."""
    said = await answered(block, "datadog_events", query="source:deploy")
    assert '"title":"Deployed checkout","service":"checkout","source":"deploy","message":"1.2.3 is live"' in said


async def test_incidents_are_listed_and_shown(block: Datadog) -> None:
    """By public id too."""
    assert '"public_id":42' in await answered(block, "datadog_incidents")
    assert await answered(block, "datadog_incidents", query="title:nothing") == "No incident matches."
    shown = await answered(block, "datadog_incident", incident="42")
    assert '"severity":"SEV-2"' in shown
    assert '"customer_impact_scope":"all orders"' in shown
    assert "root_cause" not in shown


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("logs_search", {"query": "service:("}, "Datadog answered 400: unclosed parenthesis at 9"),
        ("logs_search", {"query": "*", "start": "a while ago"}, "start: write 'now'"),
        ("logs_search", {"query": "*", "limit": 5000}, "limit: Input should be less than or equal to 1000"),
        ("metrics_query", {"query": "nonsense"}, "Datadog answered 400: Error parsing query: unable to parse nonsense"),
        ("metrics_query", {"query": "late"}, "Datadog cannot answer the query: query timed out"),
        ("monitor", {"monitor": 8}, "Datadog answered 404: Monitor not found"),
        ("incident", {"incident": "43"}, "Datadog answered 404: no such incident"),
        ("incident", {"incident": "../monitor/7"}, "Datadog answered 404: no such incident"),
        ("incident", {"incident": ".."}, "incident: the id of one"),
    ],
)
async def test_what_cannot_be_read_is_told(block: Datadog, tool: str, arguments: dict[str, Any], said: str) -> None:
    """In Datadog's words where it has some."""
    with pytest.raises(ToolError, match=said):
        await answered(block, f"datadog_{tool}", **arguments)


async def test_check_says_what_may_be_read(block: Datadog, datadog: HttpService) -> None:
    """An application key with fewer scopes can less, and check says which."""
    assert await block.check() == f"Datadog at {datadog.url}: may read logs, metrics, monitors, events, incidents"
    fewer = Datadog(api_key=API_KEY, app_key=LOGS_ONLY, base_url=datadog.url)
    assert await fewer.check() == f"Datadog at {datadog.url}: may read logs; not metrics, monitors, events, incidents"


@pytest.mark.parametrize("keys", [{"api_key": "of-nobody", "app_key": ALL}, {"api_key": API_KEY, "app_key": "of-nobody"}])
async def test_a_wrong_key_names_the_block_and_what_may_be_wrong(datadog: HttpService, keys: dict[str, str]) -> None:
    """Datadog says no more than 'Forbidden', whatever it is."""
    wrong = Datadog(**keys, base_url=datadog.url)
    said = r"Forbidden \(a key is wrong, belongs to another site, or lacks a scope\).*datadog/"
    for work in (wrong.check(), answered(wrong, "datadog_monitors")):
        with pytest.raises(ServiceError, match=said) as caught:
            await work
        assert "of-nobody" not in str(caught.value)


async def test_a_missing_scope_is_told(datadog: HttpService) -> None:
    """The keys hold, but not for monitors."""
    fewer = Datadog(api_key=API_KEY, app_key=LOGS_ONLY, base_url=datadog.url)
    assert "order 0 failed" in await answered(fewer, "datadog_logs_search", query="*")
    with pytest.raises(ServiceError, match="403: Forbidden"):
        await answered(fewer, "datadog_monitors")


async def test_a_short_rate_limit_is_waited_for(block: Datadog, datadog: HttpService) -> None:
    """Datadog gives the seconds that are left, not the time."""
    limited = Said(
        {"errors": ["Too many requests"]}, 429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1", "X-RateLimit-Period": "10"}
    )

    def busy_once(asked: Asked) -> Said:
        return limited if len(datadog.asked) == 1 else answer(asked)

    datadog.answers = busy_once
    began = time.monotonic()
    assert "Checkout errors" in await answered(block, "datadog_monitor", monitor=7)
    assert 1 <= time.monotonic() - began < 5
    assert len(datadog.asked) == 2


async def test_a_long_rate_limit_says_until_when(block: Datadog, datadog: HttpService) -> None:
    """Claude can do something else meanwhile."""
    datadog.answers = lambda asked: Said({"errors": ["Too many requests"]}, 429, {"X-RateLimit-Reset": "3000"})
    with pytest.raises(ServiceError, match=r"limits the rate of requests until \d\d:\d\d:\d\d UTC"):
        await answered(block, "datadog_monitor", monitor=7)


async def test_strange_answers_are_told() -> None:
    """A failing Datadog, a page, another service, 50 MB."""
    for said, told in [
        (Said({"errors": ["Internal error"]}, 500), "status 500: Internal error; tried 3 times"),
        (Said(b"<html>"), "no JSON: <html>"),
        (Said([]), "is not Datadog"),
        (Said(b" " * BIG), "larger than 10 MB"),
    ]:
        with serving(lambda asked, said=said: said) as other, pytest.raises(ServiceError, match=told):  # type: ignore[misc]
            await answered(Datadog(api_key=API_KEY, app_key=ALL, base_url=other.url), "datadog_monitors")


@pytest.mark.parametrize(
    ("site", "address"),
    [("datadoghq.com", "api.datadoghq.com"), ("us5.datadoghq.com", "api.us5.datadoghq.com"), ("app.datadoghq.eu", "api.datadoghq.eu")],
)
def test_the_site_gives_the_address(site: str, address: str) -> None:
    """As in Datadog's table of sites; the pages of the site may be linked to."""
    hosts = Datadog(api_key="k", app_key="k", site=site).open("x").hosts
    assert hosts[0] == address
    assert f"app.{site.removeprefix('app.')}" in hosts


def test_a_site_is_no_address() -> None:
    """A slip that would send the keys somewhere else."""
    with pytest.raises(ValidationError, match="site"):
        Datadog(api_key="k", app_key="k", site="https://evil.example/?")


async def test_a_session_reads_datadog(prefect: str, block: Datadog) -> None:
    """From the saved block to what Claude reads; the keys are in nothing that is kept."""
    name = f"test-{uuid4().hex[:8]}"
    await block.save(name)
    script = [say(call("datadog_monitor", monitor=7), call("datadog_logs_search", query="service:(")), REPORT]
    with ScriptedClaude(script) as claude:
        ran = await run(claude, connectors=[f"datadog/{name}"])
    assert ran.outcome.verdict == "done"
    shown, failed = ran.requests[1].results
    assert "Checkout errors" in shown.text
    assert "unclosed parenthesis" in failed.text
    assert API_KEY not in str(ran.journal)
    assert ALL not in str(ran.journal)
