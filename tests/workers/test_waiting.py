"""Sessions of deployments that wait for people: the process ends, the form stands in Prefect, the answer brings a new process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from prefect_routines.errors import AnswerRefused
from prefect_routines.steering.acts import Person, answer, cancel, send, wake
from prefect_routines.steering.deadlines import sweep
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import Form, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until

from .asking_world import REPORT, World
from .place import ENDED, Place

ADA = Person("ada", "cli")
FOR_FIVE_MINUTES = {"pause_timeout": "2030-01-01T00:00:00Z", "pause_reschedule": True}  # as the button sets it, but for the year


@pytest.mark.timeout(300)
def test_a_call_that_asks_suspends_the_run_until_the_form_in_prefect_is_filled_in(place: Place, tmp_path: Path) -> None:
    """The form has the call as it will be made; a wrong answer is refused; the right one brings a new process, which makes it once."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        world = World(place, "asks-prefect", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        assert world.told == []
        state = place.run(run)["state"]
        schema = place.api(f"/flow_runs/{run}/input/{state['state_details']['run_input_keyset']['schema']}")
        about = place.api(f"/flow_runs/{run}/input/{state['state_details']['run_input_keyset']['description']}")
        assert "decision" in schema["required"]
        assert "Hello" in about
        refused = place.api(f"/flow_runs/{run}/resume", {"run_input": {"decision": "whatever"}})
        assert refused["status"] == "REJECT"
        assert place.api(f"/flow_runs/{run}/resume", {"run_input": {"decision": "approve"}})["status"] == "ACCEPT"
        place.until(run, *ENDED)
        assert world.told == ["all: Hello"]
        settled = world.in_store(lambda store: store.form(form.id))
        assert (settled.status, settled.via) == ("answered", "prefect")
        assert not world.in_store(lambda store: wake(store, settled))  # as somebody does who looked a moment before
        assert place.run(run)["state_type"] == "FAILED"
        assert [request.results[0].text for request in claude.requests[1:]] == ["told"]


@pytest.mark.timeout(300)
def test_twenty_answers_at_once_are_one(place: Place, tmp_path: Path) -> None:
    """The first one counts, all others are told; the call is made with what the winner said."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        world = World(place, "asks-twenty", tmp_path, claude)
        run = world.start()
        form = world.form(run)

        async def all_at_once(store: Store) -> list[Any]:
            given = uniform_answer(form.content, "approve")
            return await asyncio.gather(*(answer(store, form, given, Person(f"p{n}", "api")) for n in range(20)), return_exceptions=True)

        results = world.in_store(all_at_once)
        won = [one for one in results if isinstance(one, Form)]
        assert (len(won), sum(isinstance(one, AnswerRefused) for one in results)) == (1, 19)
        place.until(run, *ENDED)
        assert world.told == ["all: Hello"]


@pytest.mark.timeout(300)
def test_suspend_in_prefect_becomes_a_form_and_a_message_goes_on(place: Place, tmp_path: Path) -> None:
    """As the button does it, with its 300 s; the session waits with a form of its own and then hears what the person has to say."""
    with ScriptedClaude([say(call("bash", command="sleep 60")), say(call("bash", command="echo on")), REPORT]) as claude:
        world = World(place, "asks-suspend", tmp_path, claude)
        run = world.start()
        until(lambda: claude.requests, 90)
        until(lambda: world.in_store(lambda store: _kinds(store, run)).count("tool.start") == 1)
        place.set_state(run, type="PAUSED", name="Suspended", state_details=FOR_FIVE_MINUTES)
        until(lambda: (place.run(run)["state"]["state_details"] or {}).get("run_input_keyset"), 30)
        form = world.form(run)
        assert form.kind == "pause"
        answered = place.api(f"/flow_runs/{run}/resume", {"run_input": {"action": "continue", "message": "Say on, then stop."}})
        assert answered["status"] == "ACCEPT"
        place.until(run, *ENDED)
        assert "Say on, then stop." in str(claude.requests[1].body["messages"][-1])
        assert "interrupted" in claude.requests[1].results[0].text
        assert len(claude.requests) == 3


@pytest.mark.timeout(300)
def test_resume_clicked_before_the_form_is_there(place: Place, tmp_path: Path) -> None:
    """Suspend and Resume in one breath: the click holds, the run is neither lost nor failed, nothing happens twice."""
    with ScriptedClaude([say(call("bash", command="echo once >> log; sleep 60")), say(call("bash", command="cat log")), REPORT]) as claude:
        world = World(place, "asks-quick", tmp_path, claude)
        run = world.start()
        until(lambda: world.in_store(lambda store: _kinds(store, run)).count("tool.start") == 1)
        place.set_state(run, type="PAUSED", name="Suspended", state_details=FOR_FIVE_MINUTES)
        assert place.api(f"/flow_runs/{run}/resume", {})["status"] == "ACCEPT"
        answered = until(lambda: _ended_or_waiting(place, run))
        if answered == "Suspended":  # the click came before the session had heard of the suspension: then it is asked once more
            place.api(f"/flow_runs/{run}/resume", {"run_input": {"action": "continue"}})
        ended = place.until(run, *ENDED)
        assert ended["state"]["message"].startswith("needs_attention"), ended["state"]
        assert claude.requests[2].results[0].text.count("once") == 1


def _ended_or_waiting(place: Place, run: str) -> str:
    state = place.run(run)["state"]
    return state["name"] if state["type"] in ENDED or (state["state_details"] or {}).get("run_input_keyset") else ""


async def _kinds(store: Store, run: str) -> list[str]:
    found = await store.sessions(flow_run_id=run)
    return [entry.kind for entry in await store.entries(found[0].id)] if found else []


@pytest.mark.timeout(300)
def test_nobody_answers_in_time(place: Place, tmp_path: Path) -> None:
    """The deadline's own answer counts, without any process of the session; the run is not lost."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        world = World(place, "asks-late", tmp_path, claude, answers={"minutes": 0.05, "default": "deny"})
        run = world.start()
        place.until(run, *ENDED, seconds=120)
        assert world.told == []
        assert "nobody answered in time" in claude.requests[-1].results[0].text


@pytest.mark.timeout(300)
def test_cancelled_while_it_waits(place: Place, tmp_path: Path) -> None:
    """It ends there; the form takes no answer any more, nothing is sent."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        world = World(place, "asks-cancel", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        session = world.session(run)
        assert world.in_store(lambda store: cancel(store, session, ADA)) == "cancelled"
        assert place.until(run, *ENDED)["state_type"] == "CANCELLED"
        with pytest.raises(AnswerRefused):
            world.in_store(lambda store: answer(store, form, uniform_answer(form.content, "approve"), ADA))
        assert world.told == []


@pytest.mark.timeout(300)
def test_cancelled_in_prefect_while_it_waits(place: Place, tmp_path: Path) -> None:
    """As the button of the UI does it: the session ends, its form takes no answer any more."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        world = World(place, "asks-cancel-ui", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        place.set_state(run, type="CANCELLING")
        place.until(run, "CANCELLED")
        assert until(lambda: world.in_store(lambda store: store.form(form.id)).status == "withdrawn")
        assert until(lambda: world.session(run).status == "ended")
        assert world.told == []


@pytest.mark.timeout(300)
def test_there_is_a_pull_request_already_stop(place: Place, tmp_path: Path) -> None:
    """A person writes while the session works; it hears that before its next step, and stops without writing anything."""
    script = [
        say(call("bash", command="until [ -e go ]; do sleep 0.1; done")),
        say(call("report", verdict="nothing_to_do", summary="There is one.")),
    ]
    with ScriptedClaude(script) as claude:
        world = World(place, "asks-talk", tmp_path, claude)
        run = world.start()
        until(lambda: claude.requests, 90)
        session = world.session(run)
        world.in_store(lambda store: send(store, session, "There is a pull request already, stop.", ADA, interrupt=True))
        place.until(run, *ENDED)
        assert "There is a pull request already" in str(claude.requests[1].body["messages"][-1])
        assert place.run(run)["state_type"] == "COMPLETED"
        assert world.told == []


@pytest.mark.timeout(300)
def test_a_used_up_budget_can_be_raised(place: Place, tmp_path: Path) -> None:
    """It suspends instead of ending, and goes on with what was added."""
    steps = [say(call("bash", command="true")), say(call("bash", command="true")), REPORT]
    with ScriptedClaude(steps) as claude:
        world = World(place, "asks-budget", tmp_path, claude, budget={"turns": 1, "on_budget": "pause"})
        run = world.start()
        form = world.form(run)
        assert (form.kind, len(claude.requests)) == ("budget", 1)
        world.in_store(lambda store: answer(store, form, {"action": "continue", "raise": {"turns": 5}}, ADA))
        place.until(run, *ENDED)
        assert len(claude.requests) == 3


@pytest.mark.timeout(300)
def test_an_answer_counts_for_its_own_form_alone(place: Place, tmp_path: Path) -> None:
    """What was approved first never becomes the approval of what is asked next, however long that waits and whoever looks after it."""
    script = [say(call("tell", room="all", text="One")), say(call("tell", room="docs", text="Two")), REPORT]
    with ScriptedClaude(script) as claude:
        world = World(place, "asks-twice", tmp_path, claude)
        run = world.start()
        first = world.form(run)
        world.in_store(lambda store: answer(store, first, uniform_answer(first.content, "approve"), ADA))
        second = until(lambda: _next_form(world, run, first))
        place.until(run, "Suspended")
        assert world.in_store(sweep) == 0
        assert not world.in_store(lambda store: _wake(store, first))
        assert world.in_store(lambda store: store.form(second.id)).status == "open"
        assert world.told == ["all: One"]
        world.in_store(lambda store: answer(store, second, uniform_answer(second.content, "deny"), ADA))
        place.until(run, *ENDED)
        assert world.told == ["all: One"]


def _next_form(world: World, run: str, first: Form) -> Form | None:
    session = world.session(run)
    found = world.in_store(lambda store: store.forms(session_id=session.id, status="open"))
    return next((form for form in found if form.id != first.id), None)


async def _wake(store: Store, form: Form) -> bool:
    kept = await store.form(form.id)
    assert kept is not None
    return await wake(store, kept)


@pytest.mark.timeout(300)
def test_suspended_while_it_prepares(place: Place, tmp_path: Path) -> None:
    """The button is pressed before Claude was asked anything: that, too, becomes a form, and the run goes on."""
    with ScriptedClaude([REPORT]) as claude:
        world = World(place, "asks-early", tmp_path, claude, setup="sleep 12")
        run = world.start()
        place.until(run, "RUNNING")
        until(lambda: "session.status_running" in world.in_store(lambda store: _kinds(store, run)))
        place.set_state(run, type="PAUSED", name="Suspended", state_details=FOR_FIVE_MINUTES)
        until(lambda: (place.run(run)["state"]["state_details"] or {}).get("run_input_keyset"))
        assert world.form(run).kind == "pause"
        place.api(f"/flow_runs/{run}/resume", {"run_input": {"action": "continue"}})
        place.until(run, *ENDED)
        assert len(claude.requests) == 1
