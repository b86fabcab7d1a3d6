"""The ways in which a scripted Claude fails look to the real client as the real API's failures do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    EnforcedSpendLimitReachedError,
    NotFoundError,
    OverloadedError,
    RateLimitError,
)

from prefect_routines.testing import ScriptedClaude, attempts, cut, fail, say

LONG = say("A text that comes in many pieces. " * 9)


@asynccontextmanager
async def talk(claude: ScriptedClaude, **options: Any) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=claude.url, api_key=claude.api_key, **options) as client:
        yield client


def stream(client: AsyncAnthropic, prompt: str = "Look.") -> Any:
    return client.beta.messages.stream(model="claude-opus-5-5", max_tokens=99, messages=[{"role": "user", "content": prompt}])


async def final(client: AsyncAnthropic, prompt: str = "Look.") -> Any:
    async with stream(client, prompt) as told:
        return await told.get_final_message()


@pytest.mark.parametrize(
    ("failure", "error", "type"),
    [
        (fail(401), AuthenticationError, "authentication_error"),
        (fail(404, "model: x"), NotFoundError, "not_found_error"),
        (fail(429), RateLimitError, "rate_limit_error"),
        (fail(500), APIStatusError, "api_error"),
        (fail(529), OverloadedError, "overloaded_error"),
        (fail(429, details={"error_code": "enforced_spend_limit_reached"}), EnforcedSpendLimitReachedError, "rate_limit_error"),
    ],
)
async def test_errors_before_the_stream(failure: Any, error: type[APIStatusError], type: str) -> None:
    """A status becomes the SDK's own exception, with type, status and request id; a scripted error is no problem."""
    with ScriptedClaude([failure]) as claude:
        async with talk(claude, max_retries=0) as client:
            with pytest.raises(error) as raised:
                await final(client)
    assert (raised.value.status_code, raised.value.type) == (failure.status, type)
    assert raised.value.request_id
    assert claude.requests[0].status == failure.status


async def test_the_sdk_absorbs_two_failures() -> None:
    """Two 529 are retried inside the SDK, the third would reach the caller; each took an attempt and none a turn."""
    with ScriptedClaude([attempts(fail(529, retry_after_ms=1), fail(429, retry_after_ms=1), say("ok"))]) as claude:
        async with talk(claude) as client:
            assert (await final(client)).content[-1].text == "ok"
    assert [request.status for request in claude.requests] == [529, 429, 200]


async def test_retry_after_is_sent() -> None:
    """The header says in seconds, or milliseconds, how long to wait."""
    with ScriptedClaude([attempts(fail(429, retry_after=2.5), fail(429, retry_after_ms=7, headers={"x-should-retry": "false"}))]) as claude:
        async with talk(claude, max_retries=0) as client:
            for name, value in (("retry-after", "2.5"), ("retry-after-ms", "7")):
                with pytest.raises(RateLimitError) as raised:
                    await final(client)
                assert raised.value.response.headers[name] == value
    assert raised.value.response.headers["x-should-retry"] == "false"


async def test_an_error_inside_the_stream() -> None:
    """It surfaces as an APIStatusError with status 200 that the SDK does not retry."""
    with ScriptedClaude([attempts(cut(LONG, after=5, how="error"), say("ok"))]) as claude:
        async with talk(claude) as client:
            with pytest.raises(APIStatusError) as raised:
                await final(client)
            assert (raised.value.status_code, raised.value.type) == (200, "overloaded_error")
            assert (await final(client)).content[-1].text == "ok"


async def read(client: AsyncAnthropic, seen: list[str]) -> None:
    async with stream(client) as told:
        async for event in told:
            seen.append(event.type)  # noqa: PERF401  # what was seen must survive the error


async def test_a_cut_connection() -> None:
    """It surfaces as the transport's own error, after the events that still came."""
    with ScriptedClaude([cut(LONG, after=7)]) as claude:
        async with talk(claude) as client:
            seen: list[str] = []
            with pytest.raises(httpx2.RemoteProtocolError):
                await read(client, seen)
    assert seen.count("text") == 1
    assert len(claude.requests) == 1


async def test_a_clean_end_that_comes_too_early() -> None:
    """The SDK raises nothing: the message simply has no stop reason."""
    with ScriptedClaude([cut(LONG, after=8, how="eof")]) as claude:
        async with talk(claude) as client:
            message = await final(client)
    assert message.stop_reason is None
    assert message.content[-1].text


async def test_a_silent_stream() -> None:
    """Nothing more comes: the client's read timeout ends it, and the server knows that the client left."""
    with ScriptedClaude([cut(LONG, how="silence")]) as claude:
        async with talk(claude, timeout=httpx2.Timeout(5, read=0.1)) as client:
            with pytest.raises(httpx2.ReadTimeout):
                await final(client)
        assert claude.requests[0].disconnected.wait(5)


async def test_a_stream_that_only_pings() -> None:
    """Pings keep the connection alive, so only the caller can end it; the server sees the interrupt."""
    with ScriptedClaude([attempts(cut(LONG, after=8, how="silence", ping=0.02), say("ok"))]) as claude:
        async with talk(claude, timeout=httpx2.Timeout(5, read=0.5)) as client:

            async def listen(heard: asyncio.Event) -> None:
                async with stream(client) as told:
                    async for event in told:
                        if event.type == "text":
                            heard.set()

            heard = asyncio.Event()
            reading = asyncio.create_task(listen(heard))
            await heard.wait()
            assert not claude.requests[0].disconnected.is_set()
            reading.cancel()
            assert await asyncio.to_thread(claude.requests[0].disconnected.wait, 5)
            assert (await final(client)).content[-1].text == "ok"


async def test_a_slow_stream_is_noticed_when_left() -> None:
    """With a delay the events come one by one, and leaving in between is seen."""
    with ScriptedClaude([say("A text that comes in pieces, one by one.", delay=0.02)]) as claude:
        async with talk(claude) as client:
            assert (await final(client)).stop_reason == "end_turn"
            async with stream(client) as told:
                async for event in told:
                    if event.type == "text":
                        break
        assert claude.requests[1].disconnected.wait(5)
        assert not claude.requests[0].disconnected.is_set()


@pytest.mark.parametrize("how", ["reset", "eof"])
async def test_cut_without_a_stream(how: Any) -> None:
    """Where no stream was asked for, a cut closes the connection before the answer."""
    with ScriptedClaude([attempts(cut(how=how), say("ok"))]) as claude:
        async with talk(claude) as client:
            message = await client.messages.create(model="claude-opus-5-5", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert message.content[-1].to_dict()["text"] == "ok"
    assert len(claude.requests) == 2


def _prompts() -> Iterator[str]:
    return (f"session {number}" for number in range(40))


async def test_faults_count_for_each_conversation() -> None:
    """Forty conversations at once fail once each and then go on."""
    with ScriptedClaude([attempts(fail(529, retry_after_ms=1), say("ok"))]) as claude:
        async with talk(claude) as client:
            told = await asyncio.gather(*(final(client, prompt) for prompt in _prompts()))
    assert {message.content[-1].text for message in told} == {"ok"}
    assert len(claude.requests) == 80
