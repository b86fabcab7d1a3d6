"""What Grafana's JSON comes to as text: dashboards, query results, alerts, annotations. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from prefect_routines.connectors.rows import row

# what a query says of itself, whatever its language; the rest is how it is drawn
_QUERY = ("expr", "rawSql", "query", "target", "queryType", "expression", "legendFormat", "hide")
# https://grafana.com/docs/grafana/latest/dashboards/variables/variable-syntax/; those that begin with __ are Grafana's own
_VARIABLE = re.compile(r"\$(?!__)(\w+)|\$\{(?!__)(\w+)(?:[.:][^}]*)?\}|\[\[(?!__)(\w+)(?::[^\]]*)?\]\]")


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those inside folded rows included."""
    for panel in dashboard.get("panels") or []:
        if panel.get("type") != "row":
            yield panel
        yield from panels(panel)


def dashboard_lines(dashboard: Mapping[str, Any]) -> Iterator[str]:
    """A dashboard without what only says how it is drawn."""
    yield row(dashboard, ("uid", "title", "description", "tags"))
    for variable in (dashboard.get("templating") or {}).get("list") or []:
        yield "variable " + row({**variable, "value": (variable.get("current") or {}).get("value")}, ("name", "type", "value"))
    for panel in panels(dashboard):
        library = (panel.get("libraryPanel") or {}).get("name")
        yield "panel " + row({**panel, "library": library}, ("id", "title", "description", "type", "library"))
        for target in panel.get("targets") or []:
            source = _uid(target.get("datasource") or panel.get("datasource"))
            yield "  query " + row({**target, "datasource": source}, ("refId", "datasource", *_QUERY))


def _uid(datasource: Any) -> str | None:
    found = datasource.get("uid") if isinstance(datasource, dict) else datasource
    return found if isinstance(found, str) else None


def filled(dashboard: Mapping[str, Any], panel: Mapping[str, Any], given: Mapping[str, str]) -> list[dict[str, Any]]:
    """The queries of a panel as they can be sent, with values for the dashboard's variables.

    Values go into `expr` and into the choice of the data source only: in SQL they could become a statement of their own.

    Args:
        dashboard: The dashboard.
        panel: One of its panels.
        given: Values by variable; for the others those that are saved with the dashboard.
    """
    values = {**{variable["name"]: _saved(variable) for variable in (dashboard.get("templating") or {}).get("list") or []}, **given}

    def put(text: str) -> str:
        return _VARIABLE.sub(lambda match: values.get(match[1] or match[2] or match[3], match[0]), text)

    targets = []
    for target in panel.get("targets") or []:
        if target.get("hide"):
            continue
        source = target.get("datasource") or panel.get("datasource")
        made = {**target, "datasource": {"uid": put(_uid(source) or "")}} if source else dict(target)
        if isinstance(target.get("expr"), str):
            made["expr"] = put(target["expr"])
        targets.append(made)
    return targets


def _saved(variable: Mapping[str, Any]) -> str:
    value = (variable.get("current") or {}).get("value", "")
    chosen = value if isinstance(value, list) else [value]
    if "$__all" in chosen:
        return variable.get("allValue") or ".*"
    return str(chosen[0]) if len(chosen) == 1 else f"({'|'.join(map(re.escape, map(str, chosen)))})"


def frames_text(results: Mapping[str, Any]) -> str:
    """The results of queries, by their names. https://grafana.com/developers/plugin-tools/key-concepts/data-frames"""
    lines = []
    for name, result in results.items():
        if result.get("error"):
            lines.append(f"[query {name} failed: {result['error']}]")
        frames = list(result.get("frames") or [])
        lines += [line for frame in frames for line in _frame(name, frame)]
        if not frames and not result.get("error"):
            lines.append(f"[query {name} has no data]")
    return "\n".join(lines)


def _frame(query: str, frame: Mapping[str, Any]) -> Iterator[str]:
    fields = (frame.get("schema") or {}).get("fields") or []
    columns = (frame.get("data") or {}).get("values") or []
    if not fields or not columns or not columns[0]:
        yield f"[query {query} has no data]"
        return
    if fields[0].get("type") == "time" and all(field.get("type") == "number" for field in fields[1:]):
        times = [f"{time / 1000:.15g}" for time in columns[0]]
        for field, values in zip(fields[1:], columns[1:], strict=False):
            points = " ".join(f"{time}:{_cell(value)}" for time, value in zip(times, values, strict=False))
            yield f"{query} {_series(field)} {points}"
        return
    yield f"{query} " + "\t".join(field.get("name", "") for field in fields)
    for values in zip(*columns, strict=False):
        yield "\t".join(map(_cell, values))


def _series(field: Mapping[str, Any]) -> str:
    labels = field.get("labels") or {}
    inside = ",".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    return f"{field.get('name', '')}{{{inside}}}"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def alert_line(alert: Mapping[str, Any]) -> str:
    """An alert that fires."""
    state = (alert.get("status") or {}).get("state")
    return row({**alert, "state": state}, ("state", "labels", "annotations", "startsAt", "generatorURL"))


def annotation_line(annotation: Mapping[str, Any]) -> str:
    """An annotation, with times that people can read."""
    times = {name: _time(annotation.get(name)) for name in ("time", "timeEnd")}
    if times["timeEnd"] == times["time"]:
        del times["timeEnd"]
    text = re.sub(r"<[^>]{0,1000}>", "", str(annotation.get("text") or ""))
    told = {**annotation, "timeEnd": None, **times, "text": text}
    return row(told, ("id", "time", "timeEnd", "dashboardUID", "panelId", "alertName", "newState", "text", "tags", "login"))


def _time(millis: Any) -> str | None:
    try:
        return datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="seconds") if millis else None
    except (TypeError, ValueError, OverflowError, OSError):
        return str(millis)
