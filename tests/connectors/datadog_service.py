"""A Datadog that answers as its documentation says, and knows one API key and two application keys.

https://docs.datadoghq.com/api/latest/
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from .http_service import Asked, HttpService, Said, serving

API_KEY, ALL, LOGS_ONLY = "dd-api-key-0123456789", "dd-app-key-of-all-scopes", "dd-app-key-of-logs-only"
LOGS = [
    {
        "id": f"log{number}",
        "type": "log",
        "attributes": {
            "timestamp": f"2026-03-01T12:00:{59 - number:02}.000Z",
            "status": "error",
            "service": "checkout",
            "host": "web-1",
            "message": f"order {number} failed",
            "tags": ["env:prod"],
            "attributes": {"http": {"status_code": 500}},
        },
    }
    for number in range(5)
]
EVENT = {
    "id": "ev1",
    "type": "event",
    "attributes": {
        "timestamp": "2026-03-01T12:00:00.000Z",
        "message": "1.2.3 is live",
        "tags": ["service:checkout"],
        "attributes": {
            "title": "Deployed checkout",
            "service": "checkout",
            "sourcecategory": "deploy",
            "evt": {"id": "1", "source_id": 36},
        },
    },
}
MONITOR = {
    "id": 7,
    "name": "Checkout errors",
    "type": "metric alert",
    "query": "avg(last_5m):sum:errors{service:checkout} > 5",
    "message": "Page @pagerduty",
    "overall_state": "Alert",
    "tags": ["service:checkout"],
    "options": {"thresholds": {"critical": 5}, "notify_audit": False, "renotify_interval": 0},
    "state": {"groups": {"host:web-1": {"name": "host:web-1", "status": "Alert", "last_triggered_ts": 1_772_366_400}}},
}
INCIDENT = {
    "id": "00000000-0000-0000-1234-000000000000",
    "type": "incidents",
    "attributes": {
        "public_id": 42,
        "title": "Checkout is down",
        "created": "2026-03-01T12:00:00.000Z",
        "customer_impacted": True,
        "customer_impact_scope": "all orders",
        "state": "active",
        "fields": {"severity": {"type": "dropdown", "value": "SEV-2"}, "root_cause": {"type": "textbox", "value": None}},
    },
}
FORBIDDEN = Said({"errors": ["Forbidden"]}, 403)


def answer(asked: Asked) -> Said:  # noqa: PLR0911  # one for each endpoint
    """What Datadog says."""
    key, app = asked.headers.get("dd-api-key"), asked.headers.get("dd-application-key")
    if key != API_KEY:
        return FORBIDDEN
    if asked.path == "/api/v1/validate":
        return Said({"valid": True})
    if app != ALL and not (app == LOGS_ONLY and asked.path.startswith("/api/v2/logs")):
        return FORBIDDEN
    match asked.method, asked.path:
        case "POST", "/api/v2/logs/events/search":
            return _logs(asked.json)
        case "POST", "/api/v2/events/search":
            return Said({"data": [EVENT], "meta": {"status": "done"}})
        case "GET", "/api/v1/query":
            return _metrics(asked.query["query"])
        case "GET", "/api/v1/monitor/search":
            page = int(asked.query["page"])
            found = [{"id": 7, "name": "Checkout errors", "status": "Alert", "type": "metric alert", "metrics": ["errors"], "creator": {}}]
            return Said({"monitors": found, "metadata": {"page": page, "page_count": 2, "per_page": 50, "total_count": 51}})
        case "GET", "/api/v1/monitor/7":
            return Said(MONITOR)
        case "GET", "/api/v2/incidents/search":
            incidents = [{"data": INCIDENT}] if asked.query["query"].startswith("state:") else []
            return Said({"data": {"type": "incidents_search_results", "attributes": {"total": 1, "incidents": incidents}}})
        case "GET", "/api/v2/incidents/42":
            return Said({"data": INCIDENT})
        case "GET", path if path.startswith("/api/v1/monitor/"):
            return Said({"errors": ["Monitor not found"]}, 404)
    return Said({"errors": [{"title": "Not Found", "detail": "no such incident", "status": "404"}]}, 404)


def _logs(body: dict[str, Any]) -> Said:
    if body["filter"]["query"] == "service:(":
        return Said({"errors": [{"status": "400", "title": "Invalid query", "detail": "unclosed parenthesis at 9"}]}, 400)
    begin, size = int(body["page"].get("cursor") or 0), body["page"]["limit"]
    after = {"page": {"after": str(begin + size)}} if begin + size < len(LOGS) else {}
    return Said(
        {
            "data": LOGS[begin : begin + size],
            "meta": {**after, "status": "timeout", "warnings": [{"title": "w", "detail": "an index is slow"}]},
        }
    )


def _metrics(query: str) -> Said:
    if query == "nonsense":
        return Said({"status": "error", "error": "Error parsing query: unable to parse nonsense"}, 400)
    if query == "late":
        return Said({"status": "error", "error": "query timed out", "series": []})
    if query == "none{*}":
        return Said({"status": "ok", "series": []})
    points = [[1_772_366_400_000.0, 0.5], [1_772_366_420_000.0, None]]
    series = {"metric": "system.cpu.user", "expression": "avg:system.cpu.user{host:web-1}", "pointlist": points, "tag_set": ["host:web-1"]}
    return Said(
        {"status": "ok", "series": [{**series, "unit": [{"family": "percentage", "name": "percent"}, None], "tag_set": ["host:web-1"]}]}
    )


@contextlib.contextmanager
def running() -> Iterator[HttpService]:
    """It, for the length of a test."""
    with serving(answer) as service:
        yield service


def body_of(asked: Asked) -> dict[str, Any]:
    """The search that was posted."""
    found: dict[str, Any] = json.loads(asked.body)
    return found
