"""What a person types as parameters and settings, checked before anything starts."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest

from prefect_routines import Event, Limits, SettingsError, routine
from prefect_routines.cli.parameters import given_parameters, given_settings


@routine
def example(
    prompt: str,
    count: int = 1,
    labels: list[str] = [],  # noqa: B006 - as an author may write it
    day: date | None = None,
    depth: Literal["shallow", "deep"] = "deep",
    note: str | None = None,
    event: Event | None = None,
    limits: Limits | None = None,
    anything: Any = None,
) -> str:
    """Parameters of all kinds."""
    return prompt


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count=3", 3),
        ('labels=["a", "b"]', ["a", "b"]),
        ("day=2026-03-01", "2026-03-01"),
        ("depth=shallow", "shallow"),
        ("note=3", "3"),
        ('note={"a": 1}', '{"a": 1}'),
        ("note=a=b", "a=b"),
        ("note=", ""),
        ('limits={"memory_mb": 64}', {"memory_mb": 64}),
        ("event=e1", "e1"),
        ("anything=true", True),
        ("anything=yes, it is", "yes, it is"),
    ],
)
def test_a_value_is_read_as_the_parameter_is_declared(text: str, value: object) -> None:
    """Text stays as it stands where the parameter takes text; elsewhere it is JSON if it can be."""
    assert given_parameters(example, ["prompt=x", text], {})[text.partition("=")[0]] == value


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "example needs the parameter prompt: --param prompt=..."),
        (["prompt"], "write it as NAME=VALUE"),
        (["prompt=x", "nope=1"], "example has no parameter 'nope'; it has: prompt, count, labels, day, depth, note, event, limits, any"),
        (["prompt=x", "prompt=y"], "the parameter 'prompt' is given twice"),
        (["prompt=x", "count=many"], "parameter count: Input should be a valid integer"),
        (["prompt=x", "labels=[1]"], "parameter labels.0: Input should be a valid string"),
        (["prompt=x", "depth=5"], "parameter depth: Input should be 'shallow' or 'deep'"),
        (["prompt=x", "day=some day"], "parameter day: "),
        (["prompt=x", "settings.model=y"], "`--set` change settings"),
        (["prompt=\udcff"], "parameter 'prompt' contains a lone surrogate (\\udcff)"),
        (["prompt=x", 'labels=["\\ud800"]'], "parameter 'labels' contains a lone surrogate (\\ud800)"),
        (["prompt=x", 'anything={"a": {"b\\u0000": 1}}'], "parameter 'anything' contains a NUL character"),
        (["prompt=" + "x" * 600_000], "--payload"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(texts: list[str], said: str) -> None:
    """Unknown, missing, doubled and wrong parameters, and text that nothing can store, are refused in one line."""
    with pytest.raises(SettingsError) as caught:
        given_parameters(example, texts, {})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_come_from_a_file_and_from_assignments(tmp_path: Path) -> None:
    """YAML and JSON files are read; `--set` comes on top, `--rehearsal` last; what is not set is absent."""
    file = tmp_path / "settings.yaml"
    file.write_text("repositories: [/srv/docs.git]\nbudget: {turns: 9, dollars: 2}\n")
    assert given_settings(file, ["budget.turns=5", "model=claude-opus-5-5", "network=['@python']"], rehearsal=True) == {
        "repositories": [{"url": "/srv/docs.git", "name": "docs", "guarded": []}],
        "budget": {"turns": 5, "dollars": 2.0},
        "model": "claude-opus-5-5",
        "network": ["@python"],
        "rehearsal": True,
    }
    (tmp_path / "settings.json").write_text('{"effort": "low"}')
    assert given_settings(tmp_path / "settings.json", [], rehearsal=False) == {"effort": "low"}
    assert given_settings(None, [], rehearsal=False) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"budget: {turns: many}", "budget.turns: Input should be a valid integer"),
        (b"repositorys: []", "there is no setting 'repositorys'"),
        (b"budget: {turn: 1}", "there is no setting 'budget.turn'"),
        (b"a: [", "settings.yaml, line"),
        (b"- model", "it must hold names and values"),
        (b"model: \xff", "it is not UTF-8 text"),
        (b'model: "a\\0b"', "contains a NUL character"),
        (b"environment: {TOKEN: 1}", "environment.TOKEN: Input should be a valid string"),
        (b"repositories: ['https://me:secret@example.org/x']", "the URL contains a password"),
    ],
)
def test_malformed_settings_are_refused_with_their_place(tmp_path: Path, content: bytes, said: str) -> None:
    """A settings file that cannot be read or does not fit is refused in one line that names the file."""
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        given_settings(file, [], rehearsal=False)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("model", "write it as KEY=VALUE"),
        ("budget=[", "not valid YAML"),
        ("modle=x", "there is no setting 'modle'"),
        ("model.name=x", "model: Input should be a valid string"),
    ],
)
def test_malformed_assignments_are_refused(assignment: str, said: str) -> None:
    """`--set` is checked like a settings file."""
    with pytest.raises(SettingsError, match=r"^[^\n]+$") as caught:
        given_settings(None, [assignment], rehearsal=False)
    assert said in str(caught.value)


def test_a_settings_file_that_is_missing_is_named() -> None:
    """A file that is not there is told by name."""
    with pytest.raises(SettingsError, match=r"settings file nowhere\.yaml: No such file"):
        given_settings(Path("nowhere.yaml"), [], rehearsal=False)
