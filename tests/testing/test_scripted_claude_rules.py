"""The scripted Messages API takes what the real one takes and refuses what it refuses, seen by the real client."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from anthropic import APIStatusError, AsyncAnthropic

from prefect_routines.testing import ScriptedClaude, say
from prefect_routines.testing.asked import Asked
from prefect_routines.testing.rules import RULES, refuse

SCHEMA = {"type": "object", "properties": {}}
TOOL = {"name": "bash", "description": "Run a command.", "input_schema": SCHEMA}
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(16)).decode()
ASK = {"role": "user", "content": "Look."}
ANSWER = {"role": "assistant", "content": "Done."}


@pytest.fixture(scope="module")
def claude() -> Iterator[ScriptedClaude]:
    with ScriptedClaude(lambda request: [say("ok", thinking=False)] * 9, models=["claude-next"], strict=False) as server:
        yield server


@pytest.fixture
async def client(claude: ScriptedClaude) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=claude.url, api_key=claude.api_key, max_retries=0) as client:
        yield client


def text(words: str = "hello", **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def use(id: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "bash", "input": {}, **more}


def result(id: str = "toolu_1", content: Any = "fine", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def image(**source: Any) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG, **source}}


def messages(*said: Any) -> dict[str, Any]:
    return {"messages": list(said)}


def betas(*names: str) -> dict[str, str]:
    return {"anthropic-beta": ",".join(names)}


ABSENT: Any = object()
CALLED = assistant(use())
THREE = [text(cache_control=MARK)] * 3
PLAIN_TOOLS = {"tools": [TOOL]}
OLD = {"anthropic-version": "2023-06-01"}
COMPACT = betas("compact-2026-09-04")

# name: (fields of an acceptable request, fields of a refused one, what the refusal says[, headers for both])
CASES: dict[str, tuple[Any, ...]] = {
    "model missing": ({}, {"model": ABSENT}, "model: Field required"),
    "model unknown": ({"model": "claude-next"}, {"model": "claude-last"}, "model: claude-last"),
    "max_tokens missing": ({}, {"max_tokens": ABSENT}, "max_tokens: Field required"),
    "max_tokens no integer": ({}, {"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
    "max_tokens negative": ({"max_tokens": 0}, {"max_tokens": -1}, "greater than or equal to 0"),
    "max_tokens too large": ({"max_tokens": 128_000}, {"max_tokens": 128_001}, "maximum allowed number of output tokens"),
    "unknown field": ({"metadata": {"user_id": "u"}}, {"meta": {}}, "meta: Extra inputs are not permitted"),
    "temperature": ({}, {"temperature": 1.0}, "temperature: Extra inputs are not permitted"),
    "top_p": ({}, {"top_p": 0.9}, "top_p: Extra inputs"),
    "top_k": ({}, {"top_k": 5}, "top_k: Extra inputs"),
    "context management without its beta": ({}, {"context_management": {"edits": []}}, "context_management: Extra inputs"),
    "compaction without its beta": ({}, {"compaction": {"type": "summarize"}}, "compaction: Extra inputs"),
    "thread without its beta": ({}, {"thread": {"type": "create"}}, "thread: Extra inputs"),
    "block binding without its beta": (
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "adaptive", "block_binding": {}}},
        "block_binding: Extra inputs",
    ),
    "task budget without its beta": ({}, {"output_config": {"task_budget": {"type": "tokens", "total": 9}}}, "task_budget: Extra inputs"),
    "clear_at without its beta": (
        messages(ASK, {"role": "system", "content": "Stop."}),
        messages(ASK, {"role": "system", "content": "Stop.", "clear_at": "never"}),
        "clear_at: Extra inputs",
    ),
    "system no text": ({"system": [text()]}, {"system": [image()]}, "system.0.type: Input should be 'text'"),
    "system empty text": ({"system": [text()]}, {"system": [text("")]}, "must be non-empty"),
    "tool name": ({"tools": [{**TOOL, "name": "a-B_9"}]}, {"tools": [{**TOOL, "name": "a.b"}]}, "should match pattern"),
    "tool name too long": ({"tools": [{**TOOL, "name": "a" * 128}]}, {"tools": [{**TOOL, "name": "a" * 129}]}, "should match pattern"),
    "tool names repeated": ({"tools": [TOOL, {**TOOL, "name": "b"}]}, {"tools": [TOOL, TOOL]}, "Tool names must be unique"),
    "tool schema missing": (PLAIN_TOOLS, {"tools": [{"name": "bash"}]}, "input_schema: Field required"),
    "tool schema no object": (PLAIN_TOOLS, {"tools": [{**TOOL, "input_schema": {"type": "string"}}]}, "Input should be 'object'"),
    "built-in tool": ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, {"tools": [{"type": "bash_20250124"}]}, "custom.name"),
    "tool choice kind": (
        {**PLAIN_TOOLS, "tool_choice": {"type": "auto"}},
        {**PLAIN_TOOLS, "tool_choice": {"type": "must"}},
        "tool_choice.type",
    ),
    "tool choice unknown": (
        {**PLAIN_TOOLS, "tool_choice": {"type": "tool", "name": "bash"}},
        {**PLAIN_TOOLS, "tool_choice": {"type": "tool", "name": "zsh"}},
        "not found in provided tools",
    ),
    "tool choice without tools": (
        {**PLAIN_TOOLS, "tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "any"}},
        "while providing `tools`",
    ),
    "forced tool with thinking": (
        {**PLAIN_TOOLS, "thinking": {"type": "adaptive"}, "tool_choice": {"type": "auto"}},
        {**PLAIN_TOOLS, "thinking": {"type": "adaptive"}, "tool_choice": {"type": "any"}},
        "Thinking may not be enabled",
    ),
    "thinking kind": ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "deep"}}, "thinking.type: Input should be"),
    "thinking always on": (
        {"model": "claude-sonnet-5-5", "thinking": {"type": "disabled"}},
        {"thinking": {"type": "disabled"}},
        "disabled",
    ),
    "thinking budget on a current model": (
        {"model": "claude-sonnet-4-5", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        "thinking.type.enabled",
    ),
    "thinking budget too small": (
        {"model": "claude-sonnet-4-5", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"model": "claude-sonnet-4-5", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1023}},
        "greater than or equal to 1024",
    ),
    "thinking budget too large": (
        {"model": "claude-sonnet-4-5", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1999}},
        {"model": "claude-sonnet-4-5", "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 2000}},
        "must be greater than `thinking.budget_tokens`",
    ),
    "effort": ({"output_config": {"effort": "xhigh"}}, {"output_config": {"effort": "huge"}}, "output_config.effort"),
    "output format": (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_config": {"format": {"type": "xml"}}},
        "output_config.format",
    ),
    "messages missing": ({}, {"messages": ABSENT}, "messages: Field required"),
    "messages no list": ({}, {"messages": "hello"}, "valid list"),
    "messages empty": ({}, {"messages": []}, "at least one message"),
    "role": ({}, messages({"role": "tool", "content": "x"}), "messages.0.role"),
    "content missing": ({}, messages({"role": "user"}), "messages.0.content: Field required"),
    "content no list": ({}, messages({"role": "user", "content": 5}), "valid string or list"),
    "block without type": (messages(user(text())), messages(user({"text": "x"})), "an object with a `type`"),
    "message field": ({}, messages({**ASK, "name": "me"}), "messages.0.name: Extra inputs"),
    "first is assistant": (messages(ASK, ANSWER, ASK), messages(ANSWER, ASK), 'first message must use the "user" role'),
    "empty message": (messages(ASK), messages(user()), "non-empty content"),
    "empty text": (messages(user(text())), messages(user(text(""))), "text content blocks must be non-empty"),
    "blank text": (messages(user(text("\nx"))), messages(user(text(" \n"))), "non-whitespace"),
    "block kind": (messages(user(text(), image())), messages(user({"type": "audio"})), "Input tag 'audio'"),
    "tool use by the user": (messages(ASK, CALLED, user(result())), messages(user(use())), "Input tag 'tool_use'"),
    "document of the assistant": (
        messages(user(text(), {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}})),
        messages(ASK, assistant({"type": "document", "source": {}}), ASK),
        "not permitted in `assistant` messages",
    ),
    "tool use id": (messages(ASK, CALLED, user(result())), messages(ASK, assistant(use("a b")), user(result("a b"))), "tool_use.id"),
    "tool use id repeated": (
        messages(ASK, assistant(use("a"), use("b")), user(result("a"), result("b"))),
        messages(ASK, assistant(use("a"), use("a")), user(result("a"))),
        "ids must be unique",
    ),
    "tool use id of an earlier turn": (
        messages(ASK, assistant(use("a")), user(result("a")), assistant(use("b")), user(result("b"))),
        messages(ASK, assistant(use("a")), user(result("a")), assistant(use("a")), user(result("a"))),
        "ids must be unique",
    ),
    "tool use input": (
        messages(ASK, CALLED, user(result())),
        messages(ASK, assistant(use(input="ls")), user(result())),
        "valid dictionary",
    ),
    "call unanswered": (
        messages(ASK, CALLED, user(result(), text("and now?"))),
        messages(ASK, CALLED, user(text("and now?"))),
        "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1.",
    ),
    "one of two calls unanswered": (
        messages(ASK, assistant(use("a"), use("b")), user(result("b"), result("a"))),
        messages(ASK, assistant(use("a"), use("b")), user(result("b"))),
        "immediately after: a.",
    ),
    "results over two messages": (
        messages(ASK, assistant(use("a"), use("b")), user(result("a"), result("b"))),
        messages(ASK, assistant(use("a"), use("b")), user(result("a")), user(result("b"))),
        "immediately after: b.",
    ),
    "result after text": (
        messages(ASK, CALLED, user(result(), text())),
        messages(ASK, CALLED, user(text(), result())),
        "without `tool_result` blocks immediately after",
    ),
    "result without call": (messages(ASK, CALLED, user(result())), messages(ASK, ANSWER, user(result())), "unexpected `tool_use_id`"),
    "result twice": (
        messages(ASK, CALLED, user(result())),
        messages(ASK, CALLED, user(result(), result())),
        "each tool_use must have a single result",
    ),
    "result content kind": (
        messages(ASK, CALLED, user(result(content=[text(), image()]))),
        messages(ASK, CALLED, user(result(content=[{"type": "audio"}]))),
        "tool_result.content.0: Input tag 'audio'",
    ),
    "failed result with an image": (
        messages(ASK, CALLED, user(result(content=[text()], is_error=True))),
        messages(ASK, CALLED, user(result(content=[image()], is_error=True))),
        "must be type `text` if `is_error` is true",
    ),
    "empty text in a result": (
        messages(ASK, CALLED, user(result(content=""))),
        messages(ASK, CALLED, user(result(content=[text("")]))),
        "must be non-empty",
    ),
    "image type": (messages(user(image())), messages(user(image(media_type="image/bmp"))), "media_type: Input should be"),
    "image of another type": (
        messages(user(image())),
        messages(user(image(media_type="image/jpeg"))),
        "does not match the provided media type",
    ),
    "image not base64": (messages(user(image())), messages(user(image(data="?"))), "invalid base64"),
    "image too large": (messages(user(image())), messages(user(image(data="A" * (5 * 1024 * 1024 + 4)))), "image exceeds 5 MB"),
    "image in a result": (
        messages(ASK, CALLED, user(result(content=[image()]))),
        messages(ASK, CALLED, user(result(content=[image(media_type="image/bmp")]))),
        "tool_result.content.0.image.source",
    ),
    "system message first": (
        messages(ASK, {"role": "system", "content": "Hurry."}),
        messages({"role": "system", "content": "Hurry."}, ASK),
        "must directly follow a `user` message",
    ),
    "system message after an assistant turn": (
        messages(ASK, ANSWER, ASK, {"role": "system", "content": "Hurry."}),
        messages(ASK, ANSWER, {"role": "system", "content": "Hurry."}),
        "must directly follow a `user` message",
    ),
    "system message before a user message": (
        messages(ASK, {"role": "system", "content": "Hurry."}, ANSWER, ASK),
        messages(ASK, {"role": "system", "content": "Hurry."}, ASK),
        "must not be directly followed by a `user` message",
    ),
    "prefill": (
        {**messages(ASK, ANSWER), "model": "claude-sonnet-4-5"},
        messages(ASK, ANSWER),
        "does not support assistant message prefill",
    ),
    "cache marker on thinking": (
        {"model": "claude-opus-4-8", **messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s"}, text()), ASK)},
        messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s", "cache_control": MARK}, text()), ASK),
        "thinking.cache_control: Extra inputs",
    ),
    "cache marker on empty text": ({"system": [text(cache_control=MARK)]}, {"system": [text("", cache_control=MARK)]}, "empty text blocks"),
    "cache marker kind": (messages(user(text(cache_control=MARK))), messages(user(text(cache_control={"type": "long"}))), "'ephemeral'"),
    "cache marker lifetime": (
        messages(user(text(cache_control=HOUR))),
        messages(user(text(cache_control={**MARK, "ttl": "1d"}))),
        "ttl: Input should be '5m' or '1h'",
    ),
    "five cache markers": (
        {"system": [text(cache_control=MARK)], **messages(user(*THREE))},
        {"system": [text(cache_control=MARK)] * 2, **messages(user(*THREE))},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    "automatic caching counts": (
        {"cache_control": MARK, **messages(user(*THREE))},
        {"cache_control": MARK, "system": [text(cache_control=MARK)], **messages(user(*THREE))},
        "Found 5.",
    ),
    "cache marker inside a result": (
        messages(ASK, CALLED, user(result(content=[text(cache_control=MARK)]))),
        messages(ASK, CALLED, user(result(content=[text(cache_control=MARK)] * 5))),
        "Found 5.",
    ),
    "hour after five minutes": (
        {"system": [text(cache_control=HOUR)], **messages(user(text(cache_control=MARK)))},
        {"system": [text(cache_control=MARK)], **messages(user(text(cache_control=HOUR)))},
        "messages.0.content.0.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m'",
    ),
    "thinking unsigned": (
        {"model": "claude-opus-4-8", **messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s"}, text()), ASK)},
        {"model": "claude-opus-4-8", **messages(ASK, assistant({"type": "thinking", "thinking": ""}, text()), ASK)},
        "thinking.signature: Field required",
    ),
    "thinking last": (
        {"model": "claude-opus-4-8", **messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s"}, text()), ASK)},
        {"model": "claude-opus-4-8", **messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s"}), ASK)},
        "cannot be `thinking`",
    ),
    "thinking from elsewhere": (
        {"model": "claude-opus-4-8", **messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s"}, text()), ASK)},
        messages(ASK, assistant({"type": "thinking", "thinking": "", "signature": "s"}, text()), ASK),
        "Invalid `signature` in `thinking` block",
    ),
    "compaction kind": ({"compaction": {"type": "summarize"}}, {"compaction": {"type": "shorten"}}, "compaction.type", COMPACT),
    "compaction with context management": (
        {"context_management": {"edits": []}},
        {"compaction": {"type": "summarize"}, "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
        "cannot be combined",
        betas("compact-2026-09-04", "context-management-2025-06-27"),
    ),
    "compaction in the middle of a turn": (
        {"compaction": {"type": "summarize"}, **messages(ASK, CALLED, user(result()))},
        {"compaction": {"type": "summarize"}, **messages(ASK, CALLED)},
        "not finished",
        COMPACT,
    ),
    "beta name": ({}, {}, "Unexpected value(s) `no-such`", {}, betas("no-such")),
    "version": ({}, {}, "is not a valid version", OLD, {"anthropic-version": "2024-01-01"}),
    "version missing": ({}, {}, "anthropic-version: header is required", {}, {"anthropic-version": ""}),
    "sampling in the old version": ({"temperature": 0.5}, {"temperature": 0.5}, "temperature: Extra inputs", OLD, {}),
    "document of the assistant in the old version": (
        messages(ASK, assistant({"type": "document", "source": {}}), ASK),
        messages(ASK, assistant({"type": "document", "source": {}}), ASK),
        "`document` blocks",
        OLD,
        {},
    ),
}


async def post(client: AsyncAnthropic, fields: dict[str, Any], headers: dict[str, str]) -> Any:
    whole = {"model": "claude-opus-5-5", "max_tokens": 99, "messages": [ASK], **fields}
    body = {name: value for name, value in whole.items() if value is not ABSENT}
    return await client.post("/v1/messages", body=body, cast_to=object, options={"headers": headers})


@pytest.mark.parametrize("name", CASES)
async def test_rule(client: AsyncAnthropic, name: str) -> None:
    """The good request is answered; the bad one is refused in the API's words and with its status."""
    good, bad, says, *headers = CASES[name]
    good_headers, bad_headers = headers[0] if headers else {}, headers[-1] if headers else {}
    answer = await post(client, good, good_headers)
    assert answer["type"] == "message"
    with pytest.raises(APIStatusError) as refused:
        await post(client, bad, bad_headers)
    assert says in str(refused.value)
    expected = (404, "not_found_error") if name == "model unknown" else (400, "invalid_request_error")
    assert (refused.value.status_code, refused.value.type) == expected
    assert refused.value.request_id


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"compaction": {"type": "summarize"}, **messages(ASK, CALLED)}, "compaction_incomplete_turn"),
        (messages(ASK, assistant({"type": "compaction", "content": "x"}), ASK), "compaction_block_misplaced"),
        (messages(assistant({"type": "compaction", "content": "x"}), ASK), "compaction_signature_invalid"),
        (messages(assistant(*[{"type": "compaction", "content": "x"}] * 2), ASK), "compaction_block_ambiguous"),
        (
            {"compaction": {"type": "summarize"}, **messages(assistant({"type": "compaction", "content": None}))},
            "compaction_nothing_to_summarize",
        ),
    ],
)
async def test_errors_of_compaction_have_codes(client: AsyncAnthropic, fields: dict[str, Any], code: str) -> None:
    """The SDK tells these errors apart by `error_code`, so it is there."""
    with pytest.raises(APIStatusError) as refused:
        await post(client, fields, COMPACT)
    assert refused.value.error_code == code


@pytest.mark.parametrize(
    ("headers", "says"),
    [({"x-api-key": "sk-other"}, "invalid x-api-key"), ({}, "header is required"), ({"authorization": "Bearer no"}, "Invalid bearer")],
)
def test_a_wrong_key_is_401(claude: ScriptedClaude, headers: dict[str, str], says: str) -> None:
    """Without the right key nothing else is looked at."""
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{claude.url}/v1/messages", data=b"nonsense", headers=headers))
    body = json.load(refused.value)
    assert (refused.value.code, body["type"], body["error"]["type"]) == (401, "error", "authentication_error")
    assert says in body["error"]["message"]
    assert body["request_id"] == refused.value.headers["request-id"]


async def test_a_bearer_token_is_a_key_too(claude: ScriptedClaude) -> None:
    """`Authorization: Bearer` works where `x-api-key` does."""
    async with AsyncAnthropic(base_url=claude.url, auth_token=claude.api_key, max_retries=0) as client:
        assert (await post(client, {}, {}))["type"] == "message"
    assert "x-api-key" not in claude.requests[-1].headers


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/messages", 405), ("GET", "/v1/files", 404), ("POST", "/v1/messages", 400)]
)
def test_other_paths_methods_and_no_json(claude: ScriptedClaude, method: str, path: str, status: int) -> None:
    """What is not the Messages API is refused in the same envelope."""
    headers = {"x-api-key": claude.api_key, "anthropic-version": "2023-06-01"}
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{claude.url}{path}", data=b"{" if method == "POST" else None, headers=headers, method=method))
    assert refused.value.code == status
    assert json.load(refused.value)["type"] == "error"


async def test_too_large_a_request_is_413(client: AsyncAnthropic) -> None:
    """More than 32 MB are refused, and the client gets to read that."""
    with pytest.raises(APIStatusError) as refused:
        await post(client, messages(user(text("x" * 34_000_000))), {})
    assert (refused.value.status_code, refused.value.type) == (413, "request_too_large")


async def test_models_and_counting(client: AsyncAnthropic) -> None:
    """Models are listed and looked up; counting needs no max_tokens and follows the same rules."""
    assert (await client.models.list()).data[0].id == "claude-fable-5-2"
    assert (await client.models.retrieve("claude-opus-5-5")).display_name == "Claude Opus 5.5 (scripted: no model answers)"
    counted = await client.messages.count_tokens(model="claude-opus-5-5", messages=[{"role": "user", "content": "x" * 4000}])
    assert 1000 < counted.input_tokens < 1020
    for wrong in (client.models.retrieve("claude-none"), client.messages.count_tokens(model="claude-opus-5-5", messages=[])):
        with pytest.raises(APIStatusError):
            await wrong


ODD = ["x", 5, [], [5], {}, {"type": 5}, [{"type": []}], None, True]
FIELDS = [
    "model",
    "max_tokens",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "messages",
    "cache_control",
    "compaction",
    "stream",
]
PARTS = ["type", "text", "content", "id", "tool_use_id", "input", "source", "cache_control", "signature", "thinking", "encrypted_content"]
KINDS = ["text", "image", "tool_use", "tool_result", "thinking", "compaction"]


def test_odd_requests_are_answered() -> None:
    """Whatever shape a field has, there is an answer or a refusal in words, never a failure of the rules themselves."""
    headers = {"anthropic-beta": "compact-2026-09-04"}
    base = {"model": "claude-opus-5-5", "max_tokens": 9, "messages": [ASK]}
    bodies = [{**base, name: odd} for name in FIELDS for odd in ODD]
    for kind in KINDS:
        whole = {**text(), **use(), **result(), **image(), "thinking": "", "signature": "s", "type": kind}
        for message in (user, assistant):
            bodies += [{**base, **messages(ASK, message({**whole, part: odd}), ASK)} for part in PARTS for odd in ODD]
    for body in bodies:
        problem = refuse(Asked(body, headers), RULES)
        assert problem is None or problem.message
