"""Objects of a service's answer, one to a line, with only the fields that matter. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def row(item: Mapping[str, Any], fields: Iterable[str]) -> str:
    """Some fields of an object as JSON on one line, without what is empty.

    Args:
        item: The object.
        fields: Names of the fields, in the order in which they are shown.

    Example:
        >>> row({"id": 7, "title": "Errors", "tags": [], "gridPos": {"x": 0}}, ("id", "title", "tags"))
        '{"id":7,"title":"Errors"}'
    """
    kept = {name: item[name] for name in fields if name in item and not _is_empty(item[name])}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)
