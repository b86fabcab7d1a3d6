"""A scripted Claude answers the real client as a script says: streams, turns, thinking, records."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anthropic import APIStatusError, AsyncAnthropic, BadRequestError

from prefect_routines.testing import ScriptedClaude, ScriptProblems, attempts, block, call, event, fail, say, think

TOOLS: Any = [{"name": name, "input_schema": {"type": "object"}} for name in ("bash", "read")]


@asynccontextmanager
async def talk(claude: ScriptedClaude) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=claude.url, api_key=claude.api_key, max_retries=0) as client:
        yield client


class Session:
    """The smallest loop: sends, keeps what comes, answers calls."""

    def __init__(self, client: AsyncAnthropic, prompt: str = "Look.", **fields: Any) -> None:
        self.client = client
        self.fields: dict[str, Any] = {"model": "claude-opus-5-5", "max_tokens": 999, "tools": TOOLS, "system": "Be brief.", **fields}
        self.messages: list[Any] = [{"role": "user", "content": prompt}]

    async def turn(self, *answers: Any) -> Any:
        """One request; `answers` are content blocks for the user's message before it."""
        if answers:
            self.messages.append({"role": "user", "content": list(answers)})
        async with self.client.beta.messages.stream(messages=self.messages, **self.fields) as stream:
            message = await stream.get_final_message()
        self.messages.append({"role": "assistant", "content": [part.to_dict(mode="json") for part in message.content]})
        return message


def results(message: Any, text: str = "fine") -> list[Any]:
    return [{"type": "tool_result", "tool_use_id": part.id, "content": text} for part in message.content if part.type == "tool_use"]


async def test_a_turn_streams_text_and_calls() -> None:
    """Text and tool input come in pieces; the SDK puts together exactly what was scripted, key order and 1.0 included."""
    given = {"zebra": 1.0, "apple": {"nested": [1, None, "ü", "👍"]}, "text": "line\n" * 50}
    with ScriptedClaude([say("I look at the log first.", call("bash", given), call("read", path="a.md"), "Then I see.")]) as claude:
        async with talk(claude) as client:
            request = client.beta.messages.stream(
                model="claude-opus-5-5", max_tokens=999, messages=[{"role": "user", "content": "Look."}], tools=TOOLS
            )
            async with request as stream:
                events = [piece async for piece in stream]
                message = await stream.get_final_message()
    assert [part.type for part in message.content] == ["thinking", "text", "tool_use", "tool_use", "text"]
    assert message.content[1].text == "I look at the log first."
    assert list(message.content[2].input.items()) == list(given.items())
    assert message.content[3].input == {"path": "a.md"}
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 100
    assert len([piece for piece in events if piece.type == "input_json"]) > 5
    assert claude.requests[0].reply is not None
    assert claude.requests[0].reply["content"] == [part.to_dict(mode="json", exclude_none=True) for part in message.content]


async def test_the_same_turn_without_a_stream() -> None:
    """`create` gives what `stream` gives."""
    with ScriptedClaude([say("Hello.", call("bash", command="ls"))]) as claude:
        async with talk(claude) as client:
            message = await client.messages.create(model="claude-opus-5-5", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert [part.type for part in message.content] == ["thinking", "text", "tool_use"]
    assert message.id.startswith("msg_01")
    assert message._request_id
    assert message._request_id.startswith("req_")


async def test_turns_follow_the_transcript_and_functions_see_results() -> None:
    """The next turn is chosen by the transcript; a function of the request reads the tools' results by name and in order."""
    script = [
        say(call("bash", command="ls"), call("read", path="b")),
        lambda request: say(f"{request.turn}: {request.result('read').text} after {request.results[0].name}, {request.text}"),
    ]
    with ScriptedClaude(script) as claude:
        async with talk(claude) as client:
            session = Session(client)
            first = await session.turn()
            one, two = results(first)
            two["content"] = [{"type": "text", "text": "bee"}]
            second = await session.turn(one, two, {"type": "text", "text": "hurry"})
    assert second.content[-1].text == "1: bee after bash, hurry"
    assert claude.requests[1].results[1].input == {"path": "b"}
    assert claude.requests[0].conversation == claude.requests[1].conversation


async def test_sessions_run_side_by_side() -> None:
    """Many conversations at once, some with the same prompt, each gets its own script from the start."""

    async def play(session: Session) -> str:
        answer = await session.turn()
        answer = await session.turn(*results(answer))
        return str(answer.content[-1].text)

    scripts = {
        "docs": [say(call("bash", command="1")), say("docs done")],
        "": [say(call("bash", command="2")), say("others done")],
    }
    with ScriptedClaude(scripts) as claude:
        async with talk(claude) as client:
            said = await asyncio.gather(*(play(Session(client, prompt)) for prompt in ["the docs", "the code"] * 10))
    assert said == ["docs done", "others done"] * 10
    ids = {part["id"] for request in claude.requests for part in (request.reply or {})["content"] if part["type"] == "tool_use"}
    assert len(ids) == 20


async def test_a_script_can_be_chosen_by_a_function() -> None:
    """Anything in the request can decide which script is played."""
    with ScriptedClaude(lambda request: [say(request.body["model"])]) as claude:
        async with talk(claude) as client:
            answer = await Session(client, model="claude-haiku-5-5").turn()
    assert answer.content[-1].text == "claude-haiku-5-5"


async def test_a_repeated_request_gets_the_same_turn() -> None:
    """A turn requested again after a crash says the same, under new ids as the real API would."""
    with ScriptedClaude([say("Once.", call("bash", command="ls"))]) as claude:
        async with talk(claude) as client:
            first, second = await Session(client).turn(), await Session(client).turn()
    assert first.content[1] == second.content[1]
    assert first.content[2].input == second.content[2].input
    assert first.content[2].id != second.content[2].id


async def test_thinking_is_shown_when_asked_for() -> None:
    """Thinking text comes with `display: summarized`; without it the block is empty but signed."""
    with ScriptedClaude([say(think("Where to start?"), "Here.")]) as claude:
        async with talk(claude) as client:
            shown = await Session(client, thinking={"type": "adaptive", "display": "summarized"}).turn()
            hidden = await Session(client).turn()
    assert shown.content[0].thinking == "Where to start?"
    assert hidden.content[0].thinking == ""
    assert shown.content[0].signature
    assert hidden.content[0].signature


async def test_thinking_can_be_left_out() -> None:
    """By the turn, by the server, or by the request on a model that allows it."""
    with ScriptedClaude([say("x", thinking=False)]) as by_turn, ScriptedClaude([say("x")], thinking=False) as by_server:
        for claude, model, more in ((by_turn, "claude-opus-5-5", {}), (by_server, "claude-opus-5-5", {})):
            async with talk(claude) as client:
                assert [part.type for part in (await Session(client, model=model, **more).turn()).content] == ["text"]
    with ScriptedClaude([say("x")]) as claude:
        async with talk(claude) as client:
            quiet = await Session(client, model="claude-sonnet-5-5", thinking={"type": "disabled"}).turn()
    assert [part.type for part in quiet.content] == ["text"]


@pytest.mark.parametrize("changed", ["system", "tools", "message", "signature", "dropped"])
async def test_thinking_is_bound_to_what_came_before(changed: str) -> None:
    """Any change before a thinking block, or to it, is a 400 in the API's words; unchanged it is taken."""
    turns = [say("One.", call("bash", command="ls")), say("Two.", call("bash", command="ls")), say("Three.")]
    with ScriptedClaude(turns, strict=False) as claude:
        async with talk(claude) as client:
            session = Session(client)
            second = await session.turn(*results(await session.turn()))
            session.messages.append({"role": "user", "content": results(second)})
            match changed:
                case "system":
                    session.fields["system"] = "Be long."
                case "tools":
                    session.fields["tools"] = TOOLS[:1]
                case "message":
                    session.messages[0] = {"role": "user", "content": "Look!"}
                case "signature":
                    session.messages[3]["content"][0]["signature"] = session.messages[1]["content"][0]["signature"]
                case "dropped":
                    del session.messages[1]["content"][0]
            with pytest.raises(BadRequestError, match="bound to a different conversation") as refused:
                await session.turn()
            session.fields |= {
                "thinking": {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}},
                "betas": ["thinking-binding-controls-2026-08-01"],
            }
            forgiven = await session.turn()
    assert "messages.3.content.0" in str(refused.value) or changed in {"system", "tools", "message"}
    assert "messages.3.content.0" in [change.path for change in forgiven.input_transformations]
    assert "bound to a different conversation" in claude.expect("400 invalid_request_error")


async def test_moving_cache_markers_is_no_change() -> None:
    """Markers are no content: thinking stays valid when they move."""
    mark = {"type": "ephemeral"}
    with ScriptedClaude([say("One.", call("bash", command="ls")), say("Two.")]) as claude:
        async with talk(claude) as client:
            session = Session(client, system=[{"type": "text", "text": "Be brief.", "cache_control": mark}])
            first = await session.turn()
            session.fields["system"] = "Be brief."
            session.messages[0] = {"role": "user", "content": [{"type": "text", "text": "Look.", "cache_control": mark}]}
            assert (await session.turn(*results(first))).content[-1].text == "Two."


@pytest.mark.parametrize("changed", ["key order", "number", "text", "call", "thinking dropped"])
async def test_a_transcript_that_is_rewritten_is_a_problem(changed: str) -> None:
    """Even where the API says nothing (no thinking to check), a changed transcript is noticed, byte for byte."""
    turns = [say("One.", call("bash", {"a": 1, "b": 2})), say("Two.", call("bash", command="ls")), say("Three.")]
    answer = {"type": "tool_result", "content": "fine", "is_error": False}
    with ScriptedClaude(turns, thinking=changed == "thinking dropped", strict=False) as claude:
        async with talk(claude) as client:
            session = Session(client, tools=[{"name": "bash", "input_schema": {"type": "object", "minProperties": 1}}])
            first = await session.turn()
            second = await session.turn({**answer, "tool_use_id": first.content[-1].id})
            match changed:
                case "key order":
                    session.messages[2]["content"][0] = {"tool_use_id": first.content[-1].id, **answer}
                case "number":
                    session.fields["tools"] = [{"name": "bash", "input_schema": {"type": "object", "minProperties": 1.0}}]
                case "text":
                    session.messages[2]["content"][0]["content"] = "fine."
                case "call":
                    session.messages[3]["content"][-1]["input"] = {"command": "ls -l"}
                case "thinking dropped":
                    del session.messages[3]["content"][0]
            await session.turn(*results(second))
    problem = claude.expect("request 3")
    where = {"key order": "messages.2.content.0", "number": "tools.0", "text": "messages.2.content.0"}
    assert where.get(changed, "messages.3 is not the reply that was given") in problem
    assert claude.problems == []


async def test_problems_end_the_test() -> None:
    """What the API would have refused is raised at the end of the `with` block, even if the client swallowed it."""

    async def careless() -> None:
        with ScriptedClaude([say("Only this.")]) as claude:
            async with talk(claude) as client:
                session = Session(client)
                await session.turn()
                with pytest.raises(BadRequestError):
                    await session.turn({"type": "text", "text": "And?"})

    with pytest.raises(ScriptProblems, match="script has no turn 1, it has 1"):
        await careless()


async def test_a_script_that_raises_is_a_problem() -> None:
    """A function's exception reaches the client as a 400 that it does not repeat, and the test by name."""
    with ScriptedClaude([lambda request: say(request.result("bash").text)]) as claude:
        async with talk(claude) as client:
            with pytest.raises(BadRequestError, match="has no result of 'bash'"):
                await Session(client).turn()
        assert len(claude.requests) == 1
        claude.expect("script failed at turn 0: LookupError")
        with pytest.raises(AssertionError, match="no problem says 'other'"):
            claude.expect("other")


async def test_unknown_blocks_and_events_pass_through() -> None:
    """A client that is older than the API keeps unknown blocks as they are, and the server takes back what it sent."""
    sketch = {"type": "sketch", "lines": [1.0, {"b": 1, "a": 2}]}
    with ScriptedClaude([say(event({"type": "weather", "sky": "blue"}), block(sketch), call("bash", command="ls")), say("ok")]) as claude:
        async with talk(claude) as client:
            session = Session(client)
            first = await session.turn()
            assert session.messages[1]["content"][1] == sketch
            assert (await session.turn(*results(first))).content[-1].text == "ok"


@pytest.mark.parametrize("reason", ["max_tokens", "refusal", "pause_turn", "model_context_window_exceeded", "stop_sequence"])
async def test_stop_reasons(reason: str) -> None:
    """Any stop reason can be scripted, a refusal with its details, and usage can be overruled."""
    details = {"type": "refusal", "category": "cyber", "explanation": None} if reason == "refusal" else None
    with ScriptedClaude([say("Well.", stop_reason=reason, stop_details=details, usage={"input_tokens": 900_000})]) as claude:
        async with talk(claude) as client:
            message = await Session(client).turn()
    assert message.stop_reason == reason
    assert message.usage.input_tokens == 900_000
    assert (message.stop_details.category if reason == "refusal" else message.stop_details) == ("cyber" if details else None)


async def test_a_paused_turn_goes_on() -> None:
    """After `pause_turn` the transcript is sent back as it is, ending in the assistant's server tool call."""
    search = block({"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}})
    with ScriptedClaude([say(search, stop_reason="pause_turn"), say("Found.")]) as claude:
        async with talk(claude) as client:
            session = Session(client)
            await session.turn()
            assert (await session.turn()).content[-1].text == "Found."


async def test_cut_and_malformed_input() -> None:
    """Input given as text is streamed as it stands: a cut call arrives cut, a duplicate id arrives twice."""
    cut_call = call("bash", '{"command": "rm -r')
    twice = [call("bash", command="a").with_id("toolu_same"), call("bash", command="b").with_id("toolu_same")]
    with ScriptedClaude({"cut": [say(cut_call, stop_reason="max_tokens")], "twice": [say(*twice)]}) as claude:
        async with talk(claude) as client:
            message = await Session(client, "cut").turn()
            assert (message.stop_reason, message.content[-1].input) == ("max_tokens", {})
            message = await Session(client, "twice").turn()
            assert [part.id for part in message.content[1:]] == ["toolu_same"] * 2
    with ScriptedClaude([say(call("bash", '{"command": nonsense}'))]) as claude:
        async with talk(claude) as client:
            with pytest.raises(ValueError, match="Unable to parse tool parameter JSON"):
                await Session(client).turn()


async def test_requests_are_kept_and_waited_for() -> None:
    """Every request is there as it came, and a test can wait for one."""
    with ScriptedClaude([say("x")]) as claude:
        assert claude.environment() == {"ANTHROPIC_BASE_URL": claude.url, "ANTHROPIC_API_KEY": claude.api_key}
        with pytest.raises(TimeoutError, match="0 of 1 requests"):
            claude.wait_for(1, timeout=0)
        waiting = asyncio.create_task(asyncio.to_thread(claude.wait_for, 1))
        async with talk(claude) as client:
            await Session(client, betas=["compact-2026-09-04"]).turn()
        request = await waiting
    assert request is claude.requests[0]
    assert request.raw.startswith(b"{")
    assert (request.headers["anthropic-version"], request.betas) == ("2026-10-21", {"compact-2026-09-04"})
    assert (request.status, request.streaming, request.turn, request.opening) == (200, True, 0, "Look.")


async def test_a_restarted_server_goes_on() -> None:
    """Nothing but the script is needed: a second server takes a conversation, thinking included, where the first one left it."""
    script = [say(call("bash", command="ls")), say("Done.")]
    with ScriptedClaude(script) as first:
        async with talk(first) as client:
            session = Session(client)
            answer = await session.turn()
    with ScriptedClaude(script) as second:
        async with talk(second) as session.client:
            assert (await session.turn(*results(answer))).content[-1].text == "Done."


def test_as_a_command(tmp_path: Path) -> None:
    """The command prints its URL, serves the script, and exits with its problems."""
    (tmp_path / "play.py").write_text("from prefect_routines.testing import say\nSCRIPT = [say('Hello from afar.')]\n")
    command = [sys.executable, "-W", "error", "-m", "prefect_routines.testing.claude", "--script", f"{tmp_path}/play.py:SCRIPT"]
    code = (
        "import anthropic\n"
        "said = [{'role': 'user', 'content': 'x'}]\n"
        "answer = anthropic.Anthropic().messages.create(model='claude-opus-5-5', max_tokens=9, messages=said)\n"
        "print(answer.content[-1].text)"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        environment = {**os.environ, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-ant-scripted"}
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        server.terminate()
        _, errors = server.communicate(timeout=10)
    assert said.stdout == "Hello from afar.\n"
    assert server.returncode == 0
    assert errors.splitlines() == [f"Point a routine at it: export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=sk-ant-scripted"]


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    """A wrong --script is one line, no traceback."""
    command = [sys.executable, "-m", "prefect_routines.testing.claude", "--script", f"{tmp_path}/none.py:SCRIPT"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("--script ")
    assert len(failed.stderr.splitlines()) == 1


def test_the_server_does_not_import_the_sdk() -> None:
    """A scripted Claude starts in milliseconds: the SDK alone would take three seconds."""
    code = "import sys, prefect_routines.testing; sys.exit(any(name.partition('.')[0] in {'anthropic', 'prefect'} for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_attempts_belong_to_a_turn() -> None:
    """The first request for a turn gets the first outcome, the next one the next, and the last one stays."""
    with ScriptedClaude([attempts(fail(500), lambda request: say("at last")), say("two")]) as claude:
        async with talk(claude) as client:
            session = Session(client)
            with pytest.raises(APIStatusError):
                await session.turn()
            assert (await Session(client).turn()).content[-1].text == "at last"
            assert (await session.turn()).content[-1].text == "at last"
            assert (await session.turn({"type": "text", "text": "more"})).content[-1].text == "two"
