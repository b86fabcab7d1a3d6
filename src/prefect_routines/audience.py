"""Who is told of sessions: how settings name people and services, and which kinds of notices each wants. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

_TARGET = re.compile(
    r"(?P<target>(?:slack|email|notice-webhook)/[a-z0-9-]+(?:#[^\s#]{1,254})?)(?P<kinds>(?: +(?:started|approval|finished))*)\Z"
)


def notice_targets(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Whom notices go to, and which kinds each wants; empty where that is left to its block.

    Raises:
        ValueError: One names nothing that can be told.

    Example:
        >>> notice_targets(["slack/docs#ops finished"])
        {'slack/docs#ops': frozenset({'finished'})}
    """
    found: dict[str, frozenset[str]] = {}
    for name in names:
        match = _TARGET.match(name.strip())
        if match is None:
            raise ValueError(
                f"{name!r} names nobody who can be told; write 'slack/NAME#channel', 'email/NAME' or 'notice-webhook/NAME', and behind "
                "it, if you like, started, approval, finished"
            )
        found[match["target"]] = frozenset(match["kinds"].split()) | found.get(match["target"], frozenset())
    return found


def _checked(names: list[str]) -> list[str]:
    notice_targets(names)
    return names


Audience = Annotated[
    list[str],
    AfterValidator(_checked),
    Field(
        description="Who is told: 'slack/docs#ops', 'email/ops' and 'email/ops#ada@acme.com' when a session needs a person, "
        "'notice-webhook/ci' what its block says. Behind a name, other kinds: 'slack/docs#ops approval finished'."
    ),
]
"""The setting `notify`."""
