"""Paths have one spelling, so that a rule about one holds however Claude writes it."""

from __future__ import annotations

import pytest

from prefect_routines.errors import SettingsError
from prefect_routines.policy import Policy, decide
from prefect_routines.session.session import Session
from prefect_routines.settings import Settings
from prefect_routines.tools import WORKSPACE_TOOLS

TOOLS = {tool.name: tool for tool in WORKSPACE_TOOLS}


@pytest.mark.parametrize("path", ["docs/x.md", "./docs/x.md", "/workspace/docs/x.md", "docs//x.md", "src/../docs/x.md"])
@pytest.mark.parametrize("name", ["edit", "write", "read"])
def test_a_rule_holds_for_every_spelling(name: str, path: str) -> None:
    """What the policy sees is what is then opened."""
    rest = {"edit": {"old_string": "a", "new_string": "b"}, "write": {"content": ""}, "read": {}}[name]
    arguments = TOOLS[name].check({"path": path, **rest})
    assert arguments["path"] == "docs/x.md"
    decision = decide(Policy(deny=[f"{name}(docs/*)"]), name, arguments, main=TOOLS[name].main, writes=False)
    assert decision.answer == "deny"


def test_paths_outside_stay_as_they_are() -> None:
    """The sandbox decides about them."""
    assert TOOLS["read"].check({"path": "/etc/../etc/hosts"})["path"] == "/etc/hosts"
    assert TOOLS["read"].check({"path": "../x"})["path"] == "/x"


def test_a_rule_that_could_never_match_is_refused() -> None:
    """An author who writes the whole path is told how rules name it."""
    with pytest.raises(SettingsError, match=r"count from /workspace; leave that out, e\.g\. 'edit\(docs/\*\)'"):
        Session(settings=Settings(policy=Policy(deny=["edit(/workspace/docs/*)"])))
