"""Names of events: each that can come is taken, each slip is told with what was meant."""

from __future__ import annotations

import pytest

from prefect_routines.deploying.event_names import event_problems, name_problem

from .stanzas import trigger


@pytest.mark.parametrize(
    "name",
    [
        "github.push", "github.issues.opened", "github.issues.*", "github.pull_request*", "github.*", "*", "github.release.published",
        "github.repository_dispatch.deploy-done", "github.check_run.completed", "webhook.alerts", "webhook.alerts.firing", "webhook.*",
        "prefect.flow-run.Failed", "prefect.flow-run.*", "prefect.work-pool.not-ready", "routines.silence.late",
    ],
)  # fmt: skip
def test_a_name_that_can_come_is_taken(name: str) -> None:
    """GitHub's events and actions, webhooks that have a block, Prefect's own."""
    assert name_problem(name, ["alerts"]) is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("github.issues.open", "issues has no action 'open'; did you mean 'opened'?"),
        ("github.issue.opened", "GitHub sends no such event; did you mean 'github.issues.opened'?"),
        ("github.pull_request.merged", "pull_request has no action 'merged'; there is assigned"),
        ("github.pull_request", "never comes alone: write github.pull_request.* or one of its actions"),
        ("github.push.created", "push has no actions; write github.push"),
        ("gihub.issues.opened", "is no known event; did you mean 'github.issues.opened'?"),
        ("issues.opened", "is no known event; did you mean 'github.issues.opened'?"),
        ("github.*.opened", "a wildcard can only stand at the end"),
        ("webhook.alert", "no block webhook-source/alert, so nothing can deliver it; did you mean 'alerts'?"),
        ("webhook.ci.done", "nothing can deliver it; there is alerts; make it with: WEBHOOK_SECRET=... python blocks/save_webhook.py ci"),
        ("prefect.flow-run.Finished", "Prefect has no event of that name; there is Scheduled"),
        ("prefect.flow-run.failed", "did you mean 'Failed'?"),
    ],
)
def test_a_name_that_nobody_emits_is_told(name: str, said: str) -> None:
    """Such a trigger would never fire and never say so."""
    found = name_problem(name, ["alerts"])
    assert found is not None
    assert found[1] == "error"
    assert said in found[0]


def test_a_wildcard_that_looks_as_if_it_took_in_a_source_is_told() -> None:
    """Prefect's own matching wants a character in its place, so the source without a kind is left out."""
    found = name_problem("webhook.alerts*", ["alerts"])
    assert found == (
        "'webhook.alerts*' does not take webhook.alerts itself: '*' is one character at least; to take both, write both",
        "warning",
    )
    assert name_problem("webhook.al*", ["alerts"]) is None
    assert name_problem("webhook.*", ["alerts"]) is None


@pytest.mark.parametrize("name", ["webhook.alerts.received", "webhook.alerts.*"])
def test_a_source_that_names_no_kind_has_one_event_only(name: str) -> None:
    """Its deliveries all become `webhook.NAME`: a longer name would wait for ever."""
    found = name_problem(name, ["alerts"], kindless=["alerts"])
    assert found == (
        f"{name!r} never comes: webhook-source/alerts does not say where its kind stands; write webhook.alerts, or fill it in",
        "error",
    )
    assert name_problem("webhook.alerts", ["alerts"], kindless=["alerts"]) is None


def test_an_event_of_the_users_own_is_possible() -> None:
    """Any program can emit events into Prefect: a warning, no error."""
    found = name_problem("acme.deploy.finished", [])
    assert found is not None
    assert found[1] == "warning"


def test_a_trigger_that_expects_nothing_would_start_on_everything() -> None:
    """Prefect takes no `expect` for all events of the server."""
    [problem] = event_problems(trigger("match: {github.repository: acme/docs}"), [])
    assert "every event of the whole server" in problem.text
    [problem] = event_problems(trigger("expect: [1]"), [])
    assert "expect must be a list of names" in problem.text
    assert not list(event_problems(trigger("posture: Proactive, within: 60, expect: [prefect.flow-run.*]"), []))
