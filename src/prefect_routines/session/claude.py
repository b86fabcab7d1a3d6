"""The only module that talks to the Messages API: one attempt at one reply, and what its errors mean."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import ModelError, SettingsError
from prefect_routines.session import pricing
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

DEFAULT_WINDOW = 200_000
TRANSIENT_TYPES = {"overloaded_error", "api_error", "rate_limit_error", "timeout_error"}
NO_LOGIN = (
    "no login for Claude: set ANTHROPIC_API_KEY where the run executes, or save a block "
    "(python blocks/save_anthropic.py) and name it: claude='anthropic-credentials/NAME'"
)


class Transient(Exception):
    """An attempt failed in a way that another attempt may mend.

    Args:
        reason: What happened, in words.
        retry_after: Seconds the service asks to wait, if it said so.
        tokens: What the attempt had used when it broke; billed although nothing came of it.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, tokens: dict[str, int] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.tokens = reason, retry_after, tokens


class ContextFull(ModelError):
    """The conversation no longer fits the model's window; it has to be compacted."""


class Rejected(ModelError):
    """The service finds something in the request that it does not take, for example a picture that is none."""


@dataclass(frozen=True)
class Reply:
    """One complete reply, ready for the journal."""

    id: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str
    stop_details: dict[str, Any] | None
    usage: dict[str, Any]

    @property
    def tokens(self) -> dict[str, int]:
        """Exclusive counts: input, cache_read, cache_write, output."""
        return pricing.tokens_of(self.usage)


@dataclass(frozen=True)
class Model:
    """What the service says of a model: its window (input tokens), its longest reply (tokens) and what people call it."""

    id: str
    window: int
    max_tokens: int | None
    name: str


class Claude:
    """A client of the Messages API.

    Args:
        block: Block document 'anthropic-credentials/NAME'; None takes the environment (`ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL`).
        stall: Seconds without a new word after which a stream counts as dead, even if it still sends pings.
    """

    def __init__(self, client: AsyncAnthropic, stall: float) -> None:
        self._client, self._stall = client, stall
        self.so_far: dict[str, int] | None = None
        """Tokens of the reply that is being streamed, or that was cut; None before its first word."""
        self.heard_at: str | None = None
        """The service's clock when the model was looked up, as its `Date` header has it."""

    @classmethod
    async def open(cls, block: str | None, *, stall: float) -> Claude:
        """Make the client; nothing is sent yet.

        Raises:
            ModelError: There is no login.
            SettingsError: There is no such block.
        """
        import httpx2
        from anthropic import AnthropicError, AsyncAnthropic, DefaultAsyncHttpxClient

        login: dict[str, Any] = {}
        if block is not None:
            from prefect_routines.blocks import load_block
            from prefect_routines.credentials import AnthropicCredentials

            found = await load_block(block)
            if not isinstance(found, AnthropicCredentials):
                raise SettingsError(f"claude: {block!r} is no login for Claude; name a block 'anthropic-credentials/NAME'")
            key, token = found.api_key, found.auth_token
            if key is None and token is None:
                raise ModelError(f"the block {block!r} holds neither api_key nor auth_token; fill one in")
            # an explicit None would be filled from the environment, which the block is to replace
            login = {"api_key": key.get_secret_value() if key else None, "base_url": found.base_url}
            if token is not None:
                login["auth_token"] = token.get_secret_value()
        elif not any(os.environ.get(name) for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE")):
            raise ModelError(NO_LOGIN)
        timeout = httpx2.Timeout(600, connect=10, read=min(90.0, stall))  # a healthy stream sends pings: no byte for long means it is dead
        try:
            client = AsyncAnthropic(
                **login,
                max_retries=0,  # the loop retries: it journals each attempt and knows what each one cost
                timeout=timeout,
                http_client=DefaultAsyncHttpxClient(timeout=timeout, verify=shared_tls()),
            )
        except AnthropicError as error:
            raise ModelError(f"{NO_LOGIN} ({error})") from None
        return cls(client, stall)

    @property
    def address(self) -> str:
        """Where requests go."""
        return str(self._client.base_url).rstrip("/")

    @property
    def secrets(self) -> list[str]:
        """The login, which must not show up in anything that is kept."""
        return [secret for secret in (self._client.api_key, self._client.auth_token) if secret]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def model(self, name: str) -> Model:
        """Look a model up: proves the login and the name before a token is spent.

        Raises:
            ModelError: The key is wrong, or the model unknown, or the service cannot be reached.
        """
        import anthropic
        import httpx2

        try:
            answer = await self._client.beta.models.with_raw_response.retrieve(name)
            self.heard_at, info = answer.headers.get("date"), await answer.parse()
        except anthropic.NotFoundError as error:
            if error.type == "not_found_error":
                raise ModelError(f"unknown model {name!r}: {_words(error)}. Set `model` to one of the account's models") from None
            return Model(name, DEFAULT_WINDOW, None, name)  # an endpoint that has no Models API
        except anthropic.APIStatusError as error:
            if error.status_code in (401, 403):
                raise _refused(error) from None
            return Model(name, DEFAULT_WINDOW, None, name)  # busy or odd: the first request will tell
        except (anthropic.APIConnectionError, httpx2.TransportError) as error:
            raise ModelError(
                f"cannot reach Claude at {self._client.base_url}: {_cause(error)}; check the network and ANTHROPIC_BASE_URL"
            ) from None
        return Model(name, info.max_input_tokens or DEFAULT_WINDOW, info.max_tokens, info.display_name)

    async def sample(self, request: dict[str, Any], on_text: Callable[[str], None] | None = None) -> Reply:
        """One attempt at one reply, streamed. Nothing of a reply that breaks off is ever used.

        Cancel the task to interrupt: that closes the stream.

        Args:
            on_text: Called with each piece of text as it arrives; all together are the reply's texts with an empty line between them.

        Raises:
            Transient: Try again.
            ContextFull: Compact first.
            ModelError: Trying again does not help.
        """
        import anthropic
        import httpx2

        message, ended, self.so_far = None, False, None
        inputs: dict[int, str] = {}
        spoken = None  # the block whose text came last
        try:
            async with asyncio.timeout(self._stall) as silence, self._client.beta.messages.stream(**request) as stream:
                async for event in stream:
                    message, ended = stream.current_message_snapshot, event.type == "message_stop"
                    if event.type in ("message_start", "message_delta"):
                        self.so_far = _tokens(message)
                    if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                        inputs[event.index] = inputs.get(event.index, "") + event.delta.partial_json
                    elif on_text and event.type == "content_block_delta" and event.delta.type == "text_delta" and event.delta.text:
                        on_text(event.delta.text if spoken in (None, event.index) else f"\n\n{event.delta.text}")
                        spoken = event.index
                    silence.reschedule(asyncio.get_running_loop().time() + self._stall)
        except TimeoutError:
            raise Transient(f"Claude said nothing for {self._stall:g} s", tokens=_tokens(message)) from None
        except anthropic.APIStatusError as error:
            raise _meaning(error, _tokens(message)) from None
        except (anthropic.APIConnectionError, httpx2.TransportError) as error:
            raise Transient(f"the connection to Claude failed: {_cause(error)}", tokens=_tokens(message)) from None
        except (json.JSONDecodeError, ValueError, AssertionError) as error:  # what the SDK raises on a malformed stream
            raise Transient(f"Claude's reply was malformed: {one_line(str(error), 300)}", tokens=_tokens(message)) from None
        if not ended or message is None or message.stop_reason is None:
            # the SDK takes a connection that closes politely in mid-reply for the end of it
            raise Transient("Claude's reply broke off", tokens=_tokens(message))
        return _whole(message, inputs)


def _whole(message: Any, inputs: dict[int, str]) -> Reply:
    """The finished message as a reply. `inputs` has the calls' inputs as they came, by the number of the block.

    Raises:
        Transient: Its calls cannot be told apart or understood.
    """
    tokens = _tokens(message)
    content = [block.to_dict(mode="json", warnings=False) for block in message.content]
    calls = [block for block in content if block["type"] == "tool_use"]
    if len({call["id"] for call in calls}) < len(calls):
        raise Transient("Claude's reply used one tool id twice", tokens=tokens)
    if message.stop_reason == "tool_use" and not all(map(_is_object, inputs.values())):
        # the SDK completes broken JSON to something that looks like a call: half a command must not be run
        raise Transient("Claude's reply has a call with malformed input", tokens=tokens)
    details = message.stop_details.to_dict(mode="json") if getattr(message, "stop_details", None) else None
    return Reply(message.id, message.model, content, message.stop_reason, details, message.usage.to_dict(mode="json"))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        return False


def shared_tls() -> Any:
    """One TLS context for all sessions of the process, and of those forked from it: loading the certificates takes 20 ms and more."""
    return _tls(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))  # where httpx2 looks for them


@cache
def _tls(file: str | None, directory: str | None) -> Any:
    import httpx2

    return httpx2.create_ssl_context()


_REHEARSED = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_0",
            "type": "message",
            "role": "assistant",
            "model": "none",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "toolu_0", "name": "x", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
)


async def rehearse() -> None:
    """Read a reply that nobody sent: the SDK builds the types of its answers at their first use, which costs each process 50 ms."""
    import httpx2
    from anthropic import AsyncAnthropic

    def answer(request: Any) -> Any:
        lines = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _REHEARSED)
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, text="".join(lines))

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as nowhere:
        client = AsyncAnthropic(api_key="none", base_url="http://none.invalid", http_client=nowhere, max_retries=0)
        asked = {"model": "none", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        await Claude(client, stall=10.0).sample(asked)


def _tokens(message: Any) -> dict[str, int] | None:
    return pricing.tokens_of(message.usage.to_dict(mode="json")) if message is not None else None


def _words(error: APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return one_line(str(body["error"].get("message", error.message)), 1000)
    return one_line(error.message, 1000)  # what stands between us and the service may answer with a whole page


def _cause(error: BaseException) -> str:
    inner = error.__cause__ or error
    return str(inner) or type(inner).__name__


def _refused(error: APIStatusError) -> ModelError:
    return ModelError(f"Claude refused the login ({error.status_code}: {_words(error)}); check ANTHROPIC_API_KEY or the block with the key")


def _meaning(error: APIStatusError, tokens: dict[str, int] | None) -> Exception:
    """What an error status means for the loop. By type and code, never by the wording (but for the full window, which has no code)."""
    status, kind, words = error.status_code, error.type, _words(error)
    if status in (401, 403):
        return _refused(error)
    if getattr(error, "error_code", None) == "enforced_spend_limit_reached" or status == 402:
        return ModelError(f"the account's spend limit is reached: {words}; raise it, then retry the run")
    if kind in TRANSIENT_TYPES or status in (408, 409, 429) or status >= 500:
        return Transient(f"Claude answered {kind or status}: {words}", retry_after=_retry_after(error), tokens=tokens)
    if status == 413 or (kind == "invalid_request_error" and "prompt is too long" in words):
        return ContextFull(f"the conversation is too long for the model: {words}")
    if kind == "not_found_error":
        return ModelError(f"Claude does not know what was asked for: {words}; check `model`")
    refused = Rejected if kind == "invalid_request_error" else ModelError
    return refused(f"Claude refused the request ({status} {kind}: {words}; request {error.request_id})")


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds from `retry-after-ms` or `retry-after`; a date or nonsense counts as not said."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(error.response.headers[name]) * unit)
        except (KeyError, ValueError):
            continue
    return None


async def wait_before_retry(attempt: int, retry_after: float | None, remaining: float) -> bool:
    """Wait before attempt number `attempt + 1`; False if that would pass the deadline in `remaining` seconds."""
    import random

    seconds = retry_after if retry_after is not None else min(30.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
    if seconds >= remaining:
        return False
    await asyncio.sleep(seconds)
    return True
