"""What the rules look at and what they answer: a request taken apart once, and a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from prefect_routines.testing.models import MODELS, Model
from prefect_routines.testing.prefix import Json, Row, content_of, row


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal, as the API words it. `details` carries `error_code` where the API has one."""

    message: str
    status: int = 400
    type: str = "invalid_request_error"
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Asked:
    """A parsed request with what the rules need beside its body. Header names are lower-case.

    Example:
        >>> Asked({"model": "claude-opus-5-5", "messages": []}).model.output
        128000
    """

    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=lambda: MODELS)
    api_key: str = ""
    counting: bool = False
    """Whether this is `/v1/messages/count_tokens`, which takes no `max_tokens`."""
    issued: frozenset[str] = frozenset()
    """Unusual block types that this server itself sent, and so takes back."""

    @property
    def betas(self) -> frozenset[str]:
        """What the `anthropic-beta` header switches on."""
        return frozenset(name.strip() for name in self.headers.get("anthropic-beta", "").split(",") if name.strip())

    @property
    def version(self) -> str:
        """The `anthropic-version` header."""
        return self.headers.get("anthropic-version", "")

    @property
    def model(self) -> Model:
        """The model asked for; of an unknown one, a current one's properties."""
        return self.models.get(str(self.body.get("model")), Model("claude-opus-5-5"))

    @property
    def messages(self) -> list[Json]:
        """The transcript."""
        messages: list[Json] = self.body["messages"]
        return messages

    @cached_property
    def row(self) -> Row:
        """The request as blocks."""
        return row(self.body)

    @cached_property
    def blocks(self) -> tuple[tuple[int, int, str, Json], ...]:
        """Message index, block index, role and block of every message block."""
        return tuple(
            (index, position, message["role"], block)
            for index, message in enumerate(self.messages)
            for position, block in enumerate(content_of(message))
        )


Rule = Callable[[Asked], Problem | None]
