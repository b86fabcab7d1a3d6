"""Webhooks of any sender: the source's block says where kind, id and labels stand, and a delivery becomes an occurrence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prefect_routines.gateway.occurrence import Occurrence, event_name, label, labels
from prefect_routines.gateway.signatures import Headers, find_header
from prefect_routines.when import segments, select

Preset = Literal["alertmanager", "grafana", "pagerduty", "datadog", "sentry"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_MOST_VALUES = 20


class Shape(BaseModel):
    """Where a source's deliveries say what. Paths are written as in `settings.when`. Empty fields are as the preset says.

    Example:
        ```python
        Shape(preset="alertmanager", labels={"team": "commonLabels.team"})
        Shape(kind_header="X-Event", id_header="X-Request-Id", key="deploy.environment", labels={"environment": "deploy.environment"})
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset | None = Field(default=None, description="A sender whose deliveries are known.")
    kind_header: str = Field(default="", description="Header that names the kind of event.", max_length=100)
    kind: str = Field(default="", description="Path to the kind of event in the payload.", max_length=500)
    action: str = Field(default="", description="Path to what happened, for the label webhook.action.", max_length=500)
    id_header: str = Field(
        default="",
        description="Header with the delivery's id, the same when it is sent again. Default: the body's hash.",
        max_length=100,
    )
    id: str = Field(default="", description="Path to that id in the payload, if no header has it.", max_length=500)
    key: str = Field(default="", description="Path to what deliveries about the same thing have in common.", max_length=500)
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels for triggers to filter on: webhook.NAME from a path.", max_length=100
    )

    @field_validator("kind", "action", "id", "key")
    @classmethod
    def _path(cls, value: str) -> str:
        if value:
            segments(value)
        return value

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name, path in value.items():
            if not _NAME.match(name) or name in ("source", "kind", "action"):
                raise ValueError(f"{name!r} cannot name a label: letters, digits, '_', '.', '-', and not source, kind or action")
            segments(path)
        return value

    def resolved(self) -> Shape:
        """The shape with the preset's fields where its own are empty; labels of both."""
        if self.preset is None:
            return self
        base = PRESETS[self.preset]
        own = {name: value for name in Shape.model_fields if (value := getattr(self, name)) and name != "labels"}
        return base.model_copy(update={**own, "labels": {**base.labels, **self.labels}})


_ALERTS = {
    "status": "status",
    "receiver": "receiver",
    "alertname": "commonLabels.alertname",
    "severity": "commonLabels.severity",
    "namespace": "commonLabels.namespace",
    "job": "commonLabels.job",
    "instance": "commonLabels.instance",
}

PRESETS: dict[str, Shape] = {
    # https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
    "alertmanager": Shape(kind="status", key="groupKey", labels=_ALERTS),
    # https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/
    "grafana": Shape(kind="status", key="groupKey", labels={**_ALERTS, "folder": "commonLabels.grafana_folder"}),
    # https://developer.pagerduty.com/docs/webhooks-overview
    "pagerduty": Shape(
        kind="event.event_type",
        id="event.id",
        key="event.data.id",
        labels={
            "status": "event.data.status",
            "urgency": "event.data.urgency",
            "priority": "event.data.priority.summary",
            "service": "event.data.service.summary",
        },
    ),
    # https://docs.datadoghq.com/integrations/webhooks/ (its default payload; custom fields need paths of their own)
    "datadog": Shape(kind="event_type", id="id", labels={"organisation": "org.name"}),
    # https://docs.sentry.io/integrations/integration-platform/webhooks/
    "sentry": Shape(
        kind_header="Sentry-Hook-Resource",
        action="action",
        id_header="Request-ID",
        key="data.issue.id",
        labels={"project": "data.issue.project.slug", "level": "data.issue.level", "status": "data.issue.status"},
    ),
}


def occurrence(source: str, shape: Shape, headers: Headers, raw: bytes, payload: Any) -> Occurrence:
    """What a delivery of a source says has happened. What is missing is a label less; nothing is an error.

    Several values at one path become one label, joined with commas.

    Args:
        source: Name of the source; the Prefect event is `webhook.SOURCE`, or `webhook.SOURCE.KIND`.
        shape: Where things stand.
        headers: Headers of the request.
        raw: The body as it came; its hash is the id of the delivery if nothing else is.
        payload: The parsed body.
    """
    shape = shape.resolved()
    headers = headers if isinstance(headers, Mapping) else list(headers)
    kind = label(find_header(headers, shape.kind_header) if shape.kind_header else None) or _value(shape.kind, payload)
    action = _value(shape.action, payload)
    key = _value(shape.key, payload)
    found = {f"webhook.{name}": _value(path, payload) for name, path in shape.labels.items()}
    return Occurrence(
        source=source,
        delivery_id=_delivery_id(shape, headers, raw, payload),
        kind=kind,
        action=action,
        event=event_name("webhook", source, kind),
        resource=labels(
            {
                "prefect.resource.id": f"webhook.{source}",
                "webhook.source": source,
                "webhook.kind": kind,
                "webhook.action": action,
                **found,
            }
        ),
        key=label(f"{source}:{key}") if key else None,
    )


def _value(path: str, payload: Any) -> str:
    if not path:
        return ""
    found = [item for value in select(path, payload) for item in (value if isinstance(value, list) else [value])]
    texts = dict.fromkeys(text for value in found if (text := label(value)))
    return label(",".join(list(texts)[:_MOST_VALUES]))


def _delivery_id(shape: Shape, headers: Headers, raw: bytes, payload: Any) -> str:
    given = (find_header(headers, shape.id_header) if shape.id_header else None) or _value(shape.id, payload)
    if not given:
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"
    # cut, two long ids could become one
    return given if len(given) <= 200 else f"sha256:{hashlib.sha256(given.encode()).hexdigest()}"
