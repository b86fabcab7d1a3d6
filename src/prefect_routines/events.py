"""What started a run, as a reference: trusted fields only, never the text of a stranger."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

Source = Literal["schedule", "github", "webhook", "api", "routine", "person", "prefect"]


class Event(BaseModel):
    """The event that started a run. Title, body and payload are not here: Claude reads them with the `read_event` tool, marked as data.

    A routine that declares a parameter `event: Event | None` gets it. In a trigger it is passed by id only
    (`event: "{{ event.id | string }}"`), since Prefect interprets objects inside a templated payload.

    Example:
        ```python
        @routine(repositories=["https://github.com/acme/docs"])
        def triage(event: Event | None = None) -> str:
            return f"Look at issue {event.number} of {event.repository}; `read_event` shows its text."
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Id of the event.", max_length=200)
    source: Source = Field(default="person", description="Where it came from.")
    kind: str = Field(default="", description="What it is, e.g. 'issues'.")
    action: str = Field(default="", description="What happened, e.g. 'opened'.")
    repository: str = Field(default="", description="'owner/name', where there is one.")
    number: int | None = Field(default=None, description="Number of the issue or pull request.")
    sha: str = Field(default="", description="Commit, where there is one.")
    received_at: datetime | None = Field(default=None, description="When it arrived.")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """As a parameter an event is its id: that is what the form asks for, and what Prefect lets through."""
        return {"type": "string", "title": "Event id", "maxLength": 200}

    @model_validator(mode="before")
    @classmethod
    def _from_id(cls, value: Any) -> Any:
        return {"id": value} if isinstance(value, str) else value

    @property
    def from_outside(self) -> bool:
        """Whether somebody outside could have chosen its text: an issue, a payload, what another run came to."""
        return self.source not in ("schedule", "person")

    def fields(self) -> dict[str, str]:
        """The trusted fields as text, for rules such as `github_comment(issue={event.number})`. Empty ones are left out."""
        found = {"id": self.id, "kind": self.kind, "action": self.action, "repository": self.repository, "sha": self.sha}
        found["number"] = "" if self.number is None else str(self.number)
        return {name: value for name, value in found.items() if value}


def new_session_id() -> str:
    """A new session id: sortable by time, hard to guess, fit for file and branch names."""
    return f"ses-{int(time.time()):08x}{secrets.token_hex(6)}"
