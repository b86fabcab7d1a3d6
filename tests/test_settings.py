"""What an author may set, and how a deployment overrides it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from prefect_routines.errors import SettingsError
from prefect_routines.policy import Policy
from prefect_routines.settings import (
    Budget,
    Check,
    Deadlines,
    Limits,
    Repository,
    Settings,
    SettingsOverride,
    first_problem,
    merge,
    override_of,
)
from prefect_routines.when import When

DOCS = Settings(
    repositories=[Repository(url="https://example.org/docs.git"), Repository(url="https://example.org/sdk")],
    checks=[Check("docs", "make check")],
    policy=Policy(allow=["push(repository=docs) x1"], deny=["bash(rm *)"]),
    budget=Budget(turns=5, dollars=1.0),
)


def override(**fields: Any) -> BaseModel:
    return SettingsOverride(**fields)


def test_nothing_overridden_is_nothing_changed() -> None:
    """Neither by None nor by an empty form."""
    assert merge(DOCS, None) == DOCS
    assert merge(DOCS, override()) == DOCS
    assert merge(DOCS, override(budget={}, policy={}, limits={})) == DOCS


def test_what_is_absent_is_inherited() -> None:
    """Also inside a group: another number of turns leaves the dollars as they are."""
    merged = merge(DOCS, override(budget={"turns": 7}, model="claude-haiku-5-5"))
    assert (merged.budget.turns, merged.budget.dollars, merged.model) == (7, 1.0, "claude-haiku-5-5")
    assert merged.checks == DOCS.checks


def test_a_list_replaces() -> None:
    """The repositories of the deployment instead of the author's."""
    merged = merge(DOCS, override(repositories=["/srv/docs.git"]))
    assert [(repository.name, repository.url) for repository in merged.repositories] == [("docs", "/srv/docs.git")]
    assert merge(DOCS, override(policy={"allow": []})).policy.allow == []
    assert merge(DOCS, override(checks=[])).checks == []


def test_an_authors_deny_stays() -> None:
    """A deployment adds to it, and cannot take a rule away."""
    merged = merge(DOCS, override(policy={"deny": ["bash(curl *)", "bash(rm *)"], "allow": ["bash(rm *)"]}))
    assert merged.policy.deny == ["bash(rm *)", "bash(curl *)"]
    assert merge(DOCS, override(policy={"deny": []})).policy.deny == ["bash(rm *)"]


def test_values_that_are_false_count_as_set() -> None:
    """0 and False are answers, an empty field is none."""
    base = Settings(rehearsal=True, check_rounds=2)
    merged = merge(base, override(rehearsal=False, check_rounds=0))
    assert (merged.rehearsal, merged.check_rounds) == (False, 0)


def test_a_merge_that_contradicts_itself_is_refused() -> None:
    """A check of a repository that the override took away."""
    with pytest.raises(SettingsError, match=r"settings: the check 'make check' names the repository 'docs'; there is sdk"):
        merge(DOCS, override(repositories=["https://example.org/sdk"]))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"repositories": ["a/docs", "b/docs"]}, "two repositories are called docs"),
        ({"repositories": ["https://me:secret@example.org/docs"]}, "the URL contains a password"),
        ({"repositories": ["--upload-pack=x"]}, "is not the address of a repository"),
        ({"repositories": [""]}, "is not the address of a repository"),
        ({"repositories": ["a\0b"]}, "is not the address of a repository"),
        ({"repositories": ["https://example.org/.."]}, "cannot name a directory"),
        ({"repositories": [{"url": "x/y", "name": "../up"}]}, "cannot name a directory"),
        ({"checks": [{"repository": "docs", "command": "x"}]}, "there is none"),
        ({"sandbox": "none", "network": ["@python"]}, "cannot be combined"),
        ({"environment": {"A B": "x"}}, "cannot be an environment variable"),
        ({"environment": {"A": "x\0"}}, "cannot be an environment variable"),
        ({"environment": {"A\n": "x"}}, "cannot be an environment variable"),
        ({"budget": {"turns": 0}}, "budget.turns: Input should be greater than or equal to 1"),
        ({"budget": {"dollar": 1}}, "budget.dollar: Extra inputs are not permitted"),
        ({"model": ""}, "model: String should have at least 1 character"),
        ({"modle": "x"}, "modle: Extra inputs are not permitted"),
        ({"policy": {"allow": ["push("]}}, "policy.allow: 'push(' is not a rule"),
        ({"effort": "huge"}, "effort: Input should be"),
        ({"when": [{"path": "issue.title", "matches": "("}]}, "when.0: '(' is not a regular expression"),
        ({"when": [{"path": "issue.title"}]}, "when.0: the condition on 'issue.title' needs exactly one of"),
        ({"when": [{"path": "a..b", "equals": 1}]}, "when.0: 'a..b' is not a path"),
    ],
)
def test_malformed_settings_are_refused_in_one_line(fields: dict[str, Any], says: str) -> None:
    """Where, and what; never a traceback of pydantic's."""
    with pytest.raises(ValidationError) as caught:
        Settings(**fields)
    line = first_problem(caught.value)
    assert says in line
    assert "\n" not in line


def test_a_repository_is_named_after_its_address() -> None:
    """As git names a clone."""
    urls = ["https://example.org/acme/docs.git", "git@example.org:acme/docs", "/srv/git/docs.git/", "docs", "file:///srv/docs"]
    assert {Repository.model_validate(url).name for url in urls} == {"docs"}


def test_every_field_is_described_for_the_form() -> None:
    """Settings and override alike; the override has titles and no defaults of its own."""
    for model in (Settings, Repository, Budget, Deadlines, Limits, Policy, When, SettingsOverride):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
    for name, field in SettingsOverride.model_fields.items():
        assert field.default is None, name
        assert field.title
        assert field.title[0].isupper()
    assert set(SettingsOverride.model_fields) == set(Settings.model_fields)


def test_conditions_of_a_deployment_replace_the_authors() -> None:
    """As any list does; the form shows the author's in words."""
    base = Settings(when=[When(path="issue.state", equals="open")])
    assert merge(base, override(when=[{"path": "number", "is_one_of": [1, "x", True]}])).when == [
        When(path="number", is_one_of=[1, "x", True])
    ]
    assert merge(base, override(when=[])).when == []
    assert merge(base, override()).when == base.when
    assert "As set: issue.state equals 'open'." in str(override_of(Settings, base).model_fields["when"].description)


@pytest.mark.parametrize("value", ["main", 7, 2.5, False])
def test_prefect_lets_conditions_through_as_they_are_written(value: Any) -> None:
    """It checks parameters against the schema first; a number stays a number, also after the settings were kept as JSON."""
    from prefect.utilities.schema_tools import validate

    fields = {"when": [{"path": "a", "equals": value}, {"path": "b", "is_not_one_of": [value]}, {"path": "c", "present": False}]}
    validate(fields, SettingsOverride.model_json_schema(), raise_on_error=True, preprocess=True)
    merged = merge(Settings(), override(**fields))
    kept = Settings.model_validate(merged.model_dump(mode="json"))
    assert kept == merged
    assert (type(kept.when[0].equals), kept.when[0].equals) == (type(value), value)


def test_settings_cannot_be_changed_by_hand() -> None:
    """A run's settings stay what they were when it began."""
    with pytest.raises(ValidationError):
        DOCS.model = "other"  # type: ignore[misc]  # that is what is tested


def test_every_setting_can_be_imported_from_the_package() -> None:
    """Where the README imports them from; each name that is offered is there."""
    import prefect_routines

    assert prefect_routines.__all__ == sorted(prefect_routines.__all__)
    for name in prefect_routines.__all__:
        assert getattr(prefect_routines, name).__name__ == name
    assert {"Answers", "Budget", "Check", "Deadlines", "Limits", "Repository"} <= set(prefect_routines.__all__)
