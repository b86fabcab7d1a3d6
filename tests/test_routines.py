"""What a routine is: a Prefect flow whose function returns the prompt."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, flow, get_client
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from prefect_routines import Budget, Check, Event, Outcome, Policy, Routine, RoutinesError, Session, Settings, SettingsError, routine
from prefect_routines.testing import Request, ScriptedClaude, call, fail, say
from prefect_routines.testing.forge import LocalForge
from prefect_routines.tools.tool import tool
from prefect_routines.verdict import WorkNotDone
from session.world import NOTHING, artifacts, found, run

ROOT = Path(__file__).parents[1]


@tool
def look(where: str) -> str:
    """Look.

    Args:
        where: Where.
    """
    return "nothing there"


@routine(budget={"turns": 3}, tools=[look], model="claude-haiku-5-5")
def watch(service: str, days: int = 7, event: Event | None = None) -> str:
    """Watch a service.

    Args:
        service: Name as in the catalogue.
        days: How far back.
    """
    return f"Watch {service} for {days} days, {event.number if event else 'without event'}."


def test_it_works_bare_and_called() -> None:
    """Both are flows with the function's name and description."""

    @routine
    def tidy_up() -> str:
        """Tidy up."""
        return "Tidy up."

    assert isinstance(tidy_up, Flow)
    assert isinstance(watch, Routine)
    assert (tidy_up.name, watch.name) == ("tidy-up", "watch")
    assert watch.description == "Watch a service.\n\nArgs:\n    service: Name as in the catalogue.\n    days: How far back."
    assert watch.settings.budget == Budget(turns=3)


def test_fields_beside_settings_replace_its_own() -> None:
    """`settings=` for all of them, a name for one."""

    @routine(settings=Settings(model="a", budget=Budget(turns=3)), model="b", name="other", flow={"retries": 2})
    def anything() -> str:
        """Do."""
        return "x"

    assert (anything.settings.model, anything.settings.budget.turns, anything.name, anything.retries) == ("b", 3, "other", 2)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"modle": "x"}, "@routine has no argument 'modle'; did you mean 'model'?"),
        ({"checks": [Check("docs", "x")]}, "@routine: the check 'x' names the repository 'docs'; there is none"),
        ({"policy": {"deny": ["bash("]}}, "@routine: policy.deny: 'bash(' is not a rule"),
    ],
)
def test_malformed_settings_are_refused_where_they_stand(fields: dict[str, Any], says: str) -> None:
    """At the decorator, in one line."""
    with pytest.raises(SettingsError) as caught:

        @routine(**fields)
        def anything() -> str:
            """Do."""
            return "x"

    assert says in str(caught.value)


def test_the_parameter_of_the_settings_is_reserved() -> None:
    """An author's own would be hidden by it."""
    with pytest.raises(SettingsError, match="'settings' is reserved"):

        @routine
        def anything(settings: str) -> str:
            """Do."""
            return settings


def test_the_form_is_readable() -> None:
    """The function's parameters first, described; then the settings, each with a title, a description and no value of its own."""
    schema = parameter_schema(watch).model_dump()
    properties = schema["properties"]
    assert sorted(properties, key=lambda name: properties[name]["position"]) == ["service", "days", "event", "settings"]
    assert properties["days"]["default"] == 7
    assert properties["service"]["description"] == "Name as in the catalogue."
    assert schema["required"] == ["service"]
    forms = {name: form for name, form in schema["definitions"].items() if "verride" in name}
    assert forms
    for form in forms.values():
        for name, field in form["properties"].items():
            assert field.get("title"), name
            assert field.get("description"), name
    top = next(form for form in forms.values() if "repositories" in form["properties"])
    assert {"repositories", "model", "budget", "policy", "rehearsal"} <= set(top["properties"])
    assert not top.get("required")


def test_with_options_keeps_the_routine() -> None:
    """Its settings and tools too; hooks, retries and the rest are Prefect's."""

    def hook(*_: Any) -> None:
        """Listen."""

    other = watch.with_options(name="other", retries=3, on_failure=[hook], timeout_seconds=60)
    assert isinstance(other, Routine)
    assert (other.name, other.retries, other.timeout_seconds) == ("other", 3, 60)
    assert other.on_failure_hooks == [hook]
    assert (other.settings, other.tools) == (watch.settings, watch.tools)
    assert watch.with_options(settings=Settings(model="x")).settings.model == "x"
    assert watch.name == "watch"


async def test_parameters_event_and_override_reach_the_run(prefect_server: str) -> None:
    """As a deployment passes them: plain JSON values."""
    with ScriptedClaude([say(call("look", where="here")), NOTHING]) as claude:
        os.environ.update(claude.environment())
        event = {"id": "evt-1", "source": "github", "number": 7}
        state: Any = await watch(service="api", event=event, settings={"model": "claude-sonnet-5-5"}, return_state=True)  # type: ignore[call-arg]
        ran = await found(state, claude)
    assert ran.state.is_completed(), ran.message
    assert ran.requests[0].opening == "Watch api for 7 days, 7."
    assert ran.requests[0].body["model"] == "claude-sonnet-5-5"
    assert ran.requests[1].result("look").text == "nothing there"


async def test_the_outcome_is_the_flows_result(prefect_server: str) -> None:
    """Green returns it; red raises it."""
    with ScriptedClaude(
        lambda request: [NOTHING if "api" in request.opening else say(call("report", verdict="failed", summary="No."))]
    ) as claude:
        os.environ.update(claude.environment())
        outcome = await watch("api")  # type: ignore[misc]  # Prefect types what an async flow returns as its value
        with pytest.raises(WorkNotDone) as caught:
            await watch("web")  # type: ignore[misc]
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == "nothing_to_do"
    assert caught.value.outcome.verdict == "failed"


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda: None, "returned None; it must return the text of the task"),
        (lambda: "  \n", "it must return the text of the task"),
        (lambda: 7, "returned 7"),
    ],
)
async def test_a_prompt_function_that_gives_no_prompt_fails_in_one_line(prefect_server: str, function: Any, says: str) -> None:
    """Before anything else is done."""
    function.__name__ = "odd"
    with ScriptedClaude([NOTHING]) as claude:
        os.environ.update(claude.environment())
        state = await Routine(function, settings=Settings())(return_state=True)  # type: ignore[misc]
    assert state.is_failed()
    assert f"the prompt function odd {says}" in state.message or says in state.message
    assert "\n" not in state.message
    assert claude.requests == []


async def test_an_async_prompt_function_is_awaited(prefect_server: str) -> None:
    """It may look things up first."""

    async def later() -> str:
        await asyncio.sleep(0)
        return "Later."

    with ScriptedClaude([NOTHING]) as claude:
        os.environ.update(claude.environment())
        state = await Routine(later, settings=Settings())(return_state=True)  # type: ignore[misc]
    assert state.is_completed()
    assert claude.requests[0].opening == "Later."


async def test_characters_that_nothing_can_store_do_not_break_a_run(prefect_server: str) -> None:
    """NUL and lone surrogates in a parameter."""
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, prompt="a\0b\ud800c")
    assert ran.state.is_completed(), ran.message
    assert ran.requests[0].opening == "a\ufffdb\ufffdc"


async def test_two_sessions_of_a_hand_written_flow(prefect_server: str) -> None:
    """Each has its own journal, verdict and artifacts; one gets what the other made."""

    @flow(name="write-and-review")
    async def both() -> list[Outcome]:
        async with Session("writer", Settings()) as writer:
            draft = await writer.run("Write.")
        async with Session("critic", Settings(model="claude-haiku-5-5")) as critic:
            return [draft, await critic.run(f"Review: {draft.summary}")]

    report = say(call("report", verdict="done", summary="Written."))
    with ScriptedClaude({"Write.": [report], "Review: Written.": [NOTHING]}) as claude:
        os.environ.update(claude.environment())
        state: Any = await both(return_state=True)
        outcomes = await state.result()
    assert [outcome.verdict for outcome in outcomes] == ["done", "nothing_to_do"]
    assert outcomes[0].session_id != outcomes[1].session_id
    pages = await artifacts(state.state_details.flow_run_id)
    assert {"write-and-review-writer-summary", "write-and-review-critic-summary"} <= set(pages)


async def test_a_follow_up_goes_on_in_the_same_conversation(prefect_server: str) -> None:
    """A second `run` adds to the first: same session, same prefix, a verdict of its own."""

    @flow
    async def twice() -> list[Outcome]:
        async with Session("main", Settings()) as session:
            return [await session.run("First."), await session.run("Second.")]

    second = say(call("report", verdict="done", summary="Second is done."))
    with ScriptedClaude([NOTHING, second]) as claude:
        os.environ.update(claude.environment())
        outcomes = await twice()
    assert [outcome.verdict for outcome in outcomes] == ["nothing_to_do", "done"]
    assert claude.requests[1].text == "Second."
    assert [message["role"] for message in claude.requests[1].messages] == ["user", "assistant", "user"]


async def test_a_session_that_has_ended_does_no_other_work(prefect_server: str) -> None:
    """Opened again in a loop it would quietly give what it came to the first time."""

    @flow
    async def twice() -> None:
        for page in ("index", "api"):
            async with Session("writer", Settings()) as session:
                await session.run(f"Look at {page}.")

    with ScriptedClaude([NOTHING, NOTHING]) as claude:
        os.environ.update(claude.environment())
        with pytest.raises(SettingsError, match="give other work a session of another name"):
            await twice()
    assert len(claude.requests) == 1


async def test_a_session_outside_a_flow_says_so() -> None:
    """In one line with the remedy."""
    with pytest.raises(SettingsError, match="a session needs a flow run around it"):
        async with Session("main", Settings()):
            pass


async def test_a_flow_that_is_retried_goes_on_where_it_was(prefect_server: str) -> None:
    """Prefect's own retry: turns that were journaled are not asked for again, finished calls are not made again."""
    calls: list[str] = []

    @tool(writes=False)
    def note(what: str) -> str:
        """Note.

        Args:
            what: What.
        """
        calls.append(what)
        return "noted"

    def prompt() -> str:
        return "Note it."

    failed: list[bool] = []

    def second(request: Request) -> Any:
        failed.append(True)
        return fail(400, "odd") if len(failed) == 1 else NOTHING

    retried = Routine(prompt, settings=Settings(), tools=[note], name="retried", retries=1)
    with ScriptedClaude([say(call("note", what="once")), second]) as claude:
        os.environ.update(claude.environment())
        state: Any = await retried(return_state=True)
        ran = await found(state, claude)
    assert ran.state.is_completed(), ran.message
    assert calls == ["once"]
    assert len(claude.requests) == 3
    assert [entry.get("again") for entry in ran.entries("session.status_running")] == [False, True]


async def test_a_run_whose_retries_are_used_up_has_failed(prefect_server: str) -> None:
    """With the last cause in one line; a red verdict is final too, and its session is not worked on again."""

    def prompt() -> str:
        return "Go."

    retried = Routine(prompt, settings=Settings(), name="retried", retries=1)
    with ScriptedClaude([fail(400, "odd")]) as claude:
        os.environ.update(claude.environment())
        failed = await retried(return_state=True)  # type: ignore[misc]
    assert failed.is_failed()
    assert failed.message.startswith("failed: Claude refused the request")
    assert len(claude.requests) == 2
    with ScriptedClaude([say(call("report", verdict="needs_attention", summary="Look."))]) as claude:
        os.environ.update(claude.environment())
        red = await retried(return_state=True)  # type: ignore[misc]
    assert (red.is_failed(), red.message) == (True, "needs_attention: Look.")
    assert len(claude.requests) == 1


@pytest.mark.parametrize("name", ["ask", "docs_sync"])
async def test_the_routines_that_ship_run(prefect_server: str, name: str, tmp_path: Path) -> None:
    """Loaded as a worker loads them, with everything that a deployment overrides."""
    forge = LocalForge(tmp_path)
    sdk, docs = (forge.repository(one, files={"README.md": "# Read me\n"}) for one in ("sdk", "docs"))
    loaded = load_flow_from_entrypoint(f"{ROOT}/flows/{name}.py:{name}")
    assert isinstance(loaded, Routine)
    settings = {"repositories": [sdk.url, docs.url], "checks": [], "budget": {"turns": 5}}
    parameters: dict[str, Any] = {"prompt": "Look at docs."} if name == "ask" else {}
    with ScriptedClaude([say(call("bash", command="ls /workspace")), NOTHING]) as claude:
        os.environ.update(claude.environment())
        state: Any = await loaded(**parameters, settings=settings, return_state=True)
    assert state.is_completed(), state.message
    assert claude.requests[1].result("bash").text.split() == ["docs", "sdk"]


async def test_a_wrong_rule_fails_before_a_token_is_spent(prefect_server: str) -> None:
    """Of a deployment, too."""
    with ScriptedClaude([NOTHING]) as claude:
        ran = await run(claude, override={"policy": {"allow": ["pusch"]}})
    assert ran.state.is_failed()
    assert "the rule 'pusch' names no tool" in ran.message
    assert claude.requests == []
    assert issubclass(SettingsError, RoutinesError)
    async with get_client() as client:
        assert (await client.read_flow_run(ran.run.id)).state_name == "Failed"
    assert Policy().rules()
