"""Sessions without a deployment wait with their process alive; what people send is heard at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client

from prefect_routines import Session
from prefect_routines.errors import SettingsError
from prefect_routines.policy import Policy
from prefect_routines.settings import Answers, Budget, Settings
from prefect_routines.steering.acts import Person, answer, cancel, interrupt, send
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import Form, SessionRecord, Store
from prefect_routines.testing import Request, ScriptedClaude, call, cut, say
from prefect_routines.tools.tool import tool
from waiting import until_async

from .world import REPORT, Ran, run

ADA = Person("ada", "cli")
pytestmark = pytest.mark.usefixtures("prefect")
told: list[str] = []


@tool(writes=True, target="room")
def tell(room: str, text: str) -> str:
    """Tell people.

    Args:
        room: Where.
        text: What.
    """
    told.append(f"{room}: {text}")
    return "told"


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    told.clear()


async def steered(claude: ScriptedClaude, person: Callable[[Store, SessionRecord], Awaitable[Any]], **fields: Any) -> Ran:
    """A run, with somebody beside it who has its session as soon as Claude was asked the first time."""
    async with await Store.open() as store:
        before = {record.id for record in await store.sessions(limit=200)}

        async def beside() -> None:
            async def session() -> SessionRecord | None:
                new = [record for record in await store.sessions(limit=200) if record.id not in before]
                return new[0] if new and claude.requests else None

            await person(store, await until_async(session))

        watching = asyncio.create_task(beside())
        ran = await run(claude, **{"tools": [tell], **fields})
        await watching
        return ran


async def open_form(store: Store, session: SessionRecord) -> Form:
    async def look() -> Form | None:
        return next(iter(await store.forms(session_id=session.id, status="open")), None)

    form: Form = await until_async(look)
    return form


async def test_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call is made once; what the rule allows counts no more than before."""

    async def approve(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        assert told == []
        await answer(store, form, uniform_answer(form.content, "approve"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        ran = await steered(claude, approve, policy=Policy(ask=["tell"]))
    assert told == ["all: Hello"]
    assert ran.run.name
    assert [entry["person"] for entry in ran.entries("form.answered")] == ["ada"]


async def test_denied_with_a_reason() -> None:
    """Claude hears who and why; the verdict cannot be done."""

    async def deny(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        await answer(store, form, uniform_answer(form.content, "deny", "not this week"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        await steered(claude, deny, policy=Policy(ask=["tell"]))
    assert told == []
    [result] = claude.requests[1].results
    assert "Denied by ada: not this week" in result.text


async def test_several_calls_are_one_form_and_one_is_changed() -> None:
    """One is approved, one denied, one approved with other arguments; Claude is told of the change."""

    async def decide(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        one, two, three = form.content["calls"]
        decisions = {
            one["id"]: {"decision": "approve", "hash": one["hash"]},
            two["id"]: {"decision": "deny"},
            three["id"]: {"decision": "approve", "arguments": {"room": "docs", "text": "Changed"}},
        }
        await answer(store, form, {"decisions": decisions}, ADA)

    calls = [call("tell", room="all", text=str(number)) for number in range(3)]
    with ScriptedClaude([say(*calls), REPORT]) as claude:
        ran = await steered(claude, decide, policy=Policy(ask=["tell"]))
    assert told == ["all: 0", "docs: Changed"]
    assert len(ran.entries("form.opened")) == 1
    assert "ada changed the arguments" in claude.requests[1].results[2].text


async def test_all_like_this() -> None:
    """The next call to the same target needs nobody; one to another target does."""
    forms: list[Form] = []

    async def decide(store: Store, session: SessionRecord) -> None:
        forms.append(form := await open_form(store, session))
        await answer(store, form, uniform_answer(form.content, "approve_all"), ADA)
        forms.append(form := await open_form(store, session))
        await answer(store, form, uniform_answer(form.content, "deny"), ADA)

    calls = [say(call("tell", room=room, text="Hello")) for room in ("all", "all", "docs")]
    with ScriptedClaude([*calls, REPORT]) as claude:
        await steered(claude, decide, policy=Policy(ask=["tell"]))
    assert told == ["all: Hello", "all: Hello"]
    assert [form.content["calls"][0]["target"] for form in forms] == ["all", "docs"]


async def test_a_question_with_choices() -> None:
    """It is offered where the routine waits for people; the answer is the call's result."""

    async def reply(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        [question] = form.content["questions"]
        assert question["choices"] == ["main", "next"]
        await answer(store, form, {"replies": {question["id"]: "next"}}, ADA)

    with ScriptedClaude([say(call("ask_person", question="Which branch?", choices=["main", "next"])), REPORT]) as claude:
        await steered(claude, reply, unattended="wait")
    assert claude.requests[1].results[0].text == "ada answered: next"


async def test_only_named_people_may_answer() -> None:
    """Others, and Prefect's UI, which knows no names, are refused; nothing is changed by that."""
    refused: list[str] = []

    async def try_all(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        for person in (Person("bob", "cli"), Person("somebody in the Prefect UI", "prefect"), Person("ada", "prefect")):
            with pytest.raises(SettingsError) as said:
                await answer(store, form, uniform_answer(form.content, "approve"), person)
            refused.append(str(said.value))
        await answer(store, form, uniform_answer(form.content, "approve"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        await steered(claude, try_all, policy=Policy(ask=["tell"]), answers=Answers(people=["ada"]))
    assert len(refused) == 3
    assert told == ["all: Hello"]


async def test_nobody_in_time() -> None:
    """The default counts, and says so."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        await run(claude, tools=[tell], policy=Policy(ask=["tell"]), answers=Answers(minutes=0.01))
    assert told == []
    assert "nobody answered in time" in claude.requests[1].results[0].text


async def test_the_deadline_may_approve() -> None:
    """Where the routine says so."""
    with ScriptedClaude([say(call("tell", room="all", text="Hello")), REPORT]) as claude:
        await run(claude, tools=[tell], policy=Policy(ask=["tell"]), answers=Answers(minutes=0.01, default="approve"))
    assert told == ["all: Hello"]


async def test_stop_ends_the_session() -> None:
    """The run is cancelled; nothing more is asked of Claude, nothing is sent."""

    async def stop(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        await answer(store, form, uniform_answer(form.content, "stop"), ADA)

    with ScriptedClaude([say(call("tell", room="all", text="Hello"))]) as claude:
        ran = await steered(claude, stop, policy=Policy(ask=["tell"]))
    assert ran.state.is_cancelled()
    assert (told, len(claude.requests)) == ([], 1)


async def test_a_message_joins_the_next_turn() -> None:
    """It does not disturb the call under way, and is in the very next request, however close to it it came."""
    sent = asyncio.Event()

    @tool(idempotent=True)
    async def wait_for_it() -> str:
        """Wait."""
        await sent.wait()
        return "gone"

    async def write(store: Store, session: SessionRecord) -> None:
        await send(store, session, "Look at the tutorial, too.", ADA)
        sent.set()

    with ScriptedClaude([say(call("wait_for_it")), REPORT]) as claude:
        ran = await steered(claude, write, tools=[wait_for_it])
    texts = str(claude.requests[1].body["messages"][-1])
    assert "gone" in texts
    assert "Look at the tutorial, too." in texts
    assert [entry["by"] for entry in ran.entries("user.message") if "by" in entry] == ["ada"]


async def test_an_interrupt_stops_a_running_command_and_those_behind_it() -> None:
    """The process is gone, the call behind it never began, and the message comes with their results."""

    async def stop(store: Store, session: SessionRecord) -> None:
        async def started() -> bool:
            return any(entry.kind == "tool.start" for entry in await store.entries(session.id))

        await until_async(started)
        await send(store, session, "Not that way.", ADA, interrupt=True)

    first, behind = call("bash", command="sleep 300; echo never"), call("write", path="a.txt", content="x")
    with ScriptedClaude([say(first, behind), REPORT]) as claude:
        ran = await steered(claude, stop)
    texts = [result.text for result in claude.requests[1].results]
    assert "ada interrupted it" in texts[0]
    assert "before this call began" in texts[1]
    assert "Not that way." in str(claude.requests[1].body["messages"][-1])
    assert ran.transcript.seconds < 100


async def test_cancel_stops_a_running_session() -> None:
    """The run is cancelled, the session ended; the command is gone."""

    async def stop(store: Store, session: SessionRecord) -> None:
        async def started() -> bool:
            return any(entry.kind == "tool.start" for entry in await store.entries(session.id))

        await until_async(started)
        assert await cancel(store, session, ADA) == "asked"

    with ScriptedClaude([say(call("bash", command="sleep 300"))]) as claude:
        ran = await steered(claude, stop)
    assert ran.state.is_cancelled()
    assert "cancelled by ada" in ran.message
    assert len(claude.requests) == 1


async def test_an_interrupt_without_words_lets_claude_go_on() -> None:
    """It is told that somebody interrupted it."""

    async def stop(store: Store, session: SessionRecord) -> None:
        async def started() -> bool:
            return any(entry.kind == "tool.start" for entry in await store.entries(session.id))

        await until_async(started)
        await interrupt(store, session, ADA)

    with ScriptedClaude([say(call("bash", command="sleep 300")), REPORT]) as claude:
        await steered(claude, stop)
    assert "ada interrupted you" in str(claude.requests[1].body["messages"][-1])


async def test_a_budget_that_nobody_raises_ends_the_session_in_order() -> None:
    """As without a pause: with what was done, and needs_attention."""
    with ScriptedClaude([say(call("bash", command="true"))]) as claude:
        ran = await run(claude, budget=Budget(turns=1, on_budget="pause"), answers=Answers(minutes=0.01))
    assert ran.outcome.verdict == "needs_attention"
    assert "budget of 1 turns" in ran.outcome.summary


async def test_an_answer_in_prefect_that_does_not_fit_is_asked_for_again() -> None:
    """The form stands there anew, and says why."""

    async def go_on(store: Store, session: SessionRecord) -> None:
        form = await open_form(store, session)
        assert session.flow_run_id is not None

        async def shown() -> str | None:
            async with get_client() as client:
                run = await client.read_flow_run(UUID(str(session.flow_run_id)))
                if run.state is None or not run.state.is_paused() or not run.state.state_details.run_input_keyset:
                    return None
                key = run.state.state_details.run_input_keyset["description"]
                return await client.read_flow_run_input(flow_run_id=run.id, key=key)

        assert "did not count" not in await until_async(shown)
        async with get_client() as client:
            resumed = await client.resume_flow_run(UUID(session.flow_run_id), run_input={"action": "continue"})
        assert resumed.status.value == "ACCEPT"

        async def asked_again() -> bool:
            return "Your answer did not count: to go on, say how much more may be used" in (await shown() or "").replace("\\\\", "")

        await until_async(asked_again)
        await answer(store, form, {"action": "stop"}, ADA)

    with ScriptedClaude([say(call("bash", command="true"))]) as claude:
        ran = await steered(claude, go_on, budget=Budget(turns=1, on_budget="pause"))
    async with await Store.open() as store:
        [record] = await store.sessions(flow_run_id=str(ran.run.id))
    assert record.data["notify"] == []
    assert [one["answer"]["action"] for one in ran.entries("form.answered")] == ["stop"]


async def test_the_budget_of_a_day_counts_all_sessions_of_the_routine() -> None:
    """The second session of the day finds nothing left."""
    with ScriptedClaude([REPORT]) as claude:
        await run(claude, budget=Budget(dollars_per_day=0.000001))
    with ScriptedClaude([]) as claude:
        ran = await run(claude, budget=Budget(dollars_per_day=0.000001))
    assert ran.outcome.verdict == "needs_attention"
    assert "a day" in ran.outcome.summary
    assert claude.requests == []


async def test_interrupts_close_the_stream_and_each_is_paid() -> None:
    """Nothing of the reply is used; the next request has the message; what the stream had used counts."""
    times = 3

    async def stop(store: Store, session: SessionRecord) -> None:
        for number in range(times):

            async def streams(number: int = number) -> bool:
                begun = [entry for entry in await store.entries(session.id) if entry.kind == "turn.start"]
                return len(begun) == number + 1

            await until_async(streams)
            await send(store, session, f"Stop {number}.", ADA, interrupt=True)

    def turn(request: Request) -> Any:
        last = f"Stop {times - 1}." in str(request.body["messages"])
        return REPORT if last else cut(say("I think."), after=3, how="silence")

    with ScriptedClaude([turn]) as claude:
        ran = await steered(claude, stop)
    assert [entry["person"] for entry in ran.entries("turn.interrupted")] == ["ada"] * times
    assert all(f"Stop {number}." in str(claude.requests[-1].body["messages"]) for number in range(times))
    assert ran.spent.attempts == times + 1
    assert ran.outcome.verdict == "done"


async def test_two_sessions_of_one_flow_have_answers_of_their_own() -> None:
    """What the first one's call was answered, in Prefect, does not let the second one's pass."""
    settings = Settings(policy=Policy(ask=["tell"]))

    @flow
    async def write_and_review() -> None:
        async with Session("writer", settings, tools=[tell]) as writer:
            await writer.run("Write.")
        async with Session("critic", settings, tools=[tell]) as critic:
            await critic.run("Review.")

    async def click(store: Store, known: set[str]) -> None:
        """Approve the first form with a click in Prefect; deny the second one by name."""

        async def new_form(but: str = "") -> Form | None:
            found = await store.forms(status="open")
            return next((form for form in found if form.session_id not in known and form.id != but), None)

        first: Form = await until_async(new_form)

        async def paused() -> bool:
            async with get_client() as client:
                run = await client.read_flow_run(UUID(str(first.flow_run_id)))
                return bool(run.state and run.state.is_paused())

        await until_async(paused)
        async with get_client() as client:
            await client.resume_flow_run(UUID(str(first.flow_run_id)), run_input={"decision": "approve"})
        second: Form = await until_async(lambda: new_form(first.id))
        await until_async(paused)
        assert told == ["all: Write"]
        await answer(store, second, uniform_answer(second.content, "deny"), ADA)

    def play(request: Request) -> list[Any]:
        word = "Write" if "Write." in str(request.body["messages"][0]) else "Review"
        return [say(call("tell", room="all", text=word)), REPORT]

    async with await Store.open() as store:
        known = {record.id for record in await store.sessions(limit=500)}
        with ScriptedClaude(play) as claude:
            os.environ.update(claude.environment())
            clicking = asyncio.create_task(click(store, known))
            await write_and_review()
            await clicking
    assert told == ["all: Write"]
