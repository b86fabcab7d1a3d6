"""What every session is told."""

from __future__ import annotations

from prefect_routines.session.prompt import system_prompt
from prefect_routines.settings import Check, Repository, Settings

DOCS = Settings(
    repositories=[Repository(url="https://example.org/docs")], checks=[Check("docs", "make check")], network=["@python", "api.example.org"]
)


def prompt(settings: Settings, guidelines: list[str] | None = None, event: bool = False) -> str:
    [block] = system_prompt(settings, guidelines=guidelines or [], event=event)
    assert block["type"] == "text"
    return str(block["text"])


def test_it_names_what_there_is() -> None:
    """Repositories, checks, hosts, guidelines and the event, by name only."""
    text = prompt(DOCS, ["docs"], event=True)
    for part in (
        "/workspace/docs (https://example.org/docs)",
        "docs: make check",
        "@python, api.example.org",
        "`read_guidelines`",
        "`read_event`",
    ):
        assert part in text


def test_it_is_silent_of_what_there_is_not() -> None:
    """A tool that does not exist is not named."""
    text = prompt(Settings())
    for part in ("read_event", "read_guidelines", "`push`", "fresh checkout"):
        assert part not in text
    assert "It has no network." in text


def test_it_is_the_same_on_every_day() -> None:
    """No date, no id: the cache and the thinking rest on its bytes."""
    assert system_prompt(DOCS, guidelines=["docs"], event=True) == system_prompt(DOCS, guidelines=["docs"], event=True)
