"""What the store gives and takes: small values, no database object among them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypedDict

SessionStatus = Literal["running", "idle", "suspended", "ended"]
SessionState = Literal["running", "stopped", "idle", "suspended", "ended"]
OutputStatus = Literal["started", "done", "failed", "captured", "unknown"]
DeliveryStatus = Literal["received", "settled", "unmatched", "refused", "ping"]
DispatchStatus = Literal[
    "waiting", "started", "ended", "queued", "superseded", "messaged", "skipped", "filtered", "own", "too-deep", "paused", "refused"
]
ActKind = Literal["message", "interrupt", "suspend", "cancel"]
FormKind = Literal["approval", "question", "budget", "pause"]
FormStatus = Literal["open", "answered", "expired", "withdrawn"]
NoticeKind = Literal["started", "approval", "finished"]
NoticeStatus = Literal["waiting", "asking", "sent", "skipped", "failed"]
CANCELLED = "cancelled"
"""Key in `data` of a session's record: true after a person has cancelled it."""
FAILED = "failed"
"""Key in `data` of a session's record: the error that its last run ended with, in one line."""
TOLD = "notify"
"""Key in `data` of a session's record: whom its settings tell; for those who end it without them."""
BUSY: tuple[DispatchStatus, ...] = ("waiting", "started")
"""A run is on its way or under way."""


class Entry(NamedTuple):
    """One entry of a session's journal; never changed once written.

    Attributes:
        seq: Its place, from 1 and without gaps.
        kind: What it records, for example `agent.message`.
        data: What the writer gave; comes back equal, keys in the same order, `1.0` still a float.
        at: When it was written, by the clock of the machine that wrote it (UTC).
    """

    seq: int
    kind: str
    data: dict[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as lists and pages show it; its journal is the truth, this is the summary kept beside it.

    Attributes:
        id: Ours, minted by who records the session first.
        routine: Name of the routine.
        flow_run_id: The Prefect flow run that it belongs to; with `name` the key under which a restarted run finds it again.
        name: Tells the sessions of one hand-written flow apart.
        status: `running`, `idle` (between two runs), `suspended` (waits for a person) or `ended`. A killed process leaves
            `running` behind: `leased_until` tells whether anybody still holds the session.
        started_at: When it was first taken by a process.
        leased_until: When the newest lease ends unless it is renewed; None when nobody holds the session.
        data: Whatever else is worth keeping (branches, links); small.
    """

    id: str
    routine: str
    flow_run_id: str | None
    name: str
    deployment_id: str | None
    event_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    status: SessionStatus
    verdict: str | None
    summary: str | None
    turns: int
    tokens: int
    dollars: float
    workspace: str | None
    data: dict[str, Any]
    leased_until: datetime | None

    @property
    def state(self) -> SessionState:
        """The status; `stopped` when it says running and nobody holds the session any more: its process was killed."""
        dead = self.leased_until is None or self.leased_until < datetime.now(UTC)
        return "stopped" if self.status == "running" and dead else self.status

    @property
    def shown(self) -> str:
        """The state in a word for people: of a session without a verdict, what became of it."""
        if self.status == "ended" and self.verdict is None:
            return "cancelled" if self.data.get(CANCELLED) else "not run" if self.started_at is None else "ended"
        return "failed" if self.status == "idle" and self.data.get(FAILED) else self.state


class SessionChanges(TypedDict, total=False):
    """What `Store.update_session` may change. `data` is merged key by key into what is there; all else replaces."""

    flow_run_id: str | None
    status: SessionStatus
    verdict: str | None
    summary: str | None
    turns: int
    tokens: int
    dollars: float
    workspace: str | None
    started_at: datetime | None
    ended_at: datetime | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """One write to the outside world: a push, a pull request, a message. Recorded before it is attempted.

    Attributes:
        tool_use_id: The call that Claude made; a session has one output for each.
        target: What is written to, as the policy names it, for example `acme/docs`.
        rule: The policy rule that allowed it, None when a person did.
        status: `started` (tried, outcome unknown until it is looked up), `done`, `failed` (known not to have happened) or
            `captured` (a rehearsal: not sent) or `unknown` (it may have arrived and could not be looked up).
        link: Where its service shows it; of a push the branch.
    """

    id: int
    session_id: str
    tool_use_id: str
    tool: str
    target: str
    rule: str | None
    status: OutputStatus
    request: dict[str, Any]
    result: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Spend:
    """What one attempt at one turn costs: reserved before the request, settled with the usage that came back.

    Attributes:
        turn: From 1.
        attempt: From 1; each request to the model is an attempt of its own, also those that failed after they cost.
        settled: False for a reservation (`dollars` is then the worst case). One that never settles counts in full.
        dollars: US dollars; kept to the millionth.
    """

    turn: int
    attempt: int
    model: str
    settled: bool
    dollars: float
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals over attempts. `dollars` holds `reserved_dollars`, the part that has not settled."""

    dollars: float = 0.0
    reserved_dollars: float = 0.0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    attempts: int = 0

    @property
    def tokens(self) -> int:
        """All tokens, cached or not, in and out."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Delivery:
    """What started a run: fields that we vouch for, and a body that a stranger may have written.

    Attributes:
        id: Ours; the only thing that travels through Prefect.
        source: Who delivered, for example `github`.
        delivery_id: The source's own id. It is not signed, hence a body that was seen before counts as seen.
        body: As received. Bytes that are no UTF-8 are kept when the gateway decodes with `errors="surrogateescape"`.
        body_sha256: Hex digest of the body; computed when left empty. A source whose ids are signed, or whose same body again is
            meant again, gives a digest over both.
        event: Name of the Prefect event, for example `github.issues.opened`; empty for what starts no routine by itself.
        labels: What triggers can match: `resource` (labels) and `related` (list of labels), as Prefect's events have them.
        key: What further deliveries are about the same thing, for example `acme/docs#7`.
        status: `received` (to be worked on), `settled` (each matching deployment is accounted for), `unmatched` (no trigger fits),
            `refused` or `ping`.
        note: Why it is refused, or what keeps it waiting.
        sent: How often the event went to Prefect.
        repeats: How often it came again: the same id, or the same body. Nothing more came of that.
    """

    id: str
    source: str
    delivery_id: str
    kind: str
    body: str = field(repr=False)
    action: str | None = None
    repository: str | None = None
    number: int | None = None
    sha: str | None = None
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    body_sha256: str = ""
    content_type: str = ""
    event: str = ""
    labels: dict[str, Any] = field(default_factory=dict)
    key: str | None = None
    status: DeliveryStatus = "settled"
    note: str | None = None
    sent: int = 0
    repeats: int = 0
    settled_at: datetime | None = None

    def __post_init__(self) -> None:
        if not self.body_sha256:
            object.__setattr__(self, "body_sha256", hashlib.sha256(self.body.encode("utf-8", "surrogatepass")).hexdigest())

    def payload(self) -> Any:
        """The body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):  # what a person hands over is not checked as the gateway checks
            return None


class DeliveryChanges(TypedDict, total=False):
    """What `Store.update_deliveries` may change."""

    status: DeliveryStatus
    note: str | None
    sent: int
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What became of a delivery at one deployment; at most one run comes of it.

    Attributes:
        deployment: Its name, `flow/deployment`.
        status: `waiting` (a run is asked for), `started`, `ended`; `queued` behind the run that is at the same key,
            `superseded` by a newer one, `messaged` to the session under way, `skipped` because of it; `filtered` by the
            routine's `when`, `own` (we caused it ourselves), `too-deep` in a chain of routines, `paused`, `refused`.
        reason: Why, in one line.
        key: What the run is about; one run at a time for each unless the routine says otherwise.
        depth: How many runs caused each other before this one; 0 when somebody outside did.
        session_id: The session of the run, minted here so that it can be named before the run exists; of one that is `messaged`
            the session that it went to.
    """

    delivery_id: str
    deployment_id: str
    deployment: str
    status: DispatchStatus
    session_id: str
    reason: str | None = None
    key: str | None = None
    depth: int = 0
    flow_run_id: str | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Act:
    """What a person sent to a session.

    Attributes:
        id: Grows with time: the order in which a session takes them.
        kind: `message` (joins the next turn), `interrupt` (stops what is under way), `suspend` (waits for a person) or `cancel`.
        text: The message; may be empty for the other kinds.
        person: Who, as far as the way tells: a login, a token's name, a Slack user.
        via: The way: `cli`, `api`, `page`, `prefect`, `slack`, `e-mail`.
        taken_at: When the session had it in its journal.
    """

    id: int
    session_id: str
    kind: ActKind
    text: str
    person: str
    via: str
    created_at: datetime
    taken_at: datetime | None


@dataclass(frozen=True, slots=True)
class Form:
    """What a session waits for a person to answer; answered once.

    Attributes:
        id: Random; a link may carry it.
        key: Its place in the session, `turn-3`; also the key of Prefect's pause.
        kind: `approval` (calls that ask), `question` (Claude asks), `budget` (used up), `pause` (a person wanted to say something).
        content: What is shown; see `steering/form.py`.
        answer: What was answered; see there.
        expires_at: Seconds since 1970 after which it takes no answer; None: never.
    """

    id: str
    session_id: str
    key: str
    kind: FormKind
    flow_run_id: str | None
    content: dict[str, Any]
    status: FormStatus
    answer: dict[str, Any] | None
    person: str | None
    via: str | None
    created_at: datetime
    expires_at: float | None
    answered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that is told outside: that a session started, needs a person, has ended.

    Attributes:
        id: Random; a webhook carries it as `webhook-id`, the same with each attempt.
        subject: The form, or the flow run, that it is about.
        target: Who is told and how, for example `slack/docs#ops`.
        status: `waiting` (to be sent, perhaps again), `asking` (sent, with buttons that go when its form is closed), `sent`,
            `skipped` (nobody needs it any more) or `failed` (given up).
        attempts: How often it was taken to be sent; the newest attempt alone may settle it.
        note: Why it was not sent, or what the other side said.
    """

    id: str
    session_id: str
    kind: NoticeKind
    subject: str
    target: str
    status: NoticeStatus
    attempts: int
    note: str | None
    created_at: datetime
    sent_at: datetime | None
