"""Prometheus: queries, alerts and rules. Read only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, HttpUrl, SecretStr

from prefect_routines.connectors.address import Address
from prefect_routines.connectors.connector import Connection, Connector, Toolset, revealed
from prefect_routines.connectors.http import Api, ServiceError, bearer
from prefect_routines.connectors.moment import moment
from prefect_routines.connectors.rows import row
from prefect_routines.tools.paging import window
from prefect_routines.tools.tool import tool

# what matters of a rule: not its evaluation times, nor its alerts, which are listed by themselves
_RULE = ("type", "name", "state", "query", "duration", "labels", "annotations", "health", "lastError")
_ALERT = ("state", "labels", "annotations", "activeAt", "value")


class Prometheus(Connector):
    """A Prometheus server, or anything that speaks its query API (Thanos, Mimir, VictoriaMetrics).

    Example:
        ```python
        from prefect_routines.connectors.prometheus import Prometheus

        Prometheus(url="http://prometheus:9090").save("production")
        ```

        A routine names it: `@routine(connectors=["prometheus/production"])`.
    """

    _block_type_name = "Prometheus"
    _block_type_slug = "prometheus"
    _documentation_url = HttpUrl("https://prometheus.io/docs/prometheus/latest/querying/api/")

    url: Address = Field(description="Address of the server, e.g. http://prometheus:9090.")
    token: SecretStr | None = Field(default=None, description="Bearer token, where a proxy before it asks for one.")
    prefix: str = Field(default="prometheus", description="What the tools' names begin with; for a session that uses two.")

    def open(self, name: str) -> Connection:
        """The tools; nothing is asked of the server yet."""
        api = self._api(name)
        return Connection(
            tools=PrometheusTools(api).tools(self.prefix), hosts=(api.host,), secrets=lambda: revealed(self.token), close=api.close
        )

    async def check(self) -> str:
        """The server's version, and how many of its targets answer."""
        api = self._api(self._block_document_name or "?")
        try:
            version = (await _data(api, "/api/v1/status/buildinfo")).get("version", "of unknown version")
            seen = (await _data(api, "/api/v1/query", query="count(up) or vector(0)"))["result"]
        finally:
            await api.close()
        return f"Prometheus {version} at {self.url} with {seen[0]['value'][1]} targets; read only"

    def _api(self, name: str) -> Api:
        return Api("Prometheus", self.url, block=f"prometheus/{name}", headers=bearer(self.token))


class PrometheusTools(Toolset):
    """What Claude may ask a Prometheus server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    @tool(idempotent=True, outside=True)
    async def query(self, query: str, time: str | None = None, offset: int = 0) -> str:
        """Evaluate a PromQL expression at one moment.

        Args:
            query: The expression, e.g. 'sum by (job) (rate(http_requests_total[5m]))'.
            time: 'now-1h', RFC 3339 time or Unix seconds. Default: now.
            offset: Character to start from, when the answer was too long for one call; give `time` then, too.
        """
        answer = await _answer(self._api, "/api/v1/query", query=query, time=_seconds(time, "time"))
        return window("\n".join([*_notes(answer), *_shown(answer["data"])]), offset)

    @tool(idempotent=True, outside=True)
    async def query_range(self, query: str, start: str = "now-1h", end: str = "now", step: str = "60s", offset: int = 0) -> str:
        """Evaluate a PromQL expression over a range of time. One line for each series: its labels, then 'Unix time:value' for each point.

        Args:
            query: The expression.
            start: 'now-1h', RFC 3339 time or Unix seconds.
            end: The same.
            step: Time between two points, e.g. '60s'. At most 11,000 points come back.
            offset: Character to start from, when the answer was too long for one call.
        """
        span = {"start": _seconds(start, "start"), "end": _seconds(end, "end"), "step": step}
        answer = await _answer(self._api, "/api/v1/query_range", query=query, **span)
        return window("\n".join([*_notes(answer), *_shown(answer["data"])]), offset)

    @tool(idempotent=True, outside=True)
    async def alerts(self, offset: int = 0) -> str:
        """List the alerts that are pending or firing.

        Args:
            offset: Character to start from, when the answer was too long for one call.
        """
        alerts = (await _data(self._api, "/api/v1/alerts"))["alerts"]
        return window("\n".join(row(alert, _ALERT) for alert in alerts) or "No alert is pending or firing.", offset)

    @tool(idempotent=True, outside=True)
    async def rules(self, type: Literal["alert", "record"] | None = None, offset: int = 0) -> str:
        """List the alerting and recording rules with their state.

        Args:
            type: Only those of this type. Default: both.
            offset: Character to start from, when the answer was too long for one call.
        """
        groups = (await _data(self._api, "/api/v1/rules", type=type))["groups"]
        lines = [row({"group": group["name"], **rule}, ("group", *_RULE)) for group in groups for rule in group["rules"]]
        return window("\n".join(lines) or "There are no such rules.", offset)

    @tool(idempotent=True, outside=True)
    async def series(self, match: str, start: str | None = None, end: str | None = None, offset: int = 0) -> str:
        """List the series that a selector matches: which metrics and labels there are.

        Args:
            match: A selector such as 'up{job="api"}' or '{__name__=~"http_.*"}'.
            start: 'now-1h', RFC 3339 time or Unix seconds.
            end: The same.
            offset: Character to start from, when the answer was too long for one call.
        """
        params = {"match[]": match, "start": _seconds(start, "start"), "end": _seconds(end, "end"), "limit": 1000}
        answer = await _answer(self._api, "/api/v1/series", **params)
        return window("\n".join([*_notes(answer), *map(_name, answer["data"])]) or "No series matches.", offset)


async def _answer(api: Api, path: str, **params: Any) -> dict[str, Any]:
    """The whole answer; its data are in `data`. https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview"""
    answer = (await api.get(path, params)).json()
    if not isinstance(answer, dict) or "data" not in answer:
        raise ServiceError(f"what answers at {api.base_url} is no Prometheus; the author has to set the address in {api.block} right")
    return answer


async def _data(api: Api, path: str, **params: Any) -> Any:
    return (await _answer(api, path, **params))["data"]


def _seconds(text: str | None, argument: str) -> float | None:
    return None if text is None else round(moment(text, argument), 3)


def _notes(answer: dict[str, Any]) -> list[str]:
    return [f"[{kind[:-1]}: {text}]" for kind in ("warnings", "infos") for text in answer.get(kind) or []]


def _shown(data: dict[str, Any]) -> Iterator[str]:
    """A result line by line: JSON would say the names of its fields at every point."""
    kind, result = data["resultType"], data["result"]
    if kind in ("scalar", "string"):
        yield f"{result[1]} at {result[0]}"
        return
    if not result:
        yield "No series: the expression matches nothing at that time."
    for series in result:
        if "value" in series:
            yield f"{_name(series['metric'])} {series['value'][1]} at {series['value'][0]}"
        elif "values" in series:
            yield f"{_name(series['metric'])} {' '.join(f'{time}:{value}' for time, value in series['values'])}"
        else:  # native histograms
            yield row(series, series)


def _name(labels: dict[str, str]) -> str:
    """A series as PromQL writes it."""
    inside = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items() if name != "__name__")
    return labels.get("__name__", "") + (f"{{{inside}}}" if inside or "__name__" not in labels else "")
