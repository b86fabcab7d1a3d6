"""ScriptedClaude: the Messages API on a local port, playing a script and refusing what the real one refuses."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from prefect_routines.testing.asked import Asked, Problem
from prefect_routines.testing.cache import PromptCache, tokens
from prefect_routines.testing.models import MODELS, Model
from prefect_routines.testing.prefix import Json, Row, link, write_summary
from prefect_routines.testing.prefix_rules import drops_misplaced_thinking, misplaced_thinking
from prefect_routines.testing.rules import HEADER_RULES, RULES, refuse
from prefect_routines.testing.script import Attempts, Cut, Failure, Outcome, Raw, Reply, Request, Script, Turn, fail
from prefect_routines.testing.server import Connection, HttpRequest, Server
from prefect_routines.testing.sse import Message, compose, encode
from prefect_routines.testing.transcripts import Transcripts

Scripts = Script | Mapping[str, Script] | Callable[[Request], Script]
Summary = str | None | Callable[[Request], str | Outcome | None]


class ScriptProblems(AssertionError):
    """The client did what the real API would not have taken, or left the script. `problems` has one line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(["the scripted Claude met problems:", *(f"- {problem}" for problem in self.problems)]))


class ScriptedClaude:
    """A Messages API server that plays a script: streaming and not, with tool calls, signed thinking, caching, errors, cut streams.

    The server keeps no conversations. Which turn comes next is the number of assistant messages in the request, so several sessions can
    run at once, a repeated request gets the same turn, and a restarted server goes on where the last one was.

    Args:
        script: A list of turns (`say`, `attempts`, `fail`, `cut`, or a function of the `Request`); or a mapping from a part of the first
            user message to such a list (`""` fits all); or a function that chooses a list.
        api_key: The only key accepted.
        models: Model ids accepted beside the current ones.
        thinking: Start turns with a short signed thinking block, unless the request disables thinking.
        summary: What compaction on demand answers: a text, None for a compaction that fails, or a function.
        cache_minimum: Tokens below which a prompt is not cached.
        strict: Raise `ScriptProblems` at the end of the `with` block if there were problems.
        port: 0 takes a free one.

    Example:
        ```python
        with ScriptedClaude([say(call("bash", command="git log")), say("Nothing new.")]) as claude:
            client = Anthropic(base_url=claude.url, api_key=claude.api_key)
            ...
        assert claude.requests[1].result("bash").text.startswith("commit")
        ```
    """

    def __init__(
        self,
        script: Scripts,
        *,
        api_key: str = "sk-ant-scripted",
        models: Iterable[str] = (),
        thinking: bool = True,
        summary: Summary = "A summary of the conversation so far.",
        cache_minimum: int = 1024,
        strict: bool = True,
        port: int = 0,
    ) -> None:
        self.api_key = api_key
        self.requests: list[Request] = []
        """Every request to `/v1/messages`, in order of arrival."""
        self.problems: list[str] = []
        """What went wrong that no script asked for, one line each."""
        self._script, self._summary, self._thinking, self._strict = script, summary, thinking, strict
        self._models = MODELS | {name: Model(name) for name in models}
        self._cache = PromptCache(cache_minimum)
        self._transcripts = Transcripts()
        self._attempts: dict[str, int] = {}
        self._issued: set[str] = set()
        self._nonce = secrets.token_hex(5)
        self._arrived = threading.Condition()
        self._server = Server(self._serve, port)

    def start(self) -> ScriptedClaude:
        """Listen. `with` does this."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Close all connections. `with` does this."""
        self._server.stop()

    def __enter__(self) -> ScriptedClaude:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        if kind is None and self._strict and self.problems:
            raise ScriptProblems(self.problems)

    @property
    def url(self) -> str:
        """Base URL for a client."""
        return f"http://127.0.0.1:{self._server.port}"

    def environment(self) -> dict[str, str]:
        """Variables that lead any Claude client of a process here."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": self.api_key}

    def wait_for(self, count: int, timeout: float = 10.0) -> Request:
        """Wait until that many requests have come, and return the last of them. Raises TimeoutError.

        It blocks the thread: in asynchronous code `await asyncio.to_thread(claude.wait_for, 2)`.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} requests came within {timeout:g} s")
            return self.requests[count - 1]

    def expect(self, text: str) -> str:
        """Take out and return the one problem whose line contains `text`, because the test is about it. Raises AssertionError."""
        for problem in self.problems:
            if text in problem:
                self.problems.remove(problem)
                return problem
        raise AssertionError(f"no problem says {text!r}; there are {self.problems}")

    def bytes_outside_cache(self, conversation: str | None = None) -> int:
        """Prompt bytes that were not read from the cache: of one `Request.conversation`, or of all."""
        return sum(request.cached.outside for request in self.requests if conversation in {None, request.conversation})

    async def _serve(self, http: HttpRequest, connection: Connection) -> None:
        request_id = f"req_{secrets.token_hex(12)}"
        path = http.path.partition("?")[0].rstrip("/")
        headers = {"request-id": request_id, "content-type": "application/json"}
        request = Request(http.method, http.path, http.headers, http.body or b"", {})
        asked = Asked({}, http.headers, self._models, self.api_key, counting=path.endswith("/count_tokens"), issued=frozenset(self._issued))
        routes = {"/v1/messages": "POST", "/v1/messages/count_tokens": "POST", "/v1/models": "GET"}
        route = "/v1/models" if path.startswith("/v1/models/") else path
        try:
            if problem := self._before_reading(http, routes.get(route), asked):
                self._refuse(request, problem, headers, connection)
            elif route == "/v1/models":
                self._answer_models(path.removeprefix("/v1/models").strip("/"), request, headers, connection)
            else:
                await self._messages(request, asked, headers, connection)
        except Exception as error:  # a mistake in this server must be seen, and must not leave the client waiting
            self.problems.append(self._line(request, f"the scripted Claude itself failed: {_where(error)}"))
            connection.cut()

    def _before_reading(self, http: HttpRequest, method: str | None, asked: Asked) -> Problem | None:
        if method is None:
            return Problem("Not found", 404, "not_found_error")
        if method != http.method:
            return Problem("Method Not Allowed", 405)
        if http.body is None:
            return Problem("Request exceeds the maximum size", 413, "request_too_large")
        return refuse(asked, HEADER_RULES)

    async def _messages(self, request: Request, asked: Asked, headers: dict[str, str], connection: Connection) -> None:
        try:
            body = json.loads(request.raw)
        except ValueError as error:
            body, problem = None, _bad_json(error)
        else:
            problem = None if isinstance(body, dict) else Problem("The request body should be an object")
        if problem is None:
            request.body = body
            asked = Asked(body, asked.headers, asked.models, asked.api_key, asked.counting, asked.issued)
            problem = refuse(asked, RULES)
        if problem is None:
            request.conversation = link("conversation", asked.row.tools, asked.row.system, request.opening)[:12]
        if not asked.counting:
            self._record(request)
        if problem:
            self._refuse(request, problem, headers, connection)
        elif asked.counting:
            self._send(request, 200, {"input_tokens": tokens(asked.row.size)}, headers, connection)
        else:
            self.problems += [self._line(request, line) for line in self._transcripts.check(request, asked.row)]
            await self._play(self._outcome(request, asked.row), request, asked, headers, connection)

    def _record(self, request: Request) -> None:
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def _outcome(self, request: Request, row: Row) -> Outcome:
        """What this request gets: compaction answers itself, everything else is in the script."""
        try:
            if request.body.get("compaction"):
                return self._compact(request, row)
            if request.body.get("max_tokens") == 0:
                return Reply((), "max_tokens", thinking=False)
            turn: Turn | Outcome = self._turn(request)
            if callable(turn):
                turn = turn(request)
            if isinstance(turn, Attempts):
                chosen = turn.outcomes[min(self._attempt(request, row), len(turn.outcomes) - 1)]
                turn = chosen(request) if callable(chosen) else chosen
            return turn
        except Exception as error:  # a script is the test's own code: whatever it raises is the test's problem, shown to it
            message = f"script failed at turn {request.turn}: {_where(error)}"
            self.problems.append(self._line(request, message))
            return fail(400, message)

    def _turn(self, request: Request) -> Turn:
        script = self._script
        if callable(script):
            script = script(request)
        if isinstance(script, Mapping):
            found = next((key for key in script if key in request.opening), None)
            if found is None:
                raise LookupError(f"no script for a conversation that starts with {request.opening[:80]!r}")
            script = script[found]
        if request.turn >= len(script):
            raise LookupError(f"script has no turn {request.turn}, it has {len(script)}")
        return script[request.turn]

    def _attempt(self, request: Request, row: Row) -> int:
        """How often this turn was asked for before: what identifies it is all that came before the user's last words."""
        told = [block.sent for block in row.blocks if block.role == "assistant"]
        key = told[-1] if told else request.conversation
        self._attempts[key] = self._attempts.get(key, -1) + 1
        return self._attempts[key]

    def _compact(self, request: Request, row: Row) -> Outcome:
        summary = self._summary(request) if callable(self._summary) else self._summary
        if not isinstance(summary, str | None):
            return summary
        record = {"opening": request.opening, "turns": request.turn, "bound": row.bound}
        cost = {"type": "compaction", **self._cache.account(self.api_key, row).usage(tokens(len(summary or "")))}
        cost.pop("service_tier")
        usage = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), 0)
        part = Raw(write_summary(summary, record))
        return Reply((part,), "compaction", usage={**usage, "iterations": [cost]}, thinking=False)

    async def _play(self, outcome: Outcome, request: Request, asked: Asked, headers: dict[str, str], connection: Connection) -> None:
        if isinstance(outcome, Failure):
            problem = Problem(outcome.message, outcome.status, outcome.type, outcome.details)
            self._send(request, outcome.status, _envelope(problem, headers), {**headers, **outcome.headers}, connection)
            return
        reply = outcome.reply if isinstance(outcome, Cut) else outcome
        if not request.body.get("compaction"):
            request.cached = self._cache.account(self.api_key, asked.row)
        dropped = [path for path, _ in misplaced_thinking(asked)] if drops_misplaced_thinking(asked) else []
        thinks = self._thinking and (request.body.get("thinking") or {}).get("type") != "disabled"
        serial = f"01{self._nonce}{len(self.requests):06x}"
        message = compose(reply, request, asked.row, serial, thinking=thinks, dropped=dropped)
        request.status = 200
        self._issued.update(block["type"] for block in message.body["content"])
        if isinstance(outcome, Cut):
            await _stop_short(outcome, message, request, headers, connection)
            return
        request.reply = message.body
        self._transcripts.said(reply, message.body["content"])
        if request.streaming:
            await _stream(reply, message, request, headers, connection)
        else:
            self._send(request, 200, message.body, headers, connection)

    def _answer_models(self, name: str, request: Request, headers: dict[str, str], connection: Connection) -> None:
        if not name:
            listed = [_model_info(model) for model in self._models.values()]
            page = {"data": listed, "has_more": False, "first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
            self._send(request, 200, page, headers, connection)
        elif name in self._models:
            self._send(request, 200, _model_info(self._models[name]), headers, connection)
        else:
            self._refuse(request, Problem(f"model: {name}", 404, "not_found_error"), headers, connection)

    def _refuse(self, request: Request, problem: Problem, headers: dict[str, str], connection: Connection) -> None:
        self.problems.append(self._line(request, f"{problem.status} {problem.type}: {problem.message}"))
        self._send(request, problem.status, _envelope(problem, headers), headers, connection)

    def _line(self, request: Request, text: str) -> str:
        number = self.requests.index(request) + 1 if request in self.requests else 0
        return f"request {number}: {text}" if number else f"{request.method} {request.path}: {text}"

    @staticmethod
    def _send(request: Request, status: int, body: Json, headers: dict[str, str], connection: Connection) -> None:
        request.status = status
        connection.send(status, headers, json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def _bad_json(error: ValueError) -> Problem | None:
    return Problem(f"The request body is not valid JSON: {error}")


def _envelope(problem: Problem, headers: Mapping[str, str]) -> Json:
    error: Json = {"type": problem.type, "message": problem.message}
    if problem.details:
        error["details"] = dict(problem.details)
    return {"type": "error", "error": error, "request_id": headers["request-id"]}


def _model_info(model: Model) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name,
        "created_at": "1970-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": model.context,
        "max_tokens": model.output,
    }


async def _stream(reply: Reply, message: Message, request: Request, headers: dict[str, str], connection: Connection) -> None:
    connection.begin({**headers, "content-type": "text/event-stream; charset=utf-8"})
    if not reply.delay:
        connection.write(b"".join(encode(event) for event in message.events))
    else:
        for event in message.events:
            connection.write(encode(event))
            if await _left(connection, request, reply.delay):
                return
    connection.end()


async def _stop_short(cut: Cut, message: Message, request: Request, headers: dict[str, str], connection: Connection) -> None:
    error = Problem(f"scripted {cut.error}", 529, cut.error)
    if request.streaming:
        connection.begin({**headers, "content-type": "text/event-stream; charset=utf-8"})
        connection.write(b"".join(encode(event) for event in message.events[: cut.after]))
    elif cut.how == "error":
        connection.send(error.status, headers, json.dumps(_envelope(error, headers)).encode())
        return
    if cut.how == "error":
        connection.write(encode(_envelope(error, headers)))
        connection.end()
    elif cut.how == "eof" and request.streaming:
        connection.end()
    elif cut.how == "silence":
        while not await _left(connection, request, cut.ping or None):
            connection.write(encode({"type": "ping"}))
    else:
        connection.cut()


async def _left(connection: Connection, request: Request, within: float | None) -> bool:
    """Whether the client closed the connection within that many seconds; None waits until it does."""
    try:
        await asyncio.wait_for(connection.gone.wait(), within)
    except TimeoutError:
        return False
    request.disconnected.set()
    return True
