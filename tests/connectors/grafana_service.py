"""A Grafana that answers as its documentation says, keeps annotations, and knows two tokens.

https://grafana.com/docs/grafana/latest/developers/http_api/
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .http_service import Asked, HttpService, Said, serving

EDITOR, VIEWER = "glsa_editor_token", "glsa_viewer_token"
PROMETHEUS = {"type": "prometheus", "uid": "prom1"}
CHECKOUT: dict[str, Any] = {
    "uid": "checkout1",
    "title": "Checkout",
    "tags": ["shop"],
    "templating": {
        "list": [
            {"name": "source", "type": "datasource", "current": {"value": "prom1"}},
            {"name": "service", "type": "query", "current": {"value": ["$__all"]}},
        ]
    },
    "panels": [
        {
            "id": 1,
            "title": "Errors",
            "type": "timeseries",
            "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8},
            "datasource": {"type": "prometheus", "uid": "${source}"},
            "fieldConfig": {"defaults": {"color": {"mode": "palette-classic"}}},
            "targets": [{"refId": "A", "expr": 'rate(errors{service=~"$service"}[$__rate_interval])', "editorMode": "code"}],
        },
        {
            "id": 7,
            "type": "row",
            "collapsed": True,
            "panels": [
                {
                    "id": 2,
                    "title": "Orders",
                    "type": "table",
                    "datasource": {"type": "postgres", "uid": "sql1"},
                    "targets": [{"refId": "A", "rawSql": "SELECT * FROM orders WHERE service = '$service'", "format": "table"}],
                }
            ],
        },
        {"id": 3, "title": "Read me", "type": "text"},
    ],
}
SERIES = {
    "schema": {"fields": [{"name": "Time", "type": "time"}, {"name": "Value", "type": "number", "labels": {"service": "api"}}]},
    "data": {"values": [[1_772_366_400_000, 1_772_366_460_500], [0.5, None]]},
}
TABLE = {
    "schema": {"fields": [{"name": "id", "type": "number"}, {"name": "note", "type": "string"}]},
    "data": {"values": [[1, 2], ["a\tb", "two\nlines"]]},
}
ALERT = {
    "labels": {"alertname": "CheckoutDown", "severity": "page"},
    "annotations": {"summary": "Checkout answers nobody"},
    "startsAt": "2026-03-01T12:00:00Z",
    "endsAt": "2026-03-01T12:05:00Z",
    "status": {"state": "active", "silencedBy": [], "inhibitedBy": []},
    "fingerprint": "f00",
}
RULES = [
    {"name": "CheckoutDown", "uid": "r1", "state": "firing", "query": "up == 0", "duration": 60, "health": "ok", "alerts": [ALERT]},
    {"name": "DiskFull", "uid": "r2", "state": "inactive", "query": "disk > 90", "health": "error", "lastError": "no such metric"},
]


@dataclass
class Grafana:
    """What it keeps."""

    service: HttpService
    annotations: list[dict[str, Any]] = field(default_factory=list)
    queries: list[dict[str, Any]] = field(default_factory=list)
    loses_answers: bool = False  # takes a write, then fails

    @property
    def url(self) -> str:
        return self.service.url

    def answer(self, asked: Asked) -> Said:  # noqa: PLR0911  # one for each endpoint
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if asked.path == "/api/health":
            return Said({"database": "ok", "version": "11.3.0"})
        if token not in (EDITOR, VIEWER):
            return Said({"message": "Invalid API key", "messageId": "api-key.invalid", "statusCode": 401, "traceID": ""}, 401)
        match asked.method, asked.path:
            case "GET", "/api/org":
                return Said({"id": 1, "name": "Main Org."})
            case "GET", "/api/access-control/user/permissions":
                return Said({"dashboards:read": ["*"], **({"annotations:create": ["*"]} if token == EDITOR else {})})
            case "GET", "/api/search":
                found = [{"uid": f"d{number}", "title": f"Board {number}", "type": "dash-db", "tags": []} for number in range(70)]
                found = [item for item in found if asked.query.get("query", "") in str(item["title"])]
                page, limit = int(asked.query["page"]), int(asked.query["limit"])
                return Said(found[(page - 1) * limit : page * limit])
            case "GET", "/api/dashboards/uid/checkout1":
                return Said({"dashboard": CHECKOUT, "meta": {"url": "/d/checkout1/checkout", "folderTitle": "Shop"}})
            case "POST", "/api/ds/query":
                return self._queried(asked.json)
            case "GET", "/api/alertmanager/grafana/api/v2/alerts":
                return Said([ALERT])
            case "GET", "/api/prometheus/grafana/api/v1/rules":
                return Said({"status": "success", "data": {"groups": [{"name": "shop", "file": "Shop", "rules": RULES}]}})
            case "GET", "/api/annotations":
                return Said(self._listed(asked.query))
            case "POST", "/api/annotations":
                return self._annotated(asked.json, token)
        return Said({"message": "Dashboard not found", "status": "not-found"}, 404)

    def _queried(self, body: dict[str, Any]) -> Said:
        self.queries.append(body)
        results: dict[str, Any] = {}
        for query in body["queries"]:
            if query["datasource"]["uid"] == "prom1" and query["expr"] == "up{":
                error = {"error": "parse error: unexpected end of input", "errorSource": "downstream", "status": 400}
                return Said({"results": {query["refId"]: error}}, 400)
            if query["datasource"]["uid"] not in ("prom1", "sql1"):
                return Said({"message": "Data source not found", "messageId": "datasource.notFound", "statusCode": 404}, 404)
            results[query["refId"]] = {"status": 200, "frames": [SERIES if query["datasource"]["uid"] == "prom1" else TABLE]}
        return Said({"results": results})

    def _listed(self, query: Any) -> list[dict[str, Any]]:
        begin, end = int(query.get("from") or 0), int(query.get("to") or 10**15)
        return [
            annotation
            for annotation in reversed(self.annotations)
            if begin <= annotation["time"] <= end
            and query.get("tags", None) in (None, *annotation["tags"])
            and query.get("dashboardUID") in (None, annotation["dashboardUID"])
        ][: int(query["limit"])]

    def _annotated(self, body: dict[str, Any], token: str) -> Said:
        if token != EDITOR:
            said = "You'll need additional permissions to perform this action. Permissions needed: annotations:create"
            return Said({"accessErrorId": "ACE1", "message": said, "title": "Access denied"}, 403)
        self.annotations.append({"id": len(self.annotations) + 1, "timeEnd": body["time"], **body})
        if self.loses_answers:
            return Said(b"upstream timed out", 504)
        return Said({"message": "Annotation added", "id": len(self.annotations)})


@contextlib.contextmanager
def running() -> Iterator[Grafana]:
    """It, for the length of a test."""
    with serving(lambda asked: Said(status=503)) as service:
        grafana = Grafana(service)
        service.answers = grafana.answer
        yield grafana
