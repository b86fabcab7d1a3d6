"""A tool of a typed Python function: schema, checks, names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from prefect_routines.errors import SettingsError, ToolError
from prefect_routines.session.session import Session
from prefect_routines.settings import Settings
from prefect_routines.tools import WORKSPACE_TOOLS
from prefect_routines.tools.tool import ToolContext, ToolResult, tool


class Severity(Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Window:
    hours: int


@tool(idempotent=True, main="service")
async def look_up(
    context: ToolContext,
    service: str,
    severity: Severity,
    window: Window,
    tags: list[str] | None = None,
    order: Literal["newest", "oldest"] = "newest",
    limit: Annotated[int, Field(ge=1, le=100)] = 10,
) -> dict[str, Any]:
    """Look incidents up.

    Only those of the last days are kept.

    Args:
        service: Name as in the
            catalogue.
        limit: At most so many.
    """
    return {"id": context.tool_use_id, "service": service, "severity": severity.value, "hours": window.hours, "tags": tags, "limit": limit}


CONTEXT = ToolContext(session_id="s", tool_use_id="toolu_1", workspace=None)  # type: ignore[arg-type]  # these tools need none


def test_the_schema_comes_from_the_signature() -> None:
    """Types, defaults, ranges and descriptions; the context is not shown to Claude."""
    schema = look_up.schema
    assert (look_up.name, look_up.description) == ("look_up", "Look incidents up.\n\nOnly those of the last days are kept.")
    assert schema["type"] == "object"
    assert list(schema["properties"]) == ["service", "severity", "window", "tags", "order", "limit"]
    assert schema["required"] == ["service", "severity", "window"]
    assert schema["properties"]["service"] == {"type": "string", "description": "Name as in the catalogue."}
    assert schema["properties"]["limit"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "default": 10,
        "description": "At most so many.",
    }
    assert schema["properties"]["order"]["enum"] == ["newest", "oldest"]
    assert schema["additionalProperties"] is False


def test_the_definition_has_the_same_bytes_every_time() -> None:
    """The cache and every thinking block rest on them."""
    assert json.dumps(look_up.definition()) == json.dumps(look_up.definition())
    assert list(look_up.definition()) == ["name", "description", "input_schema"]


async def test_arguments_reach_the_function_as_its_types() -> None:
    """Parsed, with defaults filled in; what it returns becomes text."""
    arguments = look_up.check({"service": "api", "severity": "high", "window": {"hours": 3}})
    result = await look_up(CONTEXT, arguments)
    assert json.loads(str(result.content)) == {
        "id": "toolu_1", "service": "api", "severity": "high", "hours": 3, "tags": None, "limit": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "service: Field required"),
        ({"service": "a", "severity": "low", "window": {"hours": 1}, "limit": 1000}, "limit: Input should be less than or equal to 100"),
        ({"service": "a", "severity": "mild", "window": {"hours": 1}}, "severity: Input should be 'low' or 'high'"),
        ({"service": "a", "severity": "low", "window": {}}, "window.hours: Field required"),
        ({"service": "a", "severity": "low", "window": {"hours": 1}, "colour": "red"}, "colour: Extra inputs are not permitted"),
        ("api", "input: Input should be a valid dictionary"),
        (None, "input: Input should be a valid dictionary"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(given: Any, says: str) -> None:
    """Claude hears which one, and why."""
    with pytest.raises(ToolError, match=r"the arguments of look_up do not fit: ") as caught:
        look_up.check(given)
    assert says in str(caught.value)


async def test_results_of_any_kind_become_content() -> None:
    """Text as it is, models and values as JSON, a `ToolResult` untouched."""

    class Found(BaseModel):
        count: int

    answers: list[Any] = ["text", Found(count=2), [1, "ü"], None, ToolResult("done", is_error=True)]

    @tool
    def next_answer() -> Any:
        """Give the next answer."""
        return answers.pop(0)

    results = [await next_answer(CONTEXT, {}) for _ in range(5)]
    assert [result.content for result in results] == ["text", '{"count":2}', '[1, "ü"]', "null", "done"]
    assert results[4].is_error


def test_what_claude_could_not_understand_is_refused() -> None:
    """When the module is imported, not when Claude calls it."""
    with pytest.raises(SettingsError, match="tool mute has no docstring"):

        @tool
        def mute(x: int) -> int:
            return x

    with pytest.raises(SettingsError, match="tool untyped: give the parameter 'x' a type"):

        @tool
        def untyped(x) -> int:  # type: ignore[no-untyped-def]  # that is what is tested
            """Do."""
            return 1

    with pytest.raises(SettingsError, match="tool open_ended: give the parameter 'more' a type"):

        @tool
        def open_ended(**more: int) -> int:
            """Do."""
            return 1


@pytest.mark.parametrize("name", ["has blank", "", "x" * 65, "ünï", "a.b"])
def test_a_name_that_the_api_refuses_is_refused_at_once(name: str) -> None:
    """It would fail every request."""
    with pytest.raises(SettingsError, match="name"):

        @tool(name=name)
        def fine() -> str:
            """Do."""
            return ""


def test_a_main_or_target_argument_exists() -> None:
    """A slip in its name would make rules match nothing."""
    for options in ({"main": "servcie"}, {"target": "servcie"}):
        with pytest.raises(SettingsError, match="servcie"):

            @tool(**options)  # type: ignore[arg-type]  # the options are strings
            def fine(service: str) -> str:
                """Do."""
                return service


def test_two_tools_of_one_name_are_refused() -> None:
    """Also when one is the workspace's own."""

    @tool(name="bash")
    def other() -> str:
        """Do."""
        return ""

    with pytest.raises(SettingsError, match="two tools are called 'bash'"):
        Session("main", Settings(), tools=[other])


def test_a_rule_that_names_no_tool_is_refused() -> None:
    """A `deny` with a slip in it would deny nothing."""
    wrong = {
        "bsh(rm *)": "names no tool of this routine; did you mean bash?",
        "fly": "names no tool of this routine; there is bash, edit,",
        "bash(cmd=rm *)": "names an argument that is not there; bash has command, timeout",
    }
    for rule, said in wrong.items():
        with pytest.raises(SettingsError) as caught:
            Session("main", Settings.model_validate({"policy": {"deny": [rule]}}))
        assert f"the rule '{rule}' {said}" in str(caught.value)


def test_titles_are_for_people() -> None:
    """The tool and its main argument."""
    assert look_up.title({"service": "api", "limit": 3}) == "look_up: api"
    assert look_up.title({}) == "look_up"


def test_the_tools_of_the_workspace_are_described() -> None:
    """Each argument has a description, since Claude sees nothing else."""
    for one in WORKSPACE_TOOLS:
        assert one.description
        for name, schema in one.schema["properties"].items():
            assert schema.get("description"), f"{one.name}.{name}"
