"""Triggers: labels that no event has, text of strangers on its way to Prefect, and what a trigger says in words."""

from __future__ import annotations

import pytest

from prefect_routines.deploying.triggers import in_words, injectable, match_problems, parameter_problems

from .stanzas import stanza, trigger

ISSUES = "expect: [github.issues.opened]"
PULLS = "expect: [github.pull_request.closed]"


@pytest.mark.parametrize(
    "text",
    [
        f"{ISSUES}, match: {{github.repository: acme/docs, github.actor: '!acme-bot'}}",
        f"{ISSUES}, match: {{prefect.resource.id: github.repository.acme/*}}",
        f"{ISSUES}, match: {{prefect.resource.id: 'github.*'}}",
        f"{PULLS}, match: {{github.merged: 'true', github.base: [main, 'release-*']}}",
        f"{PULLS}, match_related: [{{prefect.resource.role: label, github.label: a}}, {{prefect.resource.role: author, github.login: b}}]",
        f"{PULLS}, match_related: {{prefect.resource.id: github.label.needs-docs}}",
        "expect: [github.issues.*], match: {github.action: [opened, labeled]}",
        "expect: [webhook.alerts], match: {severity: critical}",
        "expect: [prefect.flow-run.Failed], match_related: {prefect.resource.role: flow, prefect.resource.name: nightly}",
        "expect: [github.repository_dispatch.*], match: {github.action: whatever}",
    ],
)
def test_a_filter_that_can_match_is_taken(text: str) -> None:
    """Labels that the gateway gives, and any of events that are not GitHub's."""
    assert [problem.text for problem in match_problems(trigger(text))] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ISSUES}, match: {{github.repo: acme/docs}}", "no event of GitHub's has the label 'github.repo'"),
        (f"{ISSUES}, match: {{github.title: '*docs*'}}", "use `settings.when` on the payload"),
        (f"{ISSUES}, match: {{github.label: docs}}", "put it under `match_related`"),
        (f"{PULLS}, match: {{github.merged: true}}", 'put it into quotes: "true"'),
        (f"{PULLS}, match: {{github.number: 7}}", 'put it into quotes: "7"'),
        (f"{PULLS}, match: {{github.merged: 'yes'}}", "'yes' can match nothing; there it is false, true"),
        (f"{PULLS}, match: {{github.action: opened}}", "'opened' can match nothing; there it is closed"),
        (f"{PULLS}, match: {{github.event: issues}}", "'issues' can match nothing; there it is pull_request"),
        (f"{ISSUES}, match: {{prefect.resource.id: acme/docs}}", "it begins with github.repository."),
        (f"{ISSUES}, match_related: {{github.labels: docs}}", "did you mean 'github.label'?"),
        (f"{ISSUES}, match_related: {{prefect.resource.role: labels, github.label: docs}}", "'labels' can match nothing; there it is"),
        (f"{ISSUES}, match: {{github.actor: ['!bot-*', '*']}}", "one of several values is enough"),
        (f"{ISSUES}, match: [a]", "match must hold labels and values"),
    ],
)
def test_a_filter_that_can_match_nothing_is_told(text: str, said: str) -> None:
    """With the label that was meant, or where to put it."""
    found = [problem.text for problem in match_problems(trigger(text))]
    assert any(said in one for one in found), found


@pytest.mark.parametrize(
    "value",
    [
        "{{ event.payload }}", "{{event.payload.issue.title}}", "{{ event['payload'] }}", "about {{ event.payload.x }} and more",
        "{{ event }}", "{{ event | tojson }}", "{{ events }}", "{{ firing.triggering_event }}", {"a": ["{{ event.payload }}"]},
        "{% for x in event.payload %}{{ x }}{% endfor %}", {"__prefect_kind": "jinja", "template": "{{ event.payload | tojson }}"},
    ],
)  # fmt: skip
def test_a_payload_never_travels_through_prefect(value: object) -> None:
    """At any depth and in any spelling."""
    assert injectable(value)


@pytest.mark.parametrize(
    "value", ["{{ event.id }}", "{{ event.resource.id }}", "{{ event.occurred }}", "payload", 3, None, ["x"], "{{ deployment.name }}"]
)
def test_names_and_ids_may_travel(value: object) -> None:
    """They hold no text that a stranger chose freely."""
    assert not injectable(value)


def test_what_a_trigger_passes_fits_the_routine() -> None:
    """A payload is refused with the remedy, and so is a parameter that the routine has not."""

    def said(text: str, *parameters: str) -> list[str]:
        return [problem.text for problem in parameter_problems(trigger(text), parameters, is_routine=True)]

    [one] = said(f"{ISSUES}, parameters: {{event: '{{{{ event.payload }}}}'}}", "event")
    assert 'pass the id only - event: "{{ event.id | string }}"' in one
    [one] = said(f"{ISSUES}, parameters: {{evnt: '{{{{ event.id | string }}}}', event: '{{{{event.id|string}}}}'}}", "event")
    assert "the trigger passes 'evnt', and the routine has no such parameter; did you mean 'event'?" in one
    [one] = said(f"{ISSUES}, parameters: {{event: '{{{{ event.id }}}}'}}", "event")
    assert 'would start nothing; write event: "{{ event.id | string }}"' in one
    [one] = said(f"{ISSUES}, parameters: {{event: '7'}}", "event")
    assert "event takes the id" in one
    [one] = said(ISSUES, "event")
    assert "the run does not learn what started it" in one
    assert said(f"{ISSUES}, parameters: {{event: '{{{{ event.id | string }}}}'}}", "event") == []
    [one] = said("expect: [prefect.flow-run.Failed], job_variables: {env: {X: '{{ event.payload }}'}}", "event")
    assert "job_variables hand a stranger's text" in one


def test_triggers_inside_compound_ones_are_looked_at() -> None:
    """They can be as wrong as others."""
    text = """\
        triggers:
          - type: compound
            require: all
            within: 60
            triggers:
              - {expect: [github.push], match: {github.branch: main}}
        """
    [problem] = match_problems(stanza(text))
    assert "'github.branch'" in problem.text
    assert problem.line == 9


def test_a_trigger_in_words() -> None:
    """As one would say it; the gate that deploying adds is left out."""
    gate = {"prefect.resource.role": "routines-deployment", "prefect.resource.id": "prefect.deployment.x"}
    label = {"prefect.resource.role": "label", "github.label": "needs-docs"}
    one = {
        "expect": ["github.pull_request.closed"],
        "match": {"github.merged": "true", "github.actor": "!bot"},
        "match_related": [label, gate],
    }
    assert (
        in_words(one) == "on github.pull_request.closed where github.merged is true and github.actor is not bot and a label is needs-docs"
    )
    assert in_words({"expect": ["prefect.flow-run.*"], "posture": "Proactive"}) == "when prefect.flow-run.* stays away"
    assert in_words({"type": "sequence", "triggers": [{"expect": ["a"]}, {"expect": ["b"]}]}) == "on a, then on b"
