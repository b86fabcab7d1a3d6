"""The prompt cache: every request reads what the former one wrote, and the conversation only ever grows."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_routines.testing import Request, ScriptedClaude, call, say, think

from .world import NOTHING, blocks, is_continued, run, stripped

pytestmark = pytest.mark.usefixtures("prefect")


def markers(request: Request) -> list[dict[str, Any]]:
    """All blocks with a cache breakpoint."""
    body = request.body
    row = [*body["tools"], *body["system"], *(block for message in body["messages"] for block in message["content"])]
    return [block for block in row if "cache_control" in block]


async def test_thirty_turns_read_what_was_cached() -> None:
    """One of them with 25 calls, many with three: what is not read from the cache is only what is new."""

    def calls(turn: int) -> int:
        return 25 if turn == 12 else 3 if turn % 4 == 0 else 1

    turns = [
        say(think("Hm."), f"Turn {turn}.", *(call("glob", pattern=f"no-{turn}-{i}") for i in range(calls(turn)))) for turn in range(30)
    ]
    with ScriptedClaude([*turns, NOTHING], cache_minimum=1) as claude:
        ran = await run(claude)
    assert ran.state.is_completed()
    assert is_continued(ran.requests)
    for former, request in zip(ran.requests, ran.requests[1:], strict=False):
        assert request.cached.uncached == 0
        assert request.cached.read == former.cached.read + former.cached.written_5m
        assert len(markers(request)) <= 4
        assert not [block for block in markers(request) if block.get("type") in ("thinking", "redacted_thinking")]
    prompt = sum(len(item) for item in blocks(ran.requests[-1].body))
    assert claude.bytes_outside_cache() < 1.2 * prompt


async def test_what_stands_first_never_changes() -> None:
    """Model, tools and system prompt of the first request are those of the last, byte for byte, and hold no date and no id."""
    with ScriptedClaude([say(call("bash", command="true")), say(call("bash", command="true")), NOTHING]) as claude:
        first = await run(claude)
    with ScriptedClaude([NOTHING]) as claude:
        second = await run(claude, prompt="Something else.")
    for name in ("model", "max_tokens", "tools", "system"):
        assert len({str(request.body[name]) for request in [*first.requests, *second.requests]}) == 1
    names = [one["name"] for one in first.requests[0].body["tools"]]
    assert names == sorted(names)


async def test_results_are_sent_as_they_were_kept() -> None:
    """A picture is stored once, as the bytes that are sent."""
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    script = [say(call("bash", command=f"echo {png} | base64 -d > dot.png")), say(call("read", path="dot.png")), NOTHING]
    with ScriptedClaude(script) as claude:
        ran = await run(claude)
    [image] = ran.requests[2].result("read").content
    assert stripped(image) == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}}
    assert is_continued(ran.requests)
