"""The text of write tools is made harmless before the policy or a service sees it, field by field as the tool declares. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prefect_routines.outgoing import Allowance, Outgoing, sanitise
from prefect_routines.tools.tool import Tool

_PLAIN = Outgoing(limit=10_000_000)  # identifiers and data: nothing is cut, only what hides goes


def harmless(arguments: dict[str, Any], tool: Tool, allowance: Allowance) -> dict[str, Any]:
    """Checked arguments of a tool that writes, with all their text fit to leave.

    Fields annotated with `Outgoing` get what that says; all others lose what hides, moves or colours text.

    Args:
        arguments: By name, as `Tool.check` returns them.
        tool: The tool they are for.
        allowance: What the session's text may contain.
    """
    if tool.model is None:
        return {name: _clean(value, _PLAIN, allowance) for name, value in arguments.items()}
    return {name: _clean(value, _kind(tool.model.model_fields[name]), allowance) for name, value in arguments.items()}


def _kind(field: FieldInfo) -> Outgoing:
    return next((mark for mark in (*field.metadata, *_marks(field.annotation)) if isinstance(mark, Outgoing)), _PLAIN)


def _marks(annotation: Any) -> Iterator[Any]:
    """All that annotates a type or a part of it: `list[Annotated[str, Outgoing(...)]] | None`."""
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _marks(part)


def _clean(value: Any, kind: Outgoing, allowance: Allowance) -> Any:
    if isinstance(value, str):
        return sanitise(value, kind, allowance if kind is not _PLAIN else Allowance())
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return value.model_copy(update={name: _clean(getattr(value, name), _kind(field), allowance) for name, field in fields.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_clean(item, kind, allowance) for item in value)
    if isinstance(value, dict):
        return {_clean(key, _PLAIN, allowance): _clean(item, kind, allowance) for key, item in value.items()}
    return value
