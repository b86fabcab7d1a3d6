"""Datadog: logs, metrics, monitors, events and incidents. Read only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, HttpUrl, SecretStr

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector, Toolset, revealed
from prefect_routines.connectors.http import Api, ServiceError, explained
from prefect_routines.connectors.moment import moment
from prefect_routines.connectors.rows import row
from prefect_routines.errors import ToolError
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import tool

PAGE = 50  # monitors, incidents
Limit = Annotated[int, Field(ge=1, le=1000)]


class Datadog(Connector):
    """A Datadog organization, through an API key and an application key. Read only.

    The application key wants the scopes logs_read_data, timeseries_query, monitors_read, events_read and incident_read, or those of
    them that are used; without scopes it may do all that its owner may.

    Example:
        ```python
        from prefect_routines.connectors.datadog import Datadog

        Datadog(api_key="...", app_key="...", site="datadoghq.eu").save("production")
        ```

        A routine names it: `@routine(connectors=["datadog/production"])`.
    """

    _block_type_name = "Datadog"
    _block_type_slug = "datadog"
    _documentation_url = HttpUrl("https://docs.datadoghq.com/api/latest/")

    api_key: SecretStr = Field(description="API key of the organization.")
    app_key: SecretStr = Field(description="Application key: what it may read is what the tools may read.")
    site: str = Field(
        default="datadoghq.com", pattern=r"^[a-z0-9.-]+$", description="Datadog site, e.g. datadoghq.eu or us5.datadoghq.com."
    )
    base_url: Address | None = Field(default=None, description="Address of the API, where it is not https://api. and the site.")
    prefix: str = Field(default="datadog", description="What the tools' names begin with; for a session that uses two.")

    def open(self, name: str) -> Connection:
        """The tools; nothing is asked of Datadog yet."""
        api = self._api(name)
        site = self.site.removeprefix("app.")
        return Connection(
            tools=DatadogTools(api).tools(self.prefix),
            hosts=(api.host, site, f"app.{site}"),
            secrets=lambda: revealed(self.api_key, self.app_key),
            close=api.close,
        )

    async def check(self) -> str:
        """Whether the API key is valid, and what the application key may read."""
        api = self._api(self._block_document_name or "?")
        tools = DatadogTools(api)
        try:
            await api.get("/api/v1/validate")  # knows the API key only
            reads = {
                "logs": tools.logs(),
                "metrics": tools.metrics("avg:system.cpu.user{*}", moment("now-5m", "start"), moment("now", "end")),
                "monitors": tools.monitors_page("", 0),
                "events": tools.found_events("*", "now-5m", "now", 1),
                "incidents": tools.incidents_page("state:active", 0),
            }
            found = dict(zip(reads, await asyncio.gather(*reads.values(), return_exceptions=True), strict=True))
        finally:
            await api.close()
        for problem in found.values():
            if isinstance(problem, BaseException) and not (isinstance(problem, ServiceError) and problem.status in (401, 403)):
                raise problem
        refused = {name: problem for name, problem in found.items() if isinstance(problem, BaseException)}
        if len(refused) == len(found):
            raise refused["logs"]
        closed = f"; not {', '.join(refused)}" if refused else ""
        return f"Datadog at {api.base_url}: may read {', '.join(name for name in found if name not in refused)}{closed}"

    def _api(self, name: str) -> Api:
        address = self.base_url or f"https://api.{self.site.removeprefix('app.')}"
        return Api("Datadog", address, block=f"datadog/{name}", headers=self._headers, explain=_explained)

    async def _headers(self) -> Mapping[str, str]:
        """https://docs.datadoghq.com/api/latest/authentication/"""
        return {"DD-API-KEY": self.api_key.get_secret_value(), "DD-APPLICATION-KEY": self.app_key.get_secret_value()}


class DatadogTools(Toolset):
    """What Claude may ask Datadog."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @tool(idempotent=True, outside=True)
    async def logs_search(
        self, query: str, start: str = "now-15m", end: str = "now", limit: Limit = 50, cursor: str | None = None, offset: int = 0
    ) -> str:
        """Search logs; the newest come first.

        Args:
            query: In Datadog's log search syntax, e.g. 'service:checkout status:error'.
            start: 'now-15m', RFC 3339 time or Unix seconds.
            end: The same.
            limit: At most so many.
            cursor: Where to go on, from the last line of the call before.
            offset: Character to start from, when the answer was too long for one call.
        """
        answer = await self.logs(query, start, end, limit, cursor)
        return window(_listed(answer, map(_log, answer["data"]), "No log matches."), offset)

    @tool(idempotent=True, outside=True)
    async def metrics_query(self, query: str, start: str = "now-1h", end: str = "now", offset: int = 0) -> str:
        """Query metrics over a range of time. One line for each series, 'Unix time:value' for each point.

        Args:
            query: A metric query, e.g. 'avg:system.cpu.user{service:checkout} by {host}'.
            start: 'now-1h', RFC 3339 time or Unix seconds.
            end: The same.
            offset: Character to start from, when the answer was too long for one call.
        """
        answer = await self.metrics(query, moment(start, "start"), moment(end, "end"))
        return window("\n".join(map(_series, answer.get("series") or [])) or "No series: the query matches nothing at that time.", offset)

    @tool(idempotent=True, outside=True)
    async def monitors(self, query: str = "", page: Annotated[int, Field(ge=0)] = 0) -> str:
        """List monitors with their state.

        Args:
            query: In the syntax of the monitors page, e.g. 'status:Alert tag:"service:checkout"'. Default: all.
            page: Page of the list, from 0.
        """
        answer = await self.monitors_page(query, page)
        lines = [row(monitor, ("id", "name", "status", "type", "query", "tags")) for monitor in answer["monitors"]]
        more = [f"[more: page={page + 1}]"] if page + 1 < (answer.get("metadata") or {}).get("page_count", 0) else []
        return "\n".join([*lines, *more]) or "No monitor matches."

    @tool(idempotent=True, outside=True)
    async def monitor(self, monitor: int, offset: int = 0) -> str:
        """Show a monitor: query, message, thresholds, and the groups that are not OK.

        Args:
            monitor: Its id.
            offset: Character to start from, when the answer was too long for one call.
        """
        found = await self._object("GET", f"/api/v1/monitor/{monitor}", params={"group_states": "alert,warn,no data"})
        thresholds = (found.get("options") or {}).get("thresholds")
        fields = ("id", "name", "type", "query", "overall_state", "priority", "tags", "thresholds", "created", "modified", "message")
        groups = ((found.get("state") or {}).get("groups") or {}).values()
        lines = ["group " + row(group, ("name", "status", "last_triggered_ts", "last_nodata_ts")) for group in groups]
        return window("\n".join([row({**found, "thresholds": thresholds}, fields), *lines]), offset)

    @tool(idempotent=True, outside=True)
    async def events(
        self, query: str = "*", start: str = "now-1d", end: str = "now", limit: Limit = 50, cursor: str | None = None, offset: int = 0
    ) -> str:
        """Search events: deploys, alerts, changes; the newest come first.

        Args:
            query: In Datadog's event search syntax, e.g. 'source:github service:checkout'.
            start: 'now-1d', RFC 3339 time or Unix seconds.
            end: The same.
            limit: At most so many.
            cursor: Where to go on, from the last line of the call before.
            offset: Character to start from, when the answer was too long for one call.
        """
        answer = await self.found_events(query, start, end, limit, cursor)
        return window(_listed(answer, map(_event, answer["data"]), "No event matches."), offset)

    @tool(idempotent=True, outside=True)
    async def incidents(self, query: str = "state:(active OR stable OR resolved)", page: Annotated[int, Field(ge=0)] = 0) -> str:
        """List incidents; the newest come first.

        Args:
            query: Facets joined by AND, e.g. 'state:active AND severity:(SEV-1 OR SEV-2)'.
            page: Page of the list, from 0.
        """
        found = (await self.incidents_page(query, page))["data"]["attributes"]["incidents"]
        more = [f"[more: page={page + 1}]"] if len(found) == PAGE else []
        return "\n".join([*(_incident(item["data"]) for item in found), *more]) or "No incident matches."

    @tool(idempotent=True, outside=True)
    async def incident(self, incident: str, offset: int = 0) -> str:
        """Show an incident with all its fields.

        Args:
            incident: Its id, or its public id such as '42'.
            offset: Character to start from, when the answer was too long for one call.
        """
        from urllib.parse import quote

        if not incident.strip(". "):
            raise ToolError("incident: the id of one, from `incidents`")
        found = await self._object("GET", f"/api/v2/incidents/{quote(incident, safe='')}")
        return window(_incident(found["data"], whole=True), offset)

    async def logs(
        self, query: str = "*", start: str = "now-5m", end: str = "now", limit: int = 1, cursor: str | None = None
    ) -> dict[str, Any]:
        """https://docs.datadoghq.com/api/latest/logs/#search-logs-post"""
        return await self._searched("/api/v2/logs/events/search", query, start, end, limit, cursor)

    async def found_events(self, query: str, start: str, end: str, limit: int, cursor: str | None = None) -> dict[str, Any]:
        """https://docs.datadoghq.com/api/latest/events/search-events/"""
        return await self._searched("/api/v2/events/search", query, start, end, limit, cursor)

    async def metrics(self, query: str, start: float, end: float) -> dict[str, Any]:
        """https://docs.datadoghq.com/api/latest/metrics/#query-timeseries-points"""
        answer = await self._object("GET", "/api/v1/query", params={"query": query, "from": int(start), "to": int(end)})
        if answer.get("status") == "error" or answer.get("error"):
            raise ServiceError(f"Datadog cannot answer the query: {answer.get('error') or answer.get('message')}", 400)
        return answer

    async def monitors_page(self, query: str, page: int) -> dict[str, Any]:
        """https://docs.datadoghq.com/api/latest/monitors/monitors-search/"""
        return await self._object("GET", "/api/v1/monitor/search", params={"query": query or None, "page": page, "per_page": PAGE})

    async def incidents_page(self, query: str, page: int) -> dict[str, Any]:
        """https://docs.datadoghq.com/api/latest/incidents/search-for-incidents/"""
        params = {"query": query, "sort": "-created", "page[size]": PAGE, "page[offset]": page * PAGE}
        return await self._object("GET", "/api/v2/incidents/search", params=params)

    async def _searched(self, path: str, query: str, start: str, end: str, limit: int, cursor: str | None) -> dict[str, Any]:
        span = {"from": str(int(moment(start, "start") * 1000)), "to": str(int(moment(end, "end") * 1000))}
        page = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        return await self._object("POST", path, json={"filter": {"query": query, **span}, "sort": "-timestamp", "page": page})

    async def _object(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        answer = (await self._api.ask(method, path, **content)).json()
        if not isinstance(answer, dict):
            raise ServiceError(f"what answers at {self._api.base_url} is not Datadog; the author has to set {self._api.block} right")
        return answer


def _listed(answer: Mapping[str, Any], lines: Iterator[str], none: str) -> str:
    meta = answer.get("meta") or {}
    notes = [f"[warning: {warning.get('detail') or warning.get('title')}]" for warning in meta.get("warnings") or []]
    if meta.get("status") == "timeout":
        notes.append("[Datadog ran out of time: these are not all; search a shorter time]")
    after = (meta.get("page") or {}).get("after")
    return "\n".join([*notes, *lines, *([f"[more: cursor={after}]"] if after else [])]) or none


def _log(item: Mapping[str, Any]) -> str:
    return row(item.get("attributes") or {}, ("timestamp", "status", "service", "host", "message", "tags", "attributes"))


def _event(item: Mapping[str, Any]) -> str:
    outer = item.get("attributes") or {}
    inner = outer.get("attributes") or {}
    told = {**inner, **outer, "source": inner.get("sourcecategory")}
    return row(told, ("timestamp", "title", "status", "service", "source", "message", "tags"))


def _series(series: Mapping[str, Any]) -> str:
    unit = next((unit.get("name") for unit in series.get("unit") or [] if unit), None)
    points = " ".join(f"{time / 1000:.15g}:{value}" for time, value in series.get("pointlist") or [])
    return f"{series.get('expression') or series.get('metric')}{f' [{unit}]' if unit else ''} {points}"


_INCIDENT = ("public_id", "id", "title", "state", "severity", "customer_impacted", "created", "resolved")
_WHOLE = (*_INCIDENT, "customer_impact_scope", "customer_impact_start", "customer_impact_end", "detected", "modified", "fields")


def _incident(item: Mapping[str, Any], *, whole: bool = False) -> str:
    attributes = item.get("attributes") or {}
    fields = {name: value.get("value") for name, value in (attributes.get("fields") or {}).items() if isinstance(value, dict)}
    told = {**fields, **attributes, "id": item.get("id"), "fields": {name: value for name, value in fields.items() if value}}
    return row(told, _WHOLE if whole else _INCIDENT)


def _explained(body: Any) -> str:
    """What an error says. 'Forbidden' is all that is said of a wrong key, of one of another site and of a missing scope."""
    errors = body.get("errors") if isinstance(body, dict) else None
    if not isinstance(errors, list):
        return explained(body)
    told = [str(error.get("detail") or error.get("title") or "") if isinstance(error, dict) else str(error) for error in errors[:5]]
    said = "; ".join(filter(None, told))
    return f"{said} (a key is wrong, belongs to another site, or lacks a scope)" if said.lower() in ("forbidden", "unauthorized") else said
