"""What the session API takes and gives, as models: they check what comes in, and the OpenAPI document is made of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prefect_routines.steering.form import LONGEST
from prefect_routines.store import Entry, Form, FormKind, FormStatus, SessionRecord, SessionState
from prefect_routines.verdict import Verdict


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Message(_In):
    """A message to Claude."""

    text: str = Field(min_length=1, description="At most 100,000 characters.")
    interrupt: bool = Field(default=False, description="Stop what is under way first; else it joins the next turn.")


class ResumeRequest(_In):
    """Go on with a session that has ended."""

    text: str = Field(min_length=1, max_length=LONGEST, pattern=r"\S", description="What Claude shall do now.")
    fork: bool = Field(default=False, description="Begin a new session with a copy of the conversation.")
    at: int | None = Field(default=None, ge=1, description="With `fork`: the entry up to which it is copied.")


class SessionOut(BaseModel):
    """A session."""

    type: Literal["session"] = "session"
    id: str
    routine: str
    name: str = Field(description="Tells the sessions of one hand-written flow apart; else `main`.")
    state: SessionState = Field(description="`stopped`: its process was killed. `suspended`: it waits for a person.")
    cancelled: bool = Field(description="A person has ended it.")
    verdict: Verdict | None
    summary: str | None
    turns: int
    tokens: int
    cost_usd: float
    waiting_forms: list[str] = Field(description="Ids of the forms that wait for an answer.")
    last_entry: int | None = Field(description="Number of the newest entry of the journal; only where one session is read.")
    flow_run_id: str | None
    flow_run_url: str | None
    url: str = Field(description="The session's page.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class SessionList(BaseModel):
    """Sessions, the newest first."""

    data: list[SessionOut]
    next: str | None = Field(description="For `cursor`: the next page begins there. None: there is none.")


class EntryOut(BaseModel):
    """An entry of a session's journal; it never changes."""

    seq: int
    kind: str
    at: datetime
    data: dict[str, Any]


class EntryList(BaseModel):
    """Entries in order."""

    data: list[EntryOut]
    has_more: bool


class FormOut(BaseModel):
    """What a session waits for a person to answer."""

    type: Literal["form"] = "form"
    id: str
    kind: FormKind
    status: FormStatus
    content: dict[str, Any] = Field(description="Calls (with `id` and `hash`, which an answer may repeat) and questions (with `id`).")
    answer: dict[str, Any] | None
    person: str | None = Field(description="Who answered.")
    via: str | None
    created_at: datetime
    expires_at: datetime | None
    answered_at: datetime | None


class FormList(BaseModel):
    """Forms, oldest first."""

    data: list[FormOut]


class ActOut(BaseModel):
    """Something that was sent to a session; the session takes it at the next opportunity."""

    type: Literal["act"] = "act"
    id: int
    kind: str
    person: str = Field(description="The token's name: under it the session journals what was done.")
    created_at: datetime


class Cancelled(BaseModel):
    """What came of a cancellation."""

    type: Literal["cancellation"] = "cancellation"
    status: Literal["asked", "cancelled"] = Field(description="`asked`: the session's process was told. `cancelled`: it has ended.")


class Resumed(BaseModel):
    """What came of a resume."""

    type: Literal["resume"] = "resume"
    session_id: str
    flow_run_id: str
    flow_run_url: str | None


class Problem(BaseModel):
    """What went wrong."""

    type: str
    message: str


class ErrorOut(BaseModel):
    """An error, in the envelope of Anthropic's API."""

    type: Literal["error"]
    error: Problem


def entry_out(entry: Entry) -> dict[str, Any]:
    """An entry as JSON. Its data is given as it is kept."""
    return {"seq": entry.seq, "kind": entry.kind, "at": entry.at.isoformat(), "data": entry.data}


def form_out(form: Form) -> dict[str, Any]:
    """A form as JSON."""
    until = None if form.expires_at is None else datetime.fromtimestamp(form.expires_at, UTC)
    fields = {name: getattr(form, name) for name in FormOut.model_fields if name not in ("type", "expires_at")}
    return FormOut.model_construct(**fields, expires_at=until).model_dump(mode="json", warnings=False)


def session_out(
    record: SessionRecord, *, url: str, flow_run_url: str | None, waiting: list[str], last_entry: int | None = None
) -> dict[str, Any]:
    """A session as JSON."""
    same = {name: getattr(record, name) for name in SessionOut.model_fields if hasattr(record, name)}
    return SessionOut.model_construct(
        **same,
        cancelled=bool(record.data.get("cancelled")),
        cost_usd=record.dollars,
        waiting_forms=waiting,
        last_entry=last_entry,
        flow_run_url=flow_run_url,
        url=url,
    ).model_dump(mode="json", warnings=False)
