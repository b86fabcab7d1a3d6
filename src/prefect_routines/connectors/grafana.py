"""Grafana: dashboards, what their panels show, alerts and annotations. Writes annotations."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, HttpUrl, SecretStr

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector, Toolset, revealed
from prefect_routines.connectors.grafana_text import alert_line, annotation_line, dashboard_lines, filled, frames_text, panels
from prefect_routines.connectors.http import Api, ServiceError, explained
from prefect_routines.connectors.moment import moment
from prefect_routines.connectors.rows import row
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.outgoing import Outgoing
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import ToolContext, Write, tool

PAGE = 50  # dashboards, annotations


class Grafana(Connector):
    """A Grafana server, through a service account. Reads, and writes annotations where the policy allows it.

    The token wants the role Viewer; to annotate, the permission `annotations:create` on the dashboards.

    Example:
        ```python
        from prefect_routines.connectors.grafana import Grafana

        Grafana(url="https://acme.grafana.net", token="...").save("production")
        ```

        A routine names it: `@routine(connectors=["grafana/production"], policy=Policy(allow=["grafana_annotate(dashboard=abc123) x1"]))`.

    Grafana Labs has an MCP server with far more tools (package `mcp-grafana`); it can be used through the connector `mcp`.
    """

    _block_type_name = "Grafana"
    _block_type_slug = "grafana"
    _documentation_url = HttpUrl("https://grafana.com/docs/grafana/latest/developers/http_api/")

    url: Address = Field(description="Address of the server, e.g. https://acme.grafana.net.")
    token: SecretStr = Field(description="Token of a service account (Administration, Users and access, Service accounts).")
    organization: int | None = Field(default=None, description="Id of the organization; only for a login that belongs to several.")
    prefix: str = Field(default="grafana", description="What the tools' names begin with; for a session that uses two.")

    def open(self, name: str) -> Connection:
        """The tools; nothing is asked of the server yet."""
        api = self._api(name)
        return Connection(
            tools=GrafanaTools(api).tools(self.prefix), hosts=(api.host,), secrets=lambda: revealed(self.token), close=api.close
        )

    async def check(self) -> str:
        """The server's version, the organization, and whether the token may annotate."""
        api = self._api(self._block_document_name or "?")
        try:
            organization = (await api.get("/api/org")).json()["name"]
            version = (await api.get("/api/health")).json().get("version", "of unknown version")
            try:
                allowed = (await api.get("/api/access-control/user/permissions")).json()
                may = "reads and annotates" if "annotations:create" in allowed else "reads; the token may not annotate"
            except ServiceError as error:
                if error.status not in (403, 404):
                    raise
                may = "reads; whether it may annotate is not told"
        finally:
            await api.close()
        return f"Grafana {version} at {self.url}, organization {organization}: {may}"

    def _api(self, name: str) -> Api:
        return Api("Grafana", self.url, block=f"grafana/{name}", headers=self._headers, explain=_explained)

    async def _headers(self) -> Mapping[str, str]:
        login = {"Authorization": f"Bearer {self.token.get_secret_value()}"}
        return login if self.organization is None else {**login, "X-Grafana-Org-Id": str(self.organization)}


class GrafanaTools(Toolset):
    """What Claude may do with a Grafana server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @tool(idempotent=True, outside=True)
    async def dashboards(self, query: str = "", tag: str | None = None, page: int = 1) -> str:
        """Search dashboards by title and tag. Gives their uids, which other tools ask for.

        Args:
            query: Part of the title. Default: all.
            tag: Only those with this tag.
            page: Page of the list, from 1.
        """
        params = {"type": "dash-db", "query": query or None, "tag": tag, "limit": PAGE, "page": page}
        found = await self._list("/api/search", params)
        lines = [row(item, ("uid", "title", "folderTitle", "tags")) for item in found]
        more = [f"[more: page={page + 1}]"] if len(found) == PAGE else []
        return "\n".join([*lines, *more]) or "No dashboard matches."

    @tool(idempotent=True, outside=True)
    async def dashboard(self, uid: str, offset: int = 0) -> str:
        """Show a dashboard: its variables, and its panels with their ids and queries.

        Args:
            uid: Its uid, from `dashboards`.
            offset: Character to start from, when the answer was too long for one call.
        """
        found = await self._dashboard(uid)
        link = f"{self._api.base_url}{found.get('meta', {}).get('url', '')}"
        return window("\n".join([link, *dashboard_lines(found["dashboard"])]), offset)

    @tool(idempotent=True, outside=True)
    async def panel(
        self,
        dashboard: str,
        panel: int,
        start: str = "now-1h",
        end: str = "now",
        variables: dict[str, str] | None = None,
        points: Annotated[int, Field(ge=1, le=1000)] = 60,
        offset: int = 0,
    ) -> str:
        """Run the queries of a panel: what it shows for a range of time. One line for each series, 'Unix time:value' for each point.

        Args:
            dashboard: Uid of the dashboard.
            panel: Id of the panel.
            start: 'now-1h', RFC 3339 time or Unix seconds.
            end: The same.
            variables: Values of the dashboard's variables, in place of those that are saved with it.
            points: At most so many points for each series.
            offset: Character to start from, when the answer was too long for one call.
        """
        model = (await self._dashboard(dashboard))["dashboard"]
        found = _panel(model, panel)
        targets = filled(model, found, variables or {})
        if not targets:
            raise ToolError(f"panel {panel} of dashboard {dashboard} has no queries of its own")
        return await self._queried(targets, start, end, points, offset)

    @tool(idempotent=True, outside=True)
    async def query(
        self,
        datasource: str,
        expression: str,
        start: str = "now-1h",
        end: str = "now",
        points: Annotated[int, Field(ge=1, le=1000)] = 60,
        offset: int = 0,
    ) -> str:
        """Ask a data source of Grafana's, such as Prometheus or Loki, with an expression of your own.

        Args:
            datasource: Uid of the data source; `dashboard` shows which ones the panels use.
            expression: PromQL or LogQL.
            start: 'now-1h', RFC 3339 time or Unix seconds.
            end: The same.
            points: At most so many points for each series.
            offset: Character to start from, when the answer was too long for one call.
        """
        # No field but `expr`: languages that could change something, such as SQL, are not asked with it.
        target = {"refId": "A", "datasource": {"uid": datasource}, "expr": expression, "range": True, "queryType": "range", "maxLines": 500}
        return await self._queried([target], start, end, points, offset)

    @tool(idempotent=True, outside=True)
    async def alerts(self, offset: int = 0) -> str:
        """List the alerts that fire now, silenced ones included.

        Args:
            offset: Character to start from, when the answer was too long for one call.
        """
        found = await self._list("/api/alertmanager/grafana/api/v2/alerts")
        return window("\n".join(map(alert_line, found)) or "No alert fires.", offset)

    @tool(idempotent=True, outside=True)
    async def alert_rules(self, state: Literal["firing", "pending", "inactive"] | None = None, offset: int = 0) -> str:
        """List the alert rules with their state and queries.

        Args:
            state: Only those in this state. Default: all.
            offset: Character to start from, when the answer was too long for one call.
        """
        answer = (await self._api.get("/api/prometheus/grafana/api/v1/rules")).json()
        self._must(isinstance(answer, dict) and isinstance(answer.get("data"), dict))
        fields = ("uid", "name", "state", "health", "lastError", "query", "duration", "labels", "annotations")
        lines = [
            row({"folder": group.get("file"), "group": group["name"], **rule}, ("folder", "group", *fields))
            for group in answer["data"]["groups"]
            for rule in group["rules"]
            if state is None or rule.get("state") == state
        ]
        return window("\n".join(lines) or "There are no such rules.", offset)

    @tool(idempotent=True, outside=True)
    async def annotations(
        self,
        start: str = "now-1d",
        end: str = "now",
        dashboard: str | None = None,
        tags: list[str] | None = None,
        limit: Annotated[int, Field(ge=1, le=1000)] = 100,
        offset: int = 0,
    ) -> str:
        """List annotations: deploys, incidents and what else people and programs marked. The newest come first.

        Args:
            start: 'now-1d', RFC 3339 time or Unix seconds.
            end: The same.
            dashboard: Only those of the dashboard with this uid.
            tags: Only those that have all of these.
            limit: At most so many. For older ones give an earlier `end`.
            offset: Character to start from, when the answer was too long for one call.
        """
        params = {"from": _millis(start, "start"), "to": _millis(end, "end"), "dashboardUID": dashboard, "tags": tags, "limit": limit}
        found = await self._list("/api/annotations", params)
        more = [f"[there may be more: end={found[-1]['time'] // 1000}]"] if len(found) == limit else []
        return window("\n".join([*map(annotation_line, found), *more]) or "There are no annotations.", offset)

    @tool(target="dashboard", writes=True, outside=True)
    async def annotate(
        self,
        context: ToolContext,
        dashboard: str,
        text: Annotated[str, Outgoing("plain", 4_000)],
        panel: int | None = None,
        tags: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=10)] | None = None,
        time: str = "now",
        time_end: str | None = None,
    ) -> Write:
        """Put an annotation on a dashboard: what happened at a moment, or over a range of time.

        Args:
            dashboard: Uid of the dashboard.
            text: What happened; plain text.
            panel: Id of a panel, to mark only that. Default: the whole dashboard.
            tags: Tags, to find it by.
            time: When: 'now', RFC 3339 time or Unix seconds.
            time_end: When it ended, for a range.
        """
        found = await self._dashboard(dashboard)
        if panel is not None:
            _panel(found["dashboard"], panel)
        mark = f"routines-{context.key}"
        request: dict[str, Any] = {
            "dashboardUID": dashboard,
            "time": _millis(time, "time"),
            "tags": [*(tags or []), mark],
            "text": html.escape(text, quote=False),  # Grafana shows it as HTML
        }
        if panel is not None:
            request["panelId"] = panel
        if time_end is not None:
            request["timeEnd"] = _millis(time_end, "time_end")
        link = f"{self._api.base_url}{found.get('meta', {}).get('url', '')}"

        async def send() -> str:
            answer = await self._api.send("POST", "/api/annotations", json=request)
            try:
                return f"Annotated {link} (annotation {answer.json()['id']})"
            except (ServiceError, LookupError, TypeError) as error:
                raise OutcomeUnknown("Grafana's answer cannot be read; whether it has the annotation is unknown") from error

        async def find() -> str | None:
            known = await self._list("/api/annotations", {"dashboardUID": dashboard, "tags": mark, "limit": 1})
            return f"Annotated {link} (annotation {known[0]['id']})" if known else None

        return Write(request=request, send=send, find=find)

    async def _dashboard(self, uid: str) -> dict[str, Any]:
        path = f"/api/dashboards/uid/{quote(uid, safe='')}"
        found = (await self._api.get(path)).json()
        self._must(isinstance(found, dict) and isinstance(found.get("dashboard"), dict))
        return dict(found)

    async def _list(self, path: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        found = (await self._api.get(path, params)).json()
        self._must(isinstance(found, list))
        return list(found)

    def _must(self, is_grafana: bool) -> None:
        if not is_grafana:
            raise ServiceError(f"what answers at {self._api.base_url} is no Grafana; the author has to set {self._api.block} right")

    async def _queried(self, targets: list[dict[str, Any]], start: str, end: str, points: int, offset: int) -> str:
        """https://grafana.com/docs/grafana/latest/developers/http_api/data_source/#query-a-data-source"""
        begin, stop = _millis(start, "start"), _millis(end, "end")
        if begin >= stop:
            raise ToolError("start: a moment before `end`")
        step = {"intervalMs": max(1000, (stop - begin) // points), "maxDataPoints": points}
        body = {"queries": [{**target, **step} for target in targets], "from": str(begin), "to": str(stop)}
        answer = (await self._api.ask("POST", "/api/ds/query", json=body)).json()
        self._must(isinstance(answer, dict) and isinstance(answer.get("results"), dict))
        return window(frames_text(answer["results"]), offset)


def _panel(dashboard: dict[str, Any], number: int) -> dict[str, Any]:
    known = {panel.get("id"): panel for panel in panels(dashboard)}
    if number not in known:
        listed = ", ".join(f"{id} ({panel.get('title', '')})" for id, panel in known.items())
        raise ToolError(f"the dashboard {dashboard.get('title', '')!r} has no panel {number}; it has {listed or 'none'}")
    return known[number]


def _millis(text: str, argument: str) -> int:
    return int(moment(text, argument) * 1000)


def _explained(body: Any) -> str:
    """What an error says; that of a query stands beside its results."""
    results = body.get("results") if isinstance(body, dict) else None
    if isinstance(results, dict):
        return "; ".join(f"query {name}: {result['error']}" for name, result in results.items() if result.get("error"))
    return explained(body)
