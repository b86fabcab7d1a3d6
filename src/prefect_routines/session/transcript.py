"""Journal entries in, the state of the conversation and the next request out. A pure fold: no clock, no I/O.

The order and the bytes of what was once sent never change: current models bind every thinking block to the exact
`system`, `tools` and `messages` before it, and the prompt cache needs the same prefix.
https://platform.claude.com/docs/en/build-with-claude/preserved-thinking
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

Block = dict[str, Any]
Message = dict[str, Any]

COMPACTION_BETA = "compact-2026-09-04"
READING = frozenset(["glob", "grep", "push", "read", "read_event", "read_guidelines", "report"])
"""Tools that leave the workspace as it is."""
THINKING = ("thinking", "redacted_thinking")


class JournalEntry(Protocol):
    """What the fold needs of an entry of the store."""

    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> dict[str, Any]: ...
    @property
    def at(self) -> datetime: ...


@dataclass
class Call:
    """One tool call that Claude asked for, and how far it has come."""

    id: str
    name: str
    input: Any
    cut_off: bool = False
    started: bool = False
    arguments: dict[str, Any] | None = None
    result: dict[str, Any] | None = None


@dataclass
class Transcript:
    """The state of a session: a fold over its journal.

    Example:
        ```python
        transcript = Transcript.of(await store.entries(session_id))
        request = transcript.request()
        ```
    """

    config: dict[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    all_calls: dict[str, Call] = field(default_factory=dict)
    turns: int = 0
    attempts: int = 0
    stop_reason: str | None = None
    stop_details: dict[str, Any] | None = None
    unanswered_ends: int = 0
    dollars: float = 0.0
    reserved: float = 0.0
    tokens: dict[str, int] = field(default_factory=lambda: {"input": 0, "cache_read": 0, "cache_write": 0, "output": 0})
    context_tokens: int = 0
    compactions: int = 0
    workspace: dict[str, Any] | None = None
    pushes: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    outside: bool = False
    prompts: int = 0
    verdict: dict[str, Any] | None = None
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    verdict_of: dict[int, dict[str, Any]] = field(default_factory=dict)
    prompts_before: dict[str, int] = field(default_factory=dict)
    snapshot: dict[str, Any] | None = None
    unsaved: bool = False
    not_kept: str | None = None
    parents: list[str] = field(default_factory=list)
    inherited: dict[str, Any] = field(default_factory=dict)
    inherited_pushes: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)
    form: dict[str, Any] | None = None
    forms: dict[str, dict[str, Any]] = field(default_factory=dict)
    suspensions: list[dict[str, Any]] = field(default_factory=list)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)
    replies: dict[str, dict[str, Any]] = field(default_factory=dict)
    granted: list[str] = field(default_factory=list)
    raised: dict[str, float] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    cancelled: dict[str, Any] | None = None
    seconds: float = 0.0
    _last: datetime | None = None
    _held: list[Block] = field(default_factory=list)
    _spoken_to: bool = False

    @classmethod
    def of(cls, entries: Iterable[JournalEntry]) -> Transcript:
        """Fold a whole journal."""
        transcript = cls()
        for entry in entries:
            transcript.apply(entry)
        return transcript

    def apply(self, entry: JournalEntry) -> None:
        """Take one more entry in. Unknown kinds are passed over, so that an older version can read a newer journal."""
        if self._last is not None and entry.kind not in _AFTER_WAITING:
            self.seconds += max(0.0, (entry.at - self._last).total_seconds())
        self._last = entry.at
        handler = _HANDLERS.get(entry.kind)
        if handler is not None:
            handler(self, entry.data)

    # what the loop asks

    @property
    def open_calls(self) -> list[Call]:
        """Calls of the last turn that have no result yet, in Claude's order."""
        return [call for call in self.calls if call.result is None]

    @property
    def total_tokens(self) -> int:
        """All tokens that were billed, cached ones included."""
        return sum(self.tokens.values())

    @property
    def waits_for_reply(self) -> bool:
        """Whether the next step is a request: something was said since Claude's last word, or Claude paused in the middle of a turn."""
        return self._spoken_to or self.stop_reason == "pause_turn"

    @property
    def fresh_summary(self) -> bool:
        """Whether the conversation has just been summarised and nothing was said since."""
        return self.compactions > 0 and self.context_tokens == 0

    @property
    def fresh_pictures(self) -> bool:
        """Whether there are pictures among what was said since Claude's last word."""
        last = self.messages[-1:]
        return bool(last) and last[0]["role"] == "user" and _without_pictures(last[0]["content"], "") != last[0]["content"]

    def declined(self, reached: str) -> bool:
        """Whether a person was asked about this very limit and did not raise it."""
        return reached in self.stops

    def request(self) -> dict[str, Any]:
        """The next request to the Messages API, a function of the journal alone.

        Three cache breakpoints are set on copies, never stored: the end of `system` (which covers the tools), the place
        where the former request ended, and the end of this one. So each request finds what the former one wrote,
        however many blocks came in between (a look-up goes back 20 blocks only).
        https://platform.claude.com/docs/en/build-with-claude/prompt-caching
        """
        config = self.config
        messages = list(self.messages)
        last_reply = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        for index in {last_reply - 1, len(messages) - 1}:
            if index >= 0:
                messages[index] = _marked(messages[index])
        request: dict[str, Any] = {
            "model": config["model"],
            "max_tokens": config["max_tokens"],
            "system": _marked({"content": config["system"]})["content"],
            "tools": config["tools"],
            "messages": messages,
        }
        if config.get("effort"):
            request["output_config"] = {"effort": config["effort"]}
        if self.compactions:
            request["betas"] = [COMPACTION_BETA]
        return request

    def compaction_request(self) -> dict[str, Any]:
        """The request that has Claude's service summarise the whole conversation (on-demand compaction).

        https://platform.claude.com/docs/en/build-with-claude/compaction-on-demand
        """
        return {**self.request(), "compaction": {"type": "summarize"}, "betas": [COMPACTION_BETA]}

    # how entries change it

    def _config(self, data: dict[str, Any]) -> None:
        self.config = data

    def _running(self, data: dict[str, Any]) -> None:
        """A flow run works on the session; prompts are counted for each run, so that a restarted one finds its own."""
        self.prompts_before.setdefault(str(data.get("flow_run")), self.prompts)

    def _forked(self, data: dict[str, Any]) -> None:
        """From here on it is a session of its own: what was spent and pushed before is its parent's."""
        self.parents.append(data["from"])
        self.inherited = {"dollars": self.dollars + self.reserved, "tokens": self.total_tokens, "turns": self.turns}
        self.dollars, self.reserved, self.turns, self.attempts = 0.0, 0.0, 0, 0
        self.tokens = dict.fromkeys(self.tokens, 0)
        self.inherited_pushes, self.pushes = [*self.inherited_pushes, *self.pushes], []
        self.refused, self.outputs, self.granted, self.raised = [], [], [], {}
        self.form, self.cancelled = None, None
        if "snapshot" in data:
            self._kept(data["snapshot"])

    def _workspace(self, data: dict[str, Any]) -> None:
        self.workspace, self.unsaved, self.not_kept = data, False, None
        if not data.get("restored"):
            self.snapshot = None  # fresh clones: what was kept of others is no longer what there is

    def _kept(self, data: dict[str, Any]) -> None:
        self.snapshot, self.unsaved, self.not_kept = data, False, None

    def _not_kept(self, data: dict[str, Any]) -> None:
        self.not_kept = data["reason"]

    def _user(self, data: dict[str, Any]) -> None:
        if data.get("prompt"):  # a new piece of work: what the session came to before stays in `verdicts`
            self.prompts += 1
            self.verdict, self.stop_reason, self.unanswered_ends = None, None, 0
            self.cancelled, self.form = None, None
        if self.open_calls:
            self._held.extend(data["content"])  # stands behind the results, in the same message
        else:
            self._say(data["content"])

    def _say(self, content: list[Block]) -> None:
        """Add to the user's side; two messages in a row are one."""
        self._spoken_to = True
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages[-1] = {"role": "user", "content": [*self.messages[-1]["content"], *content]}
        else:
            self.messages.append({"role": "user", "content": list(content)})

    def _turn_start(self, data: dict[str, Any]) -> None:
        self.attempts += 1
        self.dollars += self.reserved  # an attempt that never ended (the process died) may have been billed
        self.reserved = data.get("reserved", 0.0)

    def _turn_failed(self, data: dict[str, Any]) -> None:
        self.reserved = 0.0
        self.dollars += data.get("dollars", 0.0)

    def _form_opened(self, data: dict[str, Any]) -> None:
        self.form = data
        self.forms[data["key"]] = data

    def _form_answered(self, data: dict[str, Any]) -> None:
        """What a person decided about calls, replied to questions and allowed in addition."""
        opened = self.forms.get(data["key"])
        self.form = None
        if opened is None:
            return
        answer, told = data["answer"], {"person": data["person"], "via": data["via"]}
        for call in opened["content"].get("calls", []):
            if decision := answer.get("decisions", {}).get(call["id"]):
                self.decisions[call["id"]] = {**decision, **told, "hash": call["hash"]}
                if decision["decision"] == "approve_all":
                    self.granted.append(call["like"])
        for question, reply in answer.get("replies", {}).items():
            self.replies[question] = {"text": reply, **told}
        if opened["kind"] == "budget" and answer.get("action") == "stop":
            self.stops.append(opened["content"]["reached"])
        for name, more in answer.get("raise", {}).items():
            self.raised[name] = self.raised.get(name, 0) + more

    def _suspended(self, data: dict[str, Any]) -> None:
        self.suspensions.append(data)

    def _cancelled(self, data: dict[str, Any]) -> None:
        self.cancelled = data
        self.form = None

    def _agent(self, data: dict[str, Any]) -> None:
        self.turns += 1
        self._spoken_to = False
        self._paid(data)
        self.stop_reason, self.stop_details = data["stop_reason"], data.get("stop_details")
        content = data["content"]
        if content:
            if self.messages and self.messages[-1]["role"] == "assistant":  # the rest of a paused turn
                self.messages[-1] = {"role": "assistant", "content": [*self.messages[-1]["content"], *content]}
            else:
                self.messages.append({"role": "assistant", "content": content})
        cut_off = self.stop_reason != "tool_use"
        self.calls = [Call(b["id"], b["name"], b["input"], cut_off) for b in content if b["type"] == "tool_use"]
        self.all_calls.update({call.id: call for call in self.calls})
        self.unanswered_ends = self.unanswered_ends + 1 if not self.calls and self.stop_reason != "pause_turn" else 0

    def _paid(self, data: dict[str, Any]) -> None:
        self.reserved = 0.0
        self.dollars += data.get("dollars", 0.0)
        usage = data.get("tokens", {})
        for name, count in usage.items():
            self.tokens[name] = self.tokens.get(name, 0) + count
        self.context_tokens = sum(usage.values())

    def _tool_start(self, data: dict[str, Any]) -> None:
        self.unsaved |= data.get("name") not in READING
        if call := self.all_calls.get(data["id"]):
            if not call.started and data.get("rule"):
                self.used[data["rule"]] = self.used.get(data["rule"], 0) + 1
            call.started, call.arguments = True, data.get("arguments")

    def _tool_result(self, data: dict[str, Any]) -> None:
        call = self.all_calls.get(data["id"])
        if call is None or call.result is not None:
            return
        call.result = data
        if title := data.get("data", {}).get("refused"):
            self.refused.append(title)
        if title := data.get("data", {}).get("written"):
            self.refused = [other for other in self.refused if other != title]
        self.outside |= bool(data.get("data", {}).get("outside"))
        if output := data.get("data", {}).get("output"):
            self.outputs.append(output)
        self.pushes.extend(data.get("data", {}).get("pushed", []))
        self.checks.extend(data.get("data", {}).get("checks", []))
        if not self.open_calls:  # all results of a turn go into one message, in Claude's order
            self._say([*(_result_block(call) for call in self.calls), *self._held])
            self._held = []

    def _compacted(self, data: dict[str, Any]) -> None:
        """The summary takes the place of all that it summarises; the journal keeps everything."""
        self.compactions += 1
        self._paid(data)
        self.context_tokens, self.stop_reason, self._spoken_to = 0, None, False
        self.messages = [{"role": "assistant", "content": data["content"]}]

    def _withdrawn(self, data: dict[str, Any]) -> None:
        """Pictures that the service did not take; no request with them was accepted, so this changes nothing that was."""
        if self.fresh_pictures:
            self.messages[-1] = {"role": "user", "content": _without_pictures(self.messages[-1]["content"], data["reason"])}

    def _verdict(self, data: dict[str, Any]) -> None:
        self.verdict = self.verdict_of[self.prompts] = data
        self.verdicts.append(data)


_AFTER_WAITING = ("session.status_running", "session.status_suspended", "session.status_idle", "session.cancelled", "form.answered")
"""Entries before which nothing was done: waiting is not working."""

_HANDLERS = {
    "session.config": Transcript._config,
    "session.status_running": Transcript._running,
    "session.forked": Transcript._forked,
    "workspace.ready": Transcript._workspace,
    "workspace.snapshot": Transcript._kept,
    "workspace.not_kept": Transcript._not_kept,
    "user.message": Transcript._user,
    "turn.start": Transcript._turn_start,
    "turn.failed": Transcript._turn_failed,
    "turn.interrupted": Transcript._turn_failed,  # nothing of the reply is used, what it has cost counts
    "form.opened": Transcript._form_opened,
    "form.answered": Transcript._form_answered,
    "session.status_suspended": Transcript._suspended,
    "session.cancelled": Transcript._cancelled,
    "agent.message": Transcript._agent,
    "tool.start": Transcript._tool_start,
    "tool.result": Transcript._tool_result,
    "session.compacted": Transcript._compacted,
    "pictures.withdrawn": Transcript._withdrawn,
    "session.verdict": Transcript._verdict,
}


def _result_block(call: Call) -> Block:
    result = call.result or {}
    block: Block = {"type": "tool_result", "tool_use_id": call.id, "content": result["content"]}
    if result.get("is_error"):
        block["is_error"] = True
    return block


def _without_pictures(content: list[Block], reason: str) -> list[Block]:
    """The blocks, with a word in the place of each picture, also of those in tool results."""
    told = {"type": "text", "text": f"[a picture was left out: {reason}. Make it smaller, or convert it, and read it again]"}
    kept = []
    for block in content:
        inner = block.get("content")
        nested = {**block, "content": _without_pictures(inner, reason)} if isinstance(inner, list) else block
        kept.append(told if block["type"] == "image" else nested)
    return kept


def _marked(message: Message) -> Message:
    """A copy of the message with a cache breakpoint on its last block that may carry one (never on thinking)."""
    content = list(message["content"])
    for index in range(len(content) - 1, -1, -1):
        if content[index]["type"] not in THINKING:
            content[index] = {**content[index], "cache_control": {"type": "ephemeral"}}
            break
    return {**message, "content": content}
