"""A session: one conversation with Claude, with its workspace and its journal. Opened by a run, resumed by the next one."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from prefect_routines.config import config
from prefect_routines.connectors.connector import Connections
from prefect_routines.errors import SessionCancelled, SettingsError
from prefect_routines.events import Event, new_session_id
from prefect_routines.notices.notify import notify
from prefect_routines.policy import Decision
from prefect_routines.redaction import Redactor
from prefect_routines.session import holding, outputs, pricing, waiting
from prefect_routines.session.arrivals import event_text
from prefect_routines.session.claude import Reply
from prefect_routines.session.continuing import journal, settle_former_run
from prefect_routines.session.keeping import keep_workspace
from prefect_routines.session.live import LiveText
from prefect_routines.session.loop import converse
from prefect_routines.session.page import plain
from prefect_routines.session.preparation import constants, prepare
from prefect_routines.session.publish import Publisher
from prefect_routines.session.records import Records, Written
from prefect_routines.session.run import Run, run_task
from prefect_routines.session.steering import Steering
from prefect_routines.session.transcript import Call, Transcript
from prefect_routines.settings import Settings
from prefect_routines.store import CANCELLED, FAILED, TOLD, Entry, FormKind, Spend, Store
from prefect_routines.tools import WORKSPACE_TOOLS
from prefect_routines.tools.paging import redacting
from prefect_routines.tools.people import ask_person
from prefect_routines.tools.tool import Tool, ToolContext, ToolResult
from prefect_routines.verdict import Outcome, Verdict
from prefect_routines.visible import one_line, storable, visible


class Session:
    """A session for hand-written flows; `@routine` uses it in the same way.

    A session is keyed by the flow run and its name: when the run is started again - after a crash, a retry - the same
    session goes on where it was.

    Args:
        name: Tells the sessions of one flow apart.
        settings: Repositories, policy, budget and the rest.
        tools: Tools of the author's, beside those of the workspace.
        event: What started the run.
        routine: Name under which it is listed. Default: the flow's name.

    Example:
        ```python
        @flow
        async def write_and_review():
            async with Session("writer", Settings(repositories=["https://github.com/acme/docs"])) as writer:
                draft = await writer.run("Describe the new command.")
            async with Session("critic", Settings(repositories=["https://github.com/acme/docs"])) as critic:
                return await critic.run(f"Review the branch {draft.branches}.")
        ```
    """

    def __init__(
        self,
        name: str = "main",
        settings: Settings | None = None,
        *,
        tools: Sequence[Tool] = (),
        event: Event | None = None,
        routine: str | None = None,
        session_id: str | None = None,
    ) -> None:
        self.name, self.settings, self.event = name, settings or Settings(), event
        self.tools: dict[str, Tool] = {}
        self.transcript = Transcript()
        self._add_tools([*WORKSPACE_TOOLS, *([ask_person] if self.settings.unattended == "wait" else []), *tools])
        if not self.settings.connectors:
            self._check_rules()
        self._routine, self._wanted_id = routine, session_id
        self._runs = 0
        self._ended_by: type[BaseException] | None = None
        self._replied = False
        self._began = time.monotonic()
        self.outputs_used: dict[str, int] = {}
        self._secret_holders: list[Callable[[], Iterable[str]]] = []
        self._redactor, self._redacted = Redactor(()), set[str]()
        self.prompt = ""
        self.window = 0
        self.hosts: frozenset[str] = frozenset()
        self.steering = Steering(self)

    # opening and closing

    async def __aenter__(self) -> Self:
        """Take the session's lease, check what it needs, and bring its workspace up.

        Raises:
            RoutinesError: Something is missing or wrong; one line with the remedy. Nothing was spent.
        """
        self._stack = AsyncExitStack()
        try:
            await self._open()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close. When the session waits for a person, the run is suspended as the very last thing: then nothing is held any more.

        Raises:
            Pause: Prefect's; it ends the process of a suspended run.
            RunCancelled: A person has cancelled the session, and the run has ended with it.
        """
        self._ended_by = kind
        suspended = None
        try:
            if hasattr(self, "publisher"):
                suspended = await holding.before_closing(self, error)
        finally:
            await self._stack.aclose()
            if suspended is not None:
                raise await holding.suspend(self, *suspended, note=getattr(error, "note", "")) from None
            if isinstance(error, SessionCancelled) and self._routine is None:  # a routine gives its run the state itself
                raise await holding.cancel_run(self, error) from None

    async def _open(self) -> None:
        self.flow_run = Run.current()
        self.store = await self._stack.enter_async_context(await Store.open())
        routine = self._routine or self.flow_run.flow_name
        record = await self.store.create_session(
            session_id=self._wanted_id or new_session_id(),
            routine=routine,
            flow_run_id=self.flow_run.id,
            name=self.name,
            deployment_id=self.flow_run.deployment_id,
            event_id=self.event.id if self.event else None,
        )
        self.id, self.routine = record.id, routine
        self.lease = await holding.acquire(self, record)
        await self._stack.enter_async_context(self.store.keep(self.lease))
        resume = self.settings.resume
        known, forked = await journal(self.store, self.lease, self.flow_run.id, resume)
        self._records = Records(self.store, self.lease, known)
        self.live = LiveText(self.store, self.lease, lambda: self.redactor)
        self._stack.push_async_callback(self.live.close)
        self.transcript = Transcript.of(known)
        for output in await self.store.outputs(self.id):
            if output.rule is not None and output.status != "failed":
                self.outputs_used[output.rule] = self.outputs_used.get(output.rule, 0) + 1
        if again := bool(known):
            await self.store.show_live(self.lease, 0, "")  # a process that was killed in mid-turn may have left text there
        started_by = {"event": self.event.model_dump(mode="json")} if self.event and not again else {}
        budget = self.settings.budget.model_dump(mode="json", exclude_none=True)
        await self.record(("session.status_running", {"flow_run": self.flow_run.id, "again": again, "budget": budget, **started_by}))
        began = record.started_at or datetime.now(UTC)
        kept = {"budget": self.settings.budget.model_dump(mode="json"), TOLD: self.settings.notify, FAILED: None}
        await self.store.update_session(self.lease, status="running", started_at=began, flow_run_id=self.flow_run.id, data=kept)
        if resume is not None:
            await self.store.update_session(self.lease, verdict=None, summary=None, ended_at=None, data={CANCELLED: False})
        await notify(self.store, self.id, "started", self.flow_run.id, self.settings.notify)
        self.publisher = await self._stack.enter_async_context(Publisher.open(self))
        self.log(f"Session {self.id} goes on where it was" if again else f"Session {self.id}")
        if forked is not None:
            self.log(forked)
        await self.task("Prepare", self._prepare)
        self._stack.push_async_callback(lambda: keep_workspace(self, self._ended_by))
        await self._stack.enter_async_context(self.steering.listen())
        self._began = time.monotonic()  # a long setup must not use up the time in which a busy service is asked again

    def _add_tools(self, tools: Sequence[Tool]) -> None:
        for tool in tools:
            if tool.name in self.tools:
                raise SettingsError(f"two tools are called {tool.name!r}; give one of them another name, or its connector another prefix")
            self.tools[tool.name] = tool

    def _check_rules(self) -> None:
        known = {name: tool.arguments for name, tool in self.tools.items()}
        for told in self.transcript.config.get("tools", []):  # one that is gone, or has other arguments, since the session began
            known[told["name"]] = [*known.get(told["name"], []), *told["input_schema"].get("properties", {})]
        self.settings.check_rules(known)

    async def _prepare(self) -> str:
        """Find out what is missing before a token is spent, and bring up the rest."""
        connections = await Connections.load(self.settings.connectors)  # nothing logs in before it is used
        self._add_tools(connections.tools)
        self._check_rules()
        self.hosts = frozenset(self.settings.links) or frozenset([*connections.hosts, *self.settings.hosts()])
        ready = await prepare(self.id, self.routine, self.settings, self.transcript, self._stack)
        self._stack.push_async_callback(connections.close)  # before the workspace, in which some of them live
        self.claude, found, self.workspace = ready
        workspace, claude = self.workspace, self.claude
        self._secret_holders = [lambda: workspace.secrets, lambda: claude.secrets, lambda: connections.secrets]
        self.window = found.window
        if not pricing.is_priced(self.settings.model):
            self.log(f"No price is known for {self.settings.model}: it is charged like {pricing.DEAREST}, the dearest", logging.WARNING)
        if self.transcript.workspace is None or workspace.made_anew:
            await self.record(("workspace.ready", workspace.describe()))
        if not self.transcript.config:
            await self.record(("session.config", constants(self.settings, self.tools, ready, event=self.event is not None)))
        return ""

    # running

    async def run(self, prompt: str) -> Outcome:
        """Work on a prompt until there is a verdict. A second call is a follow-up in the same conversation.

        Args:
            prompt: What Claude is asked to do: the author's words, never a stranger's.

        Raises:
            RoutinesError: The machinery failed (no reply, sandbox lost, store gone). Starting the run again goes on from here.
        """
        if not isinstance(prompt, str) or not prompt.strip():
            raise SettingsError(f"the prompt of {self.routine} is empty; its function must return the text of the task")
        self._runs += 1
        self.prompt = storable(prompt)
        number = self.transcript.prompts_before.get(self.flow_run.id, 0) + self._runs  # those of earlier runs are theirs
        if known := self.transcript.verdict_of.get(number):  # an earlier process got this far
            self.flow_run.not_again(self.name)
            outcome = Outcome.of(self.id, self.transcript, known)
            if known is self.transcript.verdict:  # it may have died before it told anybody
                await self._tell(outcome)
            return outcome
        if self.transcript.prompts < number:
            acts = await settle_former_run(self)
            by = {"by": self.settings.resume.by} if self.settings.resume else {}
            await self.record(("user.message", {"prompt": number, **by, "content": [{"type": "text", "text": self.prompt}]}), acts=acts)
        await holding.unless_lease_is_lost(self.lease, converse(self))
        outcome = Outcome.of(self.id, self.transcript)
        await self._tell(outcome)
        return outcome

    async def _tell(self, outcome: Outcome) -> None:
        """Put the end of the work on record and on the run page."""
        self.flow_run.has_ended(self.name)
        await self.store.update_session(
            self.lease,
            status="ended",
            verdict=outcome.verdict,
            summary=outcome.summary,
            ended_at=datetime.now(UTC),
            turns=outcome.turns,
            tokens=outcome.tokens,
            dollars=outcome.dollars,
        )
        await notify(self.store, self.id, "finished", self.flow_run.id, self.settings.notify, now=self.flow_run.deployment_id is None)
        self.log(f"Verdict {outcome.line}")
        await self.publisher.finish(outcome)

    async def end(self, verdict: Verdict, reason: str) -> None:
        """End without a report of Claude's: orderly, with what was done so far."""
        loose = await self.workspace.loose_ends()
        done = [f"pushed {push['repository']}: {push['branch']}" for push in self.transcript.pushes]
        summary = f"{reason[:1].upper()}{reason[1:]}. " + (f"Done so far: {', '.join(done)}. " if done else "Nothing was pushed. ")
        if loose:
            summary += f"Left in the workspace: {'; '.join(loose)}."
        await self.record(
            ("session.verdict", {"verdict": verdict, "claimed": None, "summary": summary.strip(), "evidence": [], "links": []})
        )

    async def say(self, text: str) -> None:
        """Add a word to the user's side of the conversation."""
        await self.record(("user.message", {"content": [{"type": "text", "text": text}]}))

    # what the loop needs

    async def ask(self, kind: FormKind, content: dict[str, Any]) -> None:
        """Have a person decide something; the next step waits for that."""
        await waiting.open_form(self, kind, content)

    async def spent_today(self) -> float:
        """US dollars that all sessions of the routine have cost today (UTC)."""
        return (await self.store.spent(routine=self.routine, day=datetime.now(UTC).date())).dollars

    @property
    def link(self) -> str | None:
        """Address of the session's page."""
        return config().session_page(self.id)

    async def record(self, *entries: Written, spend: Sequence[Spend] = (), acts: Sequence[int] = (), soon: bool = False) -> None:
        """Write to the journal, then take it into the state; `soon`: together with what comes next, before which nothing is done."""
        if not entries:
            return
        known = self._records.hold(entries, spend) if soon else await self._records.write(entries, spend, acts)
        for entry in known:
            self.transcript.apply(entry)
        if hasattr(self, "publisher"):
            self.publisher.notice()

    async def settle(self) -> None:
        """Write what was to be written soon, now that nothing comes after it."""
        await self._records.settle()

    @property
    def journal(self) -> Sequence[Entry]:
        """All entries so far."""
        return self._records.entries

    async def task(self, name: str, work: Callable[[], Awaitable[str]]) -> None:
        """Do a piece of work as a task of the flow run, so that a person can see it."""
        await run_task(name, work, redact=self.redacted_text)

    async def call(self, tool: Tool, call: Call, arguments: dict[str, Any], decision: Decision, *, side_by_side: bool) -> ToolResult:
        """Make one allowed call; writes go the one way out."""
        context = ToolContext(
            session_id=self.id,
            tool_use_id=call.id,
            workspace=self.workspace,
            event=self.event,
            side_by_side=side_by_side,
            read_event_body=partial(event_text, self) if self.event else None,
            rehearsal=self.settings.rehearsal,
        )
        if tool.writes:
            return await outputs.write(self, tool, call, arguments, decision, context)
        with redacting(self.redacted_text):
            result = await tool(context, arguments)
        assert isinstance(result, ToolResult), f"{tool.name} plans a write but is not declared with writes=True"
        return result

    def count_output(self, rule: str, change: int) -> None:
        """Count a write that went out under a rule, or give it back."""
        self.outputs_used[rule] = self.outputs_used.get(rule, 0) + change

    def patience(self) -> float:
        """Seconds for which one reply is tried again; for the first one the deadline of the first reply holds."""
        deadlines = self.settings.deadlines
        if self.transcript.turns == 0:
            return max(0.0, deadlines.first_reply - (time.monotonic() - self._began))
        return deadlines.retry

    def price(self, model: str, tokens: Mapping[str, int]) -> float:
        """US dollars of one request."""
        return pricing.dollars(model, tokens)

    def estimate(self, request: dict[str, Any]) -> dict[str, int]:
        """A careful guess of what a request will use: four bytes a token, and a thousand tokens of reply."""
        known = self.transcript.context_tokens
        messages = request["messages"]
        last_reply = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
        fresh: list[Any] = messages[last_reply + 1 :] if known else [request["system"], request["tools"], messages]
        return {"input": len(json.dumps(fresh)) // 4, "cache_read": known, "cache_write": 0, "output": 1000}

    def spend(self, turn: int, model: str, dollars: float, tokens: Mapping[str, int], *, began: bool = False) -> Spend:
        """A row of the spend table: at the beginning of an attempt a reservation, at its end the bill."""
        return Spend(
            turn=turn,
            attempt=self.transcript.attempts + (1 if began else 0),
            model=model,
            settled=not began,
            dollars=dollars,
            input_tokens=tokens["input"],
            cache_read_tokens=tokens["cache_read"],
            cache_write_tokens=tokens["cache_write"],
            output_tokens=tokens["output"],
        )

    @property
    def redactor(self) -> Redactor:
        """Knows all secrets of the session, those that were fetched meanwhile included."""
        if (held := self._redacted.union(*(secrets() for secrets in self._secret_holders))) != self._redacted:
            self._redactor, self._redacted = Redactor([*held, *map(plain, held)]), held  # also as the pages escape them
        return self._redactor

    def redacted_text(self, text: str) -> str:
        """A text without secrets, by what is known of them when it is called."""
        return self.redactor.text(text)

    def redact(self, value: Any) -> Any:
        """The value without secrets and without what databases refuse; everything that is kept or shown passes here."""
        return self.redactor.value(storable(value))

    def label(self, text: str) -> str:
        """A name for the run page: one line, nothing hidden, no secrets."""
        return one_line(self.redactor.text(text), 100)

    def log(self, text: str, level: int = logging.INFO) -> None:
        """One line for the person who reads the run page."""
        self.flow_run.logger.log(level, visible(self.redactor.text(text)))

    def tell_reply(self) -> None:
        """Tell Prefect once per process that Claude replies; see `deploying/alarms.py`."""
        if not self._replied:
            self._replied = True
            self.flow_run.tell_first_reply(self.id)

    def log_reply(self, reply: Reply, dollars: float) -> None:
        """What Claude said, in one line."""
        text = " ".join(block["text"] for block in reply.content if block["type"] == "text")
        asked = ", ".join(block["name"] for block in reply.content if block["type"] == "tool_use")
        self.log(f"Turn {self.transcript.turns} (${dollars:.4f}) {one_line(text, 160)}{f' -> {asked}' if asked else ''}")
