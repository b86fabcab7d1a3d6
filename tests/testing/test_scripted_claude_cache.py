"""The simulated prompt cache and compaction behave as documented, so that a loop's caching can be tested and measured."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from anthropic import AsyncAnthropic, BadRequestError

from prefect_routines.testing import ScriptedClaude, call, say

TOOLS: Any = [{"name": "bash", "input_schema": {"type": "object"}}]
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
COMPACT = ["compact-2026-09-04"]
Marked = Callable[[list[Any]], list[Any]]


@asynccontextmanager
async def talk(claude: ScriptedClaude) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=claude.url, api_key=claude.api_key, max_retries=0) as client:
        yield client


async def ask(client: AsyncAnthropic, messages: list[Any], **more: Any) -> Any:
    fields: dict[str, Any] = {"model": "claude-opus-5-5", "max_tokens": 999, "tools": TOOLS, "system": "Be brief.", **more}
    async with client.beta.messages.stream(messages=messages, **fields) as stream:
        return await stream.get_final_message()


def mark(messages: list[Any], *places: int) -> list[Any]:
    """A copy with a breakpoint on the last block of each of these messages."""
    copy = list(messages)
    for place in places:
        content = copy[place]["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        copy[place] = {**copy[place], "content": [*blocks[:-1], {**blocks[-1], "cache_control": MARK}]}
    return copy


def two_boundaries(messages: list[Any]) -> list[Any]:
    """Where the former request ended, and where this one ends."""
    return mark(messages, *([-3] if len(messages) > 2 else []), -1)


def trailing(messages: list[Any]) -> list[Any]:
    """The end only."""
    return mark(messages, -1)


async def play(client: AsyncAnthropic, turns: int, marked: Marked, **more: Any) -> list[Any]:
    """Run a session whose calls are all answered; returns each turn's usage."""
    messages: list[Any] = [{"role": "user", "content": "Look. " * 50}]
    usage = []
    for _ in range(turns):
        message = await ask(client, marked(messages), **more)
        usage.append(message.usage)
        messages.append({"role": "assistant", "content": [part.to_dict(mode="json") for part in message.content]})
        results = [{"type": "tool_result", "tool_use_id": b.id, "content": "fine " * 30} for b in message.content if b.type == "tool_use"]
        messages.append({"role": "user", "content": results})
    return usage


def prompt(usage: Any) -> int:
    return int(usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens)


def turns(count: int, wide: int) -> list[Any]:
    """Turns of three calls, one of them of 25."""
    return [say(*(call("bash", command=f"echo {n}") for n in range(25 if turn == wide else 3))) for turn in range(count)]


async def test_each_request_reads_what_the_former_one_cached() -> None:
    """With breakpoints at both boundaries forty turns read exactly all that was cached, the one with 25 calls included."""
    with ScriptedClaude(turns(40, wide=20), cache_minimum=0) as claude:
        async with talk(claude) as client:
            usage = await play(client, 40, two_boundaries)
    for former, now in pairwise(usage):
        assert now.cache_read_input_tokens in range(former.cache_read_input_tokens + former.cache_creation_input_tokens - 1, prompt(now))
        assert now.input_tokens == 0
    for former, now in pairwise(claude.requests):
        assert now.cached.read == former.cached.read + former.cached.written_5m
    assert usage[0].cache_read_input_tokens == 0


async def test_one_trailing_breakpoint_loses_the_cache_after_25_calls() -> None:
    """The look back ends after 20 blocks, so the request after the wide turn reads nothing."""
    with ScriptedClaude(turns(24, wide=20), cache_minimum=0) as claude:
        async with talk(claude) as client:
            usage = await play(client, 24, trailing)
    assert [index for index, one in enumerate(usage) if one.cache_read_input_tokens == 0] == [0, 21]


async def test_automatic_caching_is_a_trailing_breakpoint() -> None:
    """`cache_control` at the top marks the last block."""
    with ScriptedClaude(turns(4, wide=9), cache_minimum=0) as claude:
        async with talk(claude) as client:
            usage = await play(client, 4, lambda messages: messages, cache_control=MARK)
    assert all(one.cache_read_input_tokens > 0 for one in usage[1:])
    assert claude.bytes_outside_cache() == claude.bytes_outside_cache(claude.requests[0].conversation)


async def test_bytes_outside_the_cache_add_up() -> None:
    """Without breakpoints the whole prompt is outside each time; with them only what is new is."""
    with ScriptedClaude(turns(10, wide=99), cache_minimum=0) as plain, ScriptedClaude(turns(10, wide=99), cache_minimum=0) as cached:
        async with talk(plain) as client:
            await play(client, 10, lambda messages: messages)
        async with talk(cached) as client:
            await play(client, 10, two_boundaries)
    last = cached.requests[-1].cached
    assert cached.bytes_outside_cache() == last.read + last.outside
    assert plain.bytes_outside_cache() > 4 * cached.bytes_outside_cache()
    assert plain.bytes_outside_cache("no such conversation") == 0


async def test_lifetimes_are_told_apart() -> None:
    """What was written up to a one-hour breakpoint is counted apart from what came after it."""
    system = [{"type": "text", "text": "Be brief. " * 50, "cache_control": HOUR}]
    with ScriptedClaude([say("x")], cache_minimum=0) as claude:
        async with talk(claude) as client:
            usage = [(await ask(client, trailing([{"role": "user", "content": text}]), system=system)).usage for text in ("a", "b")]
    assert usage[0].cache_creation.ephemeral_1h_input_tokens > 100
    assert usage[0].cache_creation.ephemeral_5m_input_tokens > 0
    assert usage[1].cache_creation.ephemeral_1h_input_tokens == 0
    assert usage[1].cache_read_input_tokens == usage[0].cache_creation.ephemeral_1h_input_tokens


async def test_short_prompts_are_not_cached() -> None:
    """Below the minimum a breakpoint does nothing, silently."""
    with ScriptedClaude([say("x")]) as claude:
        async with talk(claude) as client:
            short = [(await ask(client, trailing([{"role": "user", "content": "x"}]))).usage for _ in range(2)]
            long = [(await ask(client, trailing([{"role": "user", "content": "x" * 5000}]))).usage for _ in range(2)]
    assert [one.cache_read_input_tokens + one.cache_creation_input_tokens for one in short] == [0, 0]
    assert long[1].cache_read_input_tokens == long[0].cache_creation_input_tokens > 1200


async def test_models_do_not_share_a_cache() -> None:
    """The same prompt to another model is written anew."""
    with ScriptedClaude([say("x")], cache_minimum=0) as claude:
        async with talk(claude) as client:
            for model in ("claude-opus-5-5", "claude-haiku-5-5", "claude-opus-5-5"):
                await ask(client, trailing([{"role": "user", "content": "x"}]), model=model)
    assert [request.cached.read > 0 for request in claude.requests] == [False, False, True]


async def test_warming_the_cache() -> None:
    """`max_tokens: 0` writes the cache and says nothing; it takes no turn."""
    with ScriptedClaude([say("x")], cache_minimum=0) as claude:
        async with talk(claude) as client:
            warm = await ask(client, trailing([{"role": "user", "content": "x"}]), max_tokens=0)
            said = await ask(client, trailing([{"role": "user", "content": "x"}]))
    assert (warm.content, warm.usage.output_tokens) == ([], 0)
    assert said.usage.cache_read_input_tokens == warm.usage.cache_creation_input_tokens


async def compact(client: AsyncAnthropic, messages: list[Any]) -> Any:
    return await ask(client, messages, compaction={"type": "summarize"}, betas=COMPACT)


async def converse(client: AsyncAnthropic, messages: list[Any], rounds: int, **more: Any) -> None:
    for _ in range(rounds):
        message = await ask(client, messages, **more)
        messages.append({"role": "assistant", "content": [part.to_dict(mode="json") for part in message.content]})
        messages.append({"role": "user", "content": "Go on."})


async def test_compaction_stands_for_what_it_summarizes() -> None:
    """The summary comes alone and signed; the conversation, its thinking and its script go on behind it."""
    with ScriptedClaude([say(f"Turn {n}.") for n in range(4)], cache_minimum=0, summary="So far so good.") as claude:
        async with talk(claude) as client:
            messages: list[Any] = [{"role": "user", "content": "Look."}]
            await converse(client, messages, 2)
            kept, rest = messages[-3:], messages[:-3]
            answer = await compact(client, rest)
            block = answer.content[0].to_dict(mode="json")
            messages = [{"role": "assistant", "content": [block]}, *kept]
            await converse(client, messages, 2, betas=COMPACT)
    assert (answer.stop_reason, len(answer.content), block["content"]) == ("compaction", 1, "So far so good.")
    assert (answer.usage.output_tokens, answer.usage.iterations[0].type) == (0, "compaction")
    assert answer.usage.iterations[0].input_tokens > 0
    assert [
        message["content"][-1]["text"] for message in messages if message["role"] == "assistant" and message["content"][0] != block
    ] == [
        "Turn 1.",
        "Turn 2.",
        "Turn 3.",
    ]
    assert claude.requests[-1].opening == "Look."


async def test_a_changed_summary_is_refused() -> None:
    """The signature covers the text."""
    with ScriptedClaude([say("One."), say("Two.")], strict=False) as claude:
        async with talk(claude) as client:
            messages: list[Any] = [{"role": "user", "content": "Look."}]
            await converse(client, messages, 1)
            block = (await compact(client, messages)).content[0].to_dict(mode="json")
            changed = {"role": "assistant", "content": [{**block, "content": "Other."}]}
            with pytest.raises(BadRequestError) as refused:
                await ask(client, [changed, {"role": "user", "content": "x"}], betas=COMPACT)
            with pytest.raises(BadRequestError, match="need the `compact-2026-09-04` beta"):
                await ask(client, [{"role": "assistant", "content": [block]}, {"role": "user", "content": "x"}])
    assert refused.value.error_code == "compaction_content_mismatch"


async def test_compaction_may_give_nothing() -> None:
    """Then the block has no content, the history stays, and the conversation goes on."""
    with ScriptedClaude([say("One."), say("Two.")], summary=lambda request: None) as claude:
        async with talk(claude) as client:
            messages: list[Any] = [{"role": "user", "content": "Look."}]
            await converse(client, messages, 1)
            assert (await compact(client, messages)).content[0].content is None
            await converse(client, messages, 1)
    assert messages[3]["content"][-1]["text"] == "Two."
