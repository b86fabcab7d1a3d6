"""What the webhooks of any sender become."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prefect_routines.gateway.webhooks import PRESETS, Shape, occurrence

SAMPLES = Path(__file__).parent / "samples"
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["event", "status", "data", "id", "groupKey", "issue"]), inner)
    ),
)


def sample(name: str) -> tuple[bytes, Any]:
    raw = (SAMPLES / f"{name}.json").read_bytes()
    return raw, json.loads(raw)


def test_a_source_without_a_shape() -> None:
    """Its name, and the body's hash as id: the same body sent again is the same delivery."""
    found = occurrence("deploys", Shape(), {}, b"hello", "hello")
    assert (found.event, found.kind, found.key, found.related) == ("webhook.deploys", "", None, [])
    assert found.resource == {"prefect.resource.id": "webhook.deploys", "webhook.source": "deploys"}
    assert found.delivery_id == f"sha256:{hashlib.sha256(b'hello').hexdigest()}"


def test_kind_id_key_and_labels_stand_where_the_source_says() -> None:
    """In headers or in the payload; several values are one label."""
    shape = Shape(
        kind_header="X-Event",
        kind="type",
        action="what",
        id_header="X-Request-Id",
        id="id",
        key="deploy.environment",
        labels={"environment": "deploy.environment", "services": "deploy.services.*.name", "ok": "deploy.ok", "nothing": "a.b"},
    )
    payload = {
        "type": "deploy",
        "what": "done",
        "id": 17,
        "deploy": {"environment": "prod", "ok": True, "services": [{"name": "shop"}, {"name": "cart"}, {"name": "shop"}]},
    }
    found = occurrence("cd", shape, [(b"x-event", b"deploy finished"), (b"x-request-id", b"r-1")], b"", payload)
    assert (found.event, found.kind, found.delivery_id, found.key) == ("webhook.cd.deploy_finished", "deploy finished", "r-1", "cd:prod")
    labels = {name: text for name, text in found.resource.items() if name not in ("prefect.resource.id", "webhook.source")}
    assert labels == {
        "webhook.kind": "deploy finished",
        "webhook.action": "done",
        "webhook.environment": "prod",
        "webhook.services": "shop,cart",
        "webhook.ok": "true",
    }
    without = occurrence("cd", shape, [], b"", payload)
    assert (without.kind, without.delivery_id) == ("deploy", "17")
    twice = occurrence("cd", shape, [(b"x-request-id", b"r-1"), (b"x-request-id", b"r-2")], b"", payload)
    assert twice.delivery_id == "17"


def test_alertmanager() -> None:
    """Groups are the same thing over time: their key joins further deliveries."""
    raw, payload = sample("alertmanager")
    found = occurrence("alerts", Shape(preset="alertmanager", labels={"team": "commonLabels.team"}), {}, raw, payload)
    assert (found.event, found.key) == ("webhook.alerts.firing", 'alerts:{}:{alertname="HighErrors"}')
    assert (found.resource["webhook.alertname"], found.resource["webhook.severity"], found.resource["webhook.team"]) == (
        "HighErrors",
        "critical",
        "shop",
    )
    assert "webhook.job" not in found.resource


def test_pagerduty() -> None:
    """Its own id marks an event that is sent again."""
    raw, payload = sample("pagerduty")
    found = occurrence("pd", Shape(preset="pagerduty"), {}, raw, payload)
    assert (found.event, found.key) == ("webhook.pd.incident.triggered", "pd:PT4KHLK")
    assert found.delivery_id == "5ac64822-4adc-4fda-ade0-410becf0de4f"
    assert found.resource["webhook.service"] == "Mail"


def test_sentry() -> None:
    """The kind stands in a header."""
    payload = {"action": "created", "data": {"issue": {"id": "9", "level": "error", "project": {"slug": "shop"}}}}
    found = occurrence("sentry", Shape(preset="sentry"), {"Sentry-Hook-Resource": "issue", "Request-ID": "u-1"}, b"", payload)
    assert (found.event, found.action, found.delivery_id, found.key) == ("webhook.sentry.issue", "created", "u-1", "sentry:9")


def test_what_a_source_sets_goes_before_its_preset() -> None:
    """Field by field; labels by name."""
    shape = Shape(preset="alertmanager", kind="receiver", labels={"severity": "commonLabels.level"}).resolved()
    assert (shape.kind, shape.key, shape.labels["severity"], shape.labels["alertname"]) == (
        "receiver",
        "groupKey",
        "commonLabels.level",
        "commonLabels.alertname",
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "a..b"}, "is not a path"),
        ({"labels": {"x": "a..b"}}, "is not a path"),
        ({"labels": {"x": ""}}, "is not a path"),
        ({"labels": {"a b": "x"}}, "cannot name a label"),
        ({"labels": {"source": "x"}}, "cannot name a label"),
        ({"preset": "nagios"}, "Input should be"),
    ],
)
def test_a_shape_that_cannot_work_is_refused_when_it_is_made(fields: dict[str, Any], says: str) -> None:
    """Not when the first delivery arrives."""
    with pytest.raises(ValidationError, match=says):
        Shape(**fields)


def test_presets_are_shapes_of_their_own() -> None:
    """None leans on another one."""
    for name, shape in PRESETS.items():
        assert shape.resolved() is shape, name


@given(st.sampled_from([None, *sorted(PRESETS)]), st.text(max_size=30), anything)
def test_no_payload_raises_anything(preset: Any, header: str, payload: Any) -> None:
    """Whatever arrives, there is an occurrence whose texts can be sent on."""
    headers = {"Sentry-Hook-Resource": header, "Request-ID": header}
    found = occurrence("any", Shape(preset=preset), headers, b"x", payload)
    for text in (*found.resource.values(), found.event, found.delivery_id, found.key or ""):
        assert not set(text) & set("\n\r\t\x00\x1b")
        assert text.encode("utf-8").decode() == text
        assert len(text) <= 1024
    assert found.delivery_id
