"""Which part of a trigger says no to a past delivery."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.deploying.files import read_file
from prefect_routines.gateway.decisions import Origin
from prefect_routines.gateway.targets import Target, targets_of
from prefect_routines.gateway.trial import per_day, targets_of_stanza, trial, try_out, with_conditions
from prefect_routines.store import Delivery, Store
from prefect_routines.when import When

from .inbox_world import answering, deliver, issue

ID = "00000000-0000-0000-0000-000000000001"
GATED = {"prefect.resource.id": f"prefect.deployment.{ID}", "prefect.resource.role": "routines-deployment"}


def _targets(*triggers: dict[str, Any], paused: bool = False, settings: dict[str, Any] | None = None) -> list[Target]:
    made = [
        {
            "trigger": {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0, **trigger},
            "actions": [{"type": "run-deployment", "deployment_id": ID, "parameters": {"event": "{{ event.id | string }}"}}],
        }
        for trigger in triggers
    ]
    deployment = {"id": ID, "name": "d", "flow_name": "f", "paused": paused, "parameters": {"settings": settings or {}}}
    return targets_of(made, {ID: deployment})


OPENED: dict[str, Any] = {"expect": ["github.issues.opened"], "match": {"github.repository": "acme/docs"}, "match_related": [GATED]}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}") as store:
        yield store


async def _nobody(source: str) -> list[str]:
    return ["docs-bot"]


@pytest.mark.parametrize(
    ("trigger", "part", "told"),
    [
        (OPENED, "fires", ""),
        (OPENED | {"expect": ["github.issues.closed", "github.push"]}, "event", "it is github.issues.opened, not github.issues.closed or"),
        (OPENED | {"expect": ["github.issues"]}, "event", "it is github.issues.opened, not github.issues"),
        (OPENED | {"match": {"github.repository": ["acme/*", "!x"], "github.actor": "bob"}}, "match", "github.actor is 'ann', not 'bob'"),
        (OPENED | {"match": {"github.base": "main"}}, "match", "github.base is absent, not 'main'"),
        (
            OPENED | {"match_related": [GATED, {"prefect.resource.role": "label", "github.label": ["docs", "doc"]}]},
            "match_related",
            "github.label 'docs' or 'doc'; there: github.label.bug",
        ),
        (OPENED | {"match_related": {"github.label": "docs"}}, "match_related", "github.label 'docs'; there: github.user.ann"),
        (OPENED | {"expect": ["github.issues.opened*"]}, "event", "github.issues.opened, and github.issues.opened* needs a character more"),
        (OPENED | {"threshold": 2, "within": 60}, "counted", "Prefect counts"),
    ],
)
async def test_the_part_that_says_no(store: Store, trigger: dict[str, Any], part: str, told: str) -> None:
    """The name of the event, a label, a related resource - with what is there instead - or Prefect, which counts."""
    delivery = await deliver(store, "issues", issue("acme/docs", labels=[{"name": "bug"}]))
    found = trial(_targets(trigger), delivery, delivery.payload())
    assert found.part == part
    assert told in found.reason
    assert "routines-deployment" not in found.reason


async def test_what_comes_after_the_trigger(store: Store) -> None:
    """Whose doing it is, then the payload; a pause hides neither."""
    delivery = await deliver(store, "issues", issue("acme/docs"))
    settings = {"when": [{"path": "issue.title", "contains": "docs"}]}
    for paused in (False, True):
        filtered = trial(_targets(OPENED, paused=paused, settings=settings), delivery, delivery.payload())
        assert filtered.part == "when"
        assert "issue.title contains 'docs': it is 'It is broken'" in filtered.reason
    assert trial(_targets(OPENED, paused=True), delivery, delivery.payload()).part == "paused"
    ours = Origin(ours=True, why="one of our sessions wrote it", depth=3)
    assert trial(_targets(OPENED), delivery, delivery.payload(), ours).part == "own events"
    assert trial(_targets(OPENED, settings={"own_events": "all"}), delivery, delivery.payload(), ours).part == "chain depth"
    assert trial(_targets(OPENED, settings={"chain_depth": 0}), delivery, delivery.payload()).part == "settings"


async def test_of_several_triggers_the_one_that_came_furthest_tells(store: Store) -> None:
    """A routine with two triggers fires if one does."""
    delivery = await deliver(store, "issues", issue("acme/docs"))
    push, elsewhere = OPENED | {"expect": ["github.push"]}, OPENED | {"match": {"github.repository": "acme/sdk"}}
    assert trial(_targets(push, elsewhere, push), delivery, None).part == "match"
    assert trial(_targets(push, OPENED, elsewhere), delivery, None).part == "fires"


async def test_other_conditions_can_be_tried(store: Store) -> None:
    """They take the place of the routine's own."""
    delivery = await deliver(store, "issues", issue("acme/docs"))
    targets = _targets(OPENED, settings={"when": [{"path": "issue.title", "contains": "docs"}]})
    tried = with_conditions(targets, [When(path="issue.title", contains="broken")])
    assert trial(tried, delivery, delivery.payload()).part == "fires"


async def test_the_last_deliveries(store: Store) -> None:
    """Newest first, as many as wanted; pings, calls, what a person gave and replays are no events of senders. Our identity is known."""
    for number in range(4):
        await deliver(store, "issues", issue("acme/docs", number=number, sender="docs-bot" if number == 1 else "ann"))
    await deliver(store, "ping", {"zen": "x"}, event="", status="ping")
    await deliver(store, "issues", issue("acme/docs"), labels={"replay_of": "x"})
    await store.record_delivery(Delivery("evt-1", "person", "evt-1", "text", "go"))
    await store.record_delivery(Delivery(str(uuid.uuid4()), "api", "c", "fire", "{}", event="routines.fire"))
    found = await try_out(store, _targets(OPENED), _nobody, last=3)
    assert [(one.delivery.number, one.part) for one in found] == [(3, "fires"), (2, "fires"), (1, "own events")]
    assert all(one.delivery.body == "" for one in found)
    assert len(await try_out(store, _targets(OPENED), _nobody, last=50)) == 4


async def test_how_often_it_would_start(store: Store) -> None:
    """Over the time from the oldest that was tried until now."""
    at = datetime.now(UTC) - timedelta(days=2)
    delivery = await deliver(store, "issues", issue("acme/docs"), received_at=at)
    one = trial(_targets(OPENED), delivery, None)
    no = dataclasses.replace(one, part="event")
    daily, days = per_day([one, no, one, no])
    assert daily == pytest.approx(1.0, abs=0.01)
    assert days == pytest.approx(2.0, abs=0.01)
    assert per_day([]) == (0.0, 0.0)


async def test_a_file_that_is_not_deployed(store: Store, tmp_path: Path) -> None:
    """Its triggers, with the author's and the deployment's settings, as they would be once deployed."""
    file = tmp_path / "x.yaml"
    file.write_text("""
deployments:
  - name: main
    entrypoint: flows/x.py:answer
    parameters: {settings: {when: [{path: issue.title, contains: docs}]}}
    triggers:
      - {expect: [github.issues.opened], match: {github.repository: acme/docs}, parameters: {event: "{{ event.id | string }}"}}
""")
    [stanza], problems = read_file(file)
    assert problems == []
    targets = targets_of_stanza(stanza, answering())
    parts = []
    for title in ("About the docs", "Else"):
        delivery = await deliver(store, "issues", issue("acme/docs", title=title))
        parts.append(trial(targets, delivery, delivery.payload()).part)
    assert parts == ["fires", "when"]
    assert targets[0].deployment == "answer/main"
