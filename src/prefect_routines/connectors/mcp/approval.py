"""What an author approves of an MCP server: each tool's description and arguments, and whether it writes. Pure."""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from prefect_routines.errors import SettingsError
from prefect_routines.visible import storable, visible

NAME_MAX = 64  # of the Messages API
State = Literal["new", "changed", "same", "gone"]


@dataclass(frozen=True)
class Offer:
    """A tool as its server describes it now. All of it is text from outside.

    Args:
        name: The server's name for it.
        description: What it is for.
        schema: JSON schema of its arguments.
        read_only: Whether the server says that it changes nothing. A hint: nobody checks it.
    """

    name: str
    description: str
    schema: dict[str, Any]
    read_only: bool = False


class Approved(BaseModel):
    """A tool as the author approved it."""

    description: str = Field(description="What Claude is told.")
    input_schema: dict[str, Any] = Field(description="JSON schema of the arguments.")
    sha256: str = Field(description="Over the canonical JSON of both; a server that changes either must be approved anew.")
    writes: bool = Field(description="Whether it changes something outside: then a rule of the policy must allow each call.")
    targets: list[str] = Field(default_factory=list, description="Arguments that name what a write goes to.")


@dataclass(frozen=True)
class Choice:
    """What the author says beyond what the server does. Globs over the server's names of its tools.

    Args:
        only: Approve these and no others. Empty: all.
        writes: These write, whatever the server says.
        reads: These only read, whatever the server does not say.
        targets: Glob -> arguments that name what a write goes to.
    """

    only: Sequence[str] = ()
    writes: Sequence[str] = ()
    reads: Sequence[str] = ()
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict)


def digest(description: str, schema: Mapping[str, Any]) -> str:
    """SHA-256 over what decides how a tool is called: the canonical JSON of description and schema."""
    whole = json.dumps({"description": description, "input_schema": schema}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(whole.encode()).hexdigest()


def offer(name: str, description: str | None, schema: dict[str, Any], *, read_only: bool) -> Offer:
    """A tool as a server lists it, fit to be stored."""
    return Offer(storable(name), storable(description or ""), storable(schema), read_only)


def tool_name(server: str, tool: str) -> str:
    """The tool's name for Claude and for rules: `mcp__grafana__query`.

    What the Messages API does not take in a name is replaced; a name changed so, or cut, ends with a hash and stays unlike others.

    Example:
        >>> tool_name("grafana", "query")
        'mcp__grafana__query'
    """
    whole = f"mcp__{server}__{tool}"
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", whole)
    if plain == whole and len(whole) <= NAME_MAX:
        return whole
    mark = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: NAME_MAX - 9]}_{mark}"


def approve(offers: Iterable[Offer], choice: Choice) -> dict[str, Approved]:
    """The tools that the author's choice covers, as they are stored in the block.

    Raises:
        SettingsError: A glob of the choice fits no tool, or names an argument that there is not.
    """
    offers = list(offers)
    for option, globs in (("only", choice.only), ("writes", choice.writes), ("reads", choice.reads), ("target", choice.targets)):
        for glob in globs:
            if not any(fnmatch.fnmatchcase(tool.name, glob) for tool in offers):
                names = ", ".join(visible(tool.name) for tool in offers[:30])
                raise SettingsError(f"--{option} {glob!r}: the server has no such tool; it has {names or 'none'}")
    return {
        tool.name: Approved(
            description=tool.description,
            input_schema=tool.schema,
            sha256=digest(tool.description, tool.schema),
            writes=(writes := _writes(tool, choice)),
            targets=_targets(tool, choice) if writes else [],
        )
        for tool in sorted(offers, key=lambda tool: tool.name)
        if not choice.only or _fits(tool.name, choice.only)
    }


def _fits(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _writes(tool: Offer, choice: Choice) -> bool:
    return _fits(tool.name, choice.writes) or not (tool.read_only or _fits(tool.name, choice.reads))


def _targets(tool: Offer, choice: Choice) -> list[str]:
    """As the author says, else all arguments that must be given, else the first: which comes first is the server's choice."""
    known = properties(tool.schema)
    for glob, names in choice.targets.items():
        if fnmatch.fnmatchcase(tool.name, glob):
            if unknown := [name for name in names if name not in known]:
                raise SettingsError(f"--target {glob}: {tool.name} has no argument {unknown[0]!r}; it has {', '.join(known) or 'none'}")
            return list(names)
    return required(tool.schema) or list(known)[:1]


def properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a schema, by name."""
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def required(schema: Mapping[str, Any]) -> list[str]:
    """The arguments that must be given, in the order of the schema; also those of which it says nothing else."""
    found = schema.get("required")
    names = dict.fromkeys(name for name in found if isinstance(name, str)) if isinstance(found, list) else {}
    known = [name for name in properties(schema) if name in names]
    return known + [name for name in names if name not in known]


def compare(approved: Mapping[str, Approved], offers: Iterable[Offer]) -> dict[str, State]:
    """What has become of each tool since it was approved, in alphabetical order."""
    offered = {tool.name: tool for tool in offers}
    states: dict[str, State] = {}
    for name in sorted(offered.keys() | approved.keys()):
        if name not in offered:
            states[name] = "gone"
        elif name not in approved:
            states[name] = "new"
        else:
            same = digest(offered[name].description, offered[name].schema) == approved[name].sha256
            states[name] = "same" if same else "changed"
    return states


def difference(before: Approved, now: Offer) -> list[str]:
    """What changed, as the lines of a diff for a person; hidden characters are made visible."""
    old, new = (
        [*description.splitlines(), *json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False).splitlines()]
        for description, schema in ((before.description, before.input_schema), (now.description, now.schema))
    )
    changes = difflib.unified_diff(old[:5000], new[:5000], "approved", "now", lineterm="", n=1)
    return [visible(line) for line in list(changes)[2:]]
