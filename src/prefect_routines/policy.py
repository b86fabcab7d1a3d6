"""Allow, ask and deny rules over tool calls. Pure: a decision is a function of the rules and the parsed arguments."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Answer = Literal["allow", "ask", "deny"]

# tool, optional (pattern), optional count: `github_*`, `bash(git *)`, `push(repository=docs) x2`
_RULE = re.compile(r"\s*(?P<tool>[A-Za-z0-9_*?\[\]-]+)\s*(?:\((?P<inside>.*)\))?\s*(?:x(?P<count>[1-9][0-9]{0,5}))?\s*\Z", re.DOTALL)
_COMMA = re.compile(r",(?!\])")  # `[,]` is a comma that is part of a glob
_ARGUMENT = re.compile(r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=(?P<glob>.*)\Z", re.DOTALL)
_FIELD = re.compile(r"\{event\.([a-z_]*)\}")
EVENT_FIELDS = ("repository", "number", "sha", "kind", "action", "id")  # those that a stranger does not write


@dataclass(frozen=True)
class Rule:
    """One rule in Claude Code's spirit, parsed.

    Example:
        ```python
        Rule.parse("push(repository=docs) x1")   # at most one push, to docs only
        Rule.parse("bash(git *)")                # the glob goes over the tool's main argument
        Rule.parse("github_comment(repository={event.repository}, issue={event.number}) x1")  # only where the event came from
        ```
    """

    text: str
    tool: str
    arguments: tuple[tuple[str | None, str], ...] = ()
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read a rule.

        Raises:
            ValueError: It is not of the form `tool`, `tool(glob)`, `tool(name=glob, ...)`, each with an optional count ` xN`.
        """
        match = _RULE.match(text)
        if not match:
            raise ValueError(f"{text!r} is not a rule; write TOOL, TOOL(GLOB) or TOOL(ARGUMENT=GLOB, ...), each with an optional ' xN'")
        inside = match["inside"]
        arguments: list[tuple[str | None, str]] = []
        if inside is not None:
            # `name=glob, name=glob`, before them perhaps a glob over the main argument, or that glob alone. A bash command such as
            # `make A=1` has a space before its first '=': it is a glob.
            first, *others = _COMMA.split(inside)
            named = [(found["name"], found["glob"].strip()) for part in others if (found := _ARGUMENT.match(part))]
            begins = _ARGUMENT.match(first)
            if len(named) < len(others):
                if begins:
                    raise ValueError(f"{text!r}: a comma within a glob is written [,]; after one alone another ARGUMENT=GLOB must follow")
                arguments = [(None, inside.strip())]
            else:
                arguments = [(begins["name"], begins["glob"].strip()) if begins else (None, first.strip()), *named]
        for name in _FIELD.findall(" ".join(glob for _, glob in arguments)):
            if name not in EVENT_FIELDS:
                raise ValueError(f"{text!r}: an event has no trusted field {name!r}; there is {', '.join(EVENT_FIELDS)}")
        return cls(text.strip(), match["tool"], tuple(arguments), int(match["count"]) if match["count"] else None)

    def names(self, tool: str) -> bool:
        """Whether the rule speaks of this tool."""
        return fnmatch.fnmatchcase(tool, self.tool)

    def matches(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        main: str | None,
        event: Mapping[str, str] | None = None,
        *,
        whole: bool = False,
    ) -> bool:
        """Whether the rule covers a call, looking at parsed arguments only: no text of the model can stand in for another argument.

        Args:
            tool: Name of the tool.
            arguments: Its parsed arguments.
            main: Name of the argument that a glob without a name is for.
            event: Trusted fields of the event that started the run; a rule that names one which is not there covers nothing.
            whole: Of a list, whether each item must match - what is allowed -, or one is enough - what is denied.
        """
        if not self.names(tool):
            return False
        for name, glob in self.arguments:
            key, filled = name or main, _filled(glob, event or {})
            if key is None or key not in arguments or filled is None:
                return False
            texts = _texts(arguments[key])
            fits = [fnmatch.fnmatchcase(text, filled) for text in texts]
            if not ((bool(fits) and all(fits)) if whole else any(fits)):
                return False
        return True

    def open_ends(self, targets: Iterable[str], main: str | None) -> list[str]:
        """Those of `targets` that the rule leaves to the model: not named, or named with a wildcard."""
        fixed = {name or main for name, glob in self.arguments if not re.search(r"[*?\[]", re.sub(r"\[[^\]!]\]", "", glob))}
        return [target for target in targets if target not in fixed]


def _filled(glob: str, event: Mapping[str, str]) -> str | None:
    """The glob with the event's values in it, each as itself and never as a wildcard; None if one is missing."""
    if any(not event.get(name) for name in _FIELD.findall(glob)):
        return None
    return _FIELD.sub(lambda found: _literal(event[found[1]]), glob)


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in value] if isinstance(value, list | tuple | set | frozenset) else [_text(value)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


class Policy(BaseModel):
    """Rules over tool calls: deny before ask before allow; else reads and work in the sandbox are allowed, outward writes ask.

    Example:
        ```python
        Policy(allow=["push(repository=docs) x1"], deny=["bash(rm -rf *)"])
        ```
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: list[str] = Field(default_factory=list, description="Calls that need nobody's consent, e.g. 'push(repository=docs) x1'.")
    ask: list[str] = Field(default_factory=list, description="Calls that wait for a person.")
    deny: list[str] = Field(default_factory=list, description="Calls that are refused. A deployment can add to these, never remove one.")

    @field_validator("allow", "ask", "deny")
    @classmethod
    def _readable(cls, value: list[str]) -> list[str]:
        for rule in value:
            Rule.parse(rule)
        return value

    def rules(self) -> Iterable[tuple[Answer, Rule]]:
        """All rules in the order in which they are asked."""
        for answer in ("deny", "ask", "allow"):
            for text in getattr(self, answer):
                yield answer, Rule.parse(text)

    def removes(self, tool: str) -> bool:
        """Whether a tool is denied altogether, so that Claude need not hear of it."""
        return any(answer == "deny" and rule.names(tool) and not rule.arguments for answer, rule in self.rules())

    def unknown(self, tools: Mapping[str, Iterable[str]]) -> list[str]:
        """The rules that can never match: a slip of the pen, and a `deny` that denies nothing.

        Args:
            tools: Names of the arguments of each tool.
        """
        return [
            rule.text
            for _, rule in self.rules()
            if not any(rule.names(tool) and {name for name, _ in rule.arguments if name} <= set(known) for tool, known in tools.items())
        ]


@dataclass(frozen=True)
class Decision:
    """What the policy says of one call, and which rule said it (None: the default)."""

    answer: Answer
    rule: Rule | None
    reason: str


@dataclass(frozen=True)
class Circumstances:
    """What a decision depends on beside the call and the rules.

    Args:
        used: Calls made so far under each rule's text.
        event: Trusted fields of the event that started the run, as text.
        from_outside: Whether text of a stranger started it. The target of a write is then for the author or the event to name.
    """

    used: Mapping[str, int] = field(default_factory=dict)
    event: Mapping[str, str] = field(default_factory=dict)
    from_outside: bool = False


def decide(
    policy: Policy,
    tool: str,
    arguments: Mapping[str, Any],
    *,
    main: str | None,
    writes: bool,
    targets: Sequence[str] = (),
    given: Circumstances | None = None,
) -> Decision:
    """Decide one call.

    Args:
        policy: The routine's rules.
        tool: Name of the tool.
        arguments: Its parsed arguments.
        main: Name of the argument that `tool(glob)` looks at.
        writes: Whether the tool changes something outside the workspace.
        targets: Names of the arguments that say what a write goes to. Default: `main`; without one, all.
        given: What has been used up, and what started the run.
    """
    given = given or Circumstances()
    reason = f"{tool} writes outside the workspace and no rule allows it"
    spent: Rule | None = None
    for answer, rule in policy.rules():
        if not rule.matches(tool, arguments, main, given.event, whole=answer == "allow"):
            continue
        ends = targets or ([main] if main else list(arguments))
        if answer == "allow" and writes and given.from_outside and (left := rule.open_ends(ends, main)):
            spent, reason = (
                rule,
                (
                    f"a run that was started from outside writes only to what its author or the event names, "
                    f"and rule '{rule.text}' leaves {' and '.join(left)} open"
                ),
            )
            continue
        if answer == "allow" and rule.count is not None and given.used.get(rule.text, 0) >= rule.count:
            spent, reason = rule, f"rule '{rule.text}' is used up"
            continue
        return Decision(answer, rule, f"rule '{rule.text}'")
    if writes or spent is not None:
        return Decision("ask", spent, reason)
    return Decision("allow", None, "works inside the workspace")


def declaration(tool: str, arguments: Mapping[str, Any], targets: Sequence[str]) -> str:
    """The rule an author would write to allow a call and no other, for the text of a refusal."""
    literals = [f"{name}={_cover(_texts(arguments[name]))}" for name in targets if name in arguments]
    return f"{tool}({', '.join(literals)})" if literals else tool


def _cover(texts: Sequence[str]) -> str:
    """A glob for exactly this text; for several, what they have in common at the end: `*@acme.com`."""
    if len(texts) == 1:
        return _literal(texts[0])
    shared = takewhile(lambda letters: len(set(letters)) == 1, zip(*(reversed(text) for text in texts), strict=False))
    return "*" + _literal("".join(letters[0] for letters in shared)[::-1])


def _literal(text: str) -> str:
    """A glob for exactly this text. Claude chose it: it must not become a wildcard, nor a field, nor lose white space at its ends."""
    return re.sub(r"[*?\[,{]|\A\s|\s\Z", r"[\g<0>]", text)
