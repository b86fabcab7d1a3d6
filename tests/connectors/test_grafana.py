"""Grafana as a session asks it and writes to it, against a small server that answers as documented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from prefect_routines.connectors.grafana import Grafana
from prefect_routines.connectors.http import ServiceError
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.events import Event
from prefect_routines.policy import Policy
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT, Ran, run

from . import grafana_service
from .grafana_service import EDITOR, VIEWER
from .http_service import BIG, Said, answered, planned, serving

NOTE = {"dashboard": "checkout1", "text": "Deployed 1.2.3", "time": "2026-03-01T12:00:00Z"}


@pytest.fixture
def grafana() -> Iterator[grafana_service.Grafana]:
    with grafana_service.running() as running:
        yield running


@pytest.fixture
def block(grafana: grafana_service.Grafana) -> Grafana:
    return Grafana(url=grafana.url, token=EDITOR)


# reading


async def test_dashboards_are_searched_page_by_page(block: Grafana) -> None:
    """With their uids; the last line says how to go on."""
    first = (await answered(block, "grafana_dashboards")).splitlines()
    assert first[0] == '{"uid":"d0","title":"Board 0"}'
    assert first[-1] == "[more: page=2]"
    second = (await answered(block, "grafana_dashboards", page=2)).splitlines()
    assert len(first) - 1 + len(second) == 70
    assert (await answered(block, "grafana_dashboards", query="nothing like it")) == "No dashboard matches."


async def test_a_dashboard_shows_panels_and_queries_without_decoration(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """Panels in folded rows too; no colours, no positions."""
    said = await answered(block, "grafana_dashboard", uid="checkout1")
    assert said.splitlines() == [
        f"{grafana.url}/d/checkout1/checkout",
        '{"uid":"checkout1","title":"Checkout","tags":["shop"]}',
        'variable {"name":"source","type":"datasource","value":"prom1"}',
        'variable {"name":"service","type":"query","value":["$__all"]}',
        'panel {"id":1,"title":"Errors","type":"timeseries"}',
        '  query {"refId":"A","datasource":"${source}","expr":"rate(errors{service=~\\"$service\\"}[$__rate_interval])"}',
        'panel {"id":2,"title":"Orders","type":"table"}',
        '  query {"refId":"A","datasource":"sql1","rawSql":"SELECT * FROM orders WHERE service = \'$service\'"}',
        'panel {"id":3,"title":"Read me","type":"text"}',
    ]


async def test_a_panel_is_queried_with_the_values_saved_with_the_dashboard(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """As the page would, for a range of time."""
    said = await answered(block, "grafana_panel", dashboard="checkout1", panel=1, start="1772366400", end="1772370000", points=60)
    assert said == 'A Value{service="api"} 1772366400:0.5 1772366460.5:null'
    (asked,) = grafana.queries
    assert (asked["from"], asked["to"]) == ("1772366400000", "1772370000000")
    (query,) = asked["queries"]
    assert query["datasource"] == {"uid": "prom1"}
    assert query["expr"] == 'rate(errors{service=~".*"}[$__rate_interval])'
    assert (query["intervalMs"], query["maxDataPoints"]) == (60_000, 60)


async def test_variables_of_claude_reach_expressions_and_never_sql(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """In SQL a value could end the statement and begin another."""
    mine = {"service": "x'; DROP TABLE orders; --"}
    await answered(block, "grafana_panel", dashboard="checkout1", panel=1, variables=mine)
    said = await answered(block, "grafana_panel", dashboard="checkout1", panel=2, variables=mine)
    first, second = (asked["queries"][0] for asked in grafana.queries)
    assert "DROP TABLE" in first["expr"]
    assert second["rawSql"] == "SELECT * FROM orders WHERE service = '$service'"
    assert said.splitlines() == ["A id\tnote", "1\ta\\tb", "2\ttwo\\nlines"]


async def test_a_query_of_claudes_own_has_no_field_but_the_expression(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """A data source that takes SQL finds none in it."""
    await answered(block, "grafana_query", datasource="sql1", expression="DROP TABLE orders")
    (query,) = grafana.queries[0]["queries"]
    languages = {"rawSql", "query", "rawQuery", "target", "expression", "sql"}
    assert query["expr"] == "DROP TABLE orders"
    assert not languages & set(query)


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("query", {"datasource": "prom1", "expression": "up{"}, "Grafana answered 400: query A: parse error: unexpected end of input"),
        ("query", {"datasource": "nowhere", "expression": "up"}, "Grafana answered 404: Data source not found"),
        ("query", {"datasource": "prom1", "expression": "up", "start": "now", "end": "now-1h"}, "start: a moment before `end`"),
        ("query", {"datasource": "prom1", "expression": "up", "start": "soon"}, "start: write 'now'"),
        ("dashboard", {"uid": "nowhere"}, "Grafana answered 404: Dashboard not found"),
        ("dashboard", {"uid": "../../org"}, "Grafana answered 404"),
        ("panel", {"dashboard": "checkout1", "panel": 9}, r"has no panel 9; it has 1 \(Errors\), 2 \(Orders\), 3 \(Read me\)"),
        ("panel", {"dashboard": "checkout1", "panel": 3}, "panel 3 of dashboard checkout1 has no queries"),
        ("alert_rules", {"state": "angry"}, "state: Input should be 'firing', 'pending' or 'inactive'"),
    ],
)
async def test_what_cannot_be_read_is_told_with_what_to_do(block: Grafana, tool: str, arguments: dict[str, Any], said: str) -> None:
    """In Grafana's words where it has some."""
    with pytest.raises(ToolError, match=said):
        await answered(block, f"grafana_{tool}", **arguments)


async def test_alerts_and_rules_are_listed(block: Grafana) -> None:
    """What fires, and which rules there are, with what is wrong with them."""
    alerts = await answered(block, "grafana_alerts")
    assert alerts.startswith('{"state":"active","labels":{"alertname":"CheckoutDown","severity":"page"}')
    rules = (await answered(block, "grafana_alert_rules")).splitlines()
    assert [('"lastError":"no such metric"' in line) for line in rules] == [False, True]
    assert "CheckoutDown" in await answered(block, "grafana_alert_rules", state="firing")
    assert await answered(block, "grafana_alert_rules", state="pending") == "There are no such rules."


async def test_annotations_are_listed_newest_first(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """With times that people read, by tag, and with a way to older ones."""
    grafana.annotations += [
        {"id": number, "dashboardUID": "checkout1", "time": 1_772_366_400_000 + number, "tags": ["deploy"], "text": f"<b>v{number}</b>"}
        for number in range(3)
    ]
    asked = {"start": "2026-03-01", "end": "2026-03-02"}
    said = (await answered(block, "grafana_annotations", **asked, limit=2)).splitlines()
    assert said[0].startswith('{"id":2,"time":"2026-03-01T12:00:00+00:00","dashboardUID":"checkout1","text":"v2","tags":["deploy"]')
    assert said[-1] == "[there may be more: end=1772366400]"
    assert await answered(block, "grafana_annotations", **asked, tags=["no such tag"]) == "There are no annotations."


# the login


async def test_check_says_who_and_what_it_may_do(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """The token of a viewer may not annotate, and check says so."""
    assert await block.check() == f"Grafana 11.3.0 at {grafana.url}, organization Main Org.: reads and annotates"
    viewer = Grafana(url=grafana.url, token=VIEWER)
    assert (await viewer.check()).endswith("reads; the token may not annotate")


async def test_a_wrong_token_names_the_block(grafana: grafana_service.Grafana) -> None:
    """And not the token."""
    wrong = Grafana(url=grafana.url, token="glsa_wrong")
    for work in (wrong.check(), answered(wrong, "grafana_alerts")):
        with pytest.raises(ServiceError, match=r"401: Invalid API key. The login of grafana/.* is wrong or has expired") as caught:
            await work
        assert "glsa_wrong" not in str(caught.value)


async def test_the_organization_is_named_in_each_request(grafana: grafana_service.Grafana) -> None:
    """For a login that belongs to several."""
    await answered(Grafana(url=grafana.url, token=EDITOR, organization=7), "grafana_alerts")
    assert grafana.service.asked[0].headers["x-grafana-org-id"] == "7"


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("dashboard", {"uid": "x"}),
        ("dashboards", {}),
        ("alerts", {}),
        ("alert_rules", {}),
        ("annotations", {}),
        ("query", {"datasource": "x", "expression": "up"}),
    ],
)
async def test_something_else_at_the_address_is_no_grafana(tool: str, arguments: dict[str, str]) -> None:
    """JSON of another service, a page, and 50 MB of nothing."""
    strange = [(b"7", "is no Grafana; .*grafana/test"), (b"<html>Log in", "no JSON: <html>Log in"), (b" " * BIG, "larger than 10 MB")]
    for body, said in strange:
        with serving(lambda asked, body=body: Said(body)) as other, pytest.raises(ServiceError, match=said):  # type: ignore[misc]
            await answered(Grafana(url=other.url, token=EDITOR), f"grafana_{tool}", **arguments)


# writing


async def test_an_annotation_is_planned_and_not_sent(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """The plan is exactly what goes out; markup in the text stays text."""
    async with planned(block, "grafana_annotate", **{**NOTE, "text": "a <img src=//x> & b", "panel": 1, "tags": ["deploy"]}) as plan:
        assert grafana.annotations == []
        assert plan.request["text"] == "a &lt;img src=//x&gt; &amp; b"
        assert (plan.request["panelId"], plan.request["time"]) == (1, 1_772_366_400_000)
        assert await plan.find() is None
        said = await plan.send()
        assert said == f"Annotated {grafana.url}/d/checkout1/checkout (annotation 1)"
        assert {name: grafana.annotations[0][name] for name in plan.request} == plan.request
        assert await plan.find() == said


async def test_what_cannot_be_annotated_is_told_before_anything_is_recorded(block: Grafana) -> None:
    """A dashboard or a panel that is not there, in a rehearsal too."""
    for arguments, said in [({"dashboard": "nowhere"}, "404: Dashboard not found"), ({"panel": 9}, "has no panel 9")]:
        with pytest.raises(ToolError, match=said):
            async with planned(block, "grafana_annotate", **{**NOTE, **arguments}):
                pass


async def test_a_missing_permission_is_told(grafana: grafana_service.Grafana) -> None:
    """In Grafana's words, with the block's name."""
    async with planned(Grafana(url=grafana.url, token=VIEWER), "grafana_annotate", **NOTE) as plan:
        with pytest.raises(ServiceError, match=r"Permissions needed: annotations:create.*grafana/test may not do that"):
            await plan.send()


async def test_a_lost_answer_is_no_second_annotation(block: Grafana, grafana: grafana_service.Grafana) -> None:
    """The write is not repeated; it is found by its mark."""
    grafana.loses_answers = True
    async with planned(block, "grafana_annotate", **NOTE) as plan:
        with pytest.raises(OutcomeUnknown):
            await plan.send()
        assert await plan.find() is not None
    assert len(grafana.annotations) == 1


@pytest.mark.parametrize("body", [b"<html>proxy", b"{}", b"[]", b"", b"7"])
async def test_an_answer_that_cannot_be_read_is_no_refusal(block: Grafana, grafana: grafana_service.Grafana, body: bytes) -> None:
    """Grafana has taken the annotation, whatever stands between has made of its answer."""
    answers = grafana.service.answers
    grafana.service.answers = lambda asked: Said(body) if asked.method == "POST" else answers(asked)
    async with planned(block, "grafana_annotate", **NOTE) as plan:
        with pytest.raises(OutcomeUnknown, match="whether it has the annotation is unknown"):
            await plan.send()


# sessions


async def in_session(block: Grafana, *calls: dict[str, Any], **settings: Any) -> Ran:
    name = f"test-{uuid4().hex[:8]}"
    await block.save(name)
    with ScriptedClaude([say(call("grafana_annotate", **arguments)) for arguments in calls] + [REPORT]) as claude:
        return await run(claude, connectors=[f"grafana/{name}"], **settings)


async def test_no_annotation_without_a_rule(prefect: str, block: Grafana, grafana: grafana_service.Grafana) -> None:
    """Claude and the author read which rule would allow it."""
    ran = await in_session(block, NOTE)
    refused = ran.entries("tool.result")[0]
    assert refused["is_error"]
    assert "policy allow=['grafana_annotate(dashboard=checkout1)']" in refused["content"]
    assert grafana.annotations == []


async def test_a_rule_allows_as_many_annotations_as_it_says(prefect: str, block: Grafana, grafana: grafana_service.Grafana) -> None:
    """One, there; the second is refused, and so is another dashboard."""
    policy = Policy(allow=["grafana_annotate(dashboard=checkout1) x1"])
    ran = await in_session(block, {**NOTE, "dashboard": "d1"}, NOTE, {**NOTE, "text": "again"}, policy=policy)
    assert [entry["is_error"] for entry in ran.entries("tool.result")] == [True, False, True, False]
    assert [annotation["text"] for annotation in grafana.annotations] == ["Deployed 1.2.3"]
    (output,) = ran.outputs
    assert (output.tool, output.target, output.status) == ("grafana_annotate", "checkout1", "done")
    assert EDITOR not in str(ran.journal)


async def test_an_annotation_whose_answer_was_lost_is_done_once(prefect: str, block: Grafana, grafana: grafana_service.Grafana) -> None:
    """The session looks it up and tells Claude that it is there."""
    grafana.loses_answers = True
    ran = await in_session(block, NOTE, policy=Policy(allow=["grafana_annotate(dashboard=checkout1) x1"]))
    assert "(annotation 1)" in ran.entries("tool.result")[0]["content"]
    assert (len(grafana.annotations), ran.outputs[0].status) == (1, "done")


async def test_a_rehearsal_leaves_grafana_as_it_was(prefect: str, block: Grafana, grafana: grafana_service.Grafana) -> None:
    """The annotation is captured exactly as it would be sent."""
    ran = await in_session(block, NOTE, policy=Policy(allow=["grafana_annotate"]), rehearsal=True)
    assert grafana.annotations == []
    assert {asked.method for asked in grafana.service.asked} == {"GET"}
    (output,) = ran.outputs
    assert (output.status, output.request["text"], output.request["dashboardUID"]) == ("captured", "Deployed 1.2.3", "checkout1")


async def test_a_run_started_from_outside_writes_only_to_the_dashboard_of_the_rule(
    prefect: str, block: Grafana, grafana: grafana_service.Grafana
) -> None:
    """A rule that leaves the dashboard to Claude allows nothing then."""
    name = f"test-{uuid4().hex[:8]}"
    await block.save(name)
    event = Event(id="e1", source="webhook", kind="alert")
    with ScriptedClaude([say(call("grafana_annotate", **NOTE)), REPORT]) as claude:
        ran = await run(claude, connectors=[f"grafana/{name}"], policy=Policy(allow=["grafana_annotate(dashboard=*)"]), event=event)
    assert "leaves dashboard open" in ran.entries("tool.result")[0]["content"]
    assert grafana.annotations == []
