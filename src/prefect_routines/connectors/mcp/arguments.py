"""Arguments checked against a schema that comes from outside, and brought into the form that rules and server both see.

In bounded time, and without fetching anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prefect_routines.connectors.mcp.approval import properties
from prefect_routines.errors import ToolError
from prefect_routines.visible import one_line

STEPS = 20_000
"""Keywords of a schema that are applied in one check; nested references can ask for more than a lifetime."""
_LEFT_TO_THE_SERVER = frozenset({"pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems", "format"})
"""A regular expression can take for ever, and holds up the whole process while it does. The server checks these itself."""

_Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class _TooMuch(Exception):
    pass


def check(tool: str, schema: Mapping[str, Any], arguments: Any) -> dict[str, Any]:
    """The arguments, if they fit: with the schema's defaults filled in, and each whole number an int.

    An argument that the schema does not list is refused whatever it says of additional ones: no rule could know it.

    Args:
        tool: Name of the tool, for the error.
        schema: As the author approved it.
        arguments: As Claude gave them.

    Raises:
        ToolError: They do not fit, or the schema cannot be used; the text tells Claude which argument and why.
    """
    if not isinstance(arguments, dict):
        raise ToolError(f"the arguments of {tool} do not fit: an object is wanted")
    known = properties(schema)
    if known and (strange := [name for name in arguments if name not in known]):
        has = one_line(", ".join(known), 400)
        raise ToolError(f"the arguments of {tool} do not fit: it has no argument {one_line(str(strange[0]), 80)!r}; it has {has}")
    try:
        given = {name: _whole(value) for name, value in arguments.items()}
        defaults = {
            name: _whole(known[name]["default"])
            for name in known
            if name not in given and isinstance(known[name], dict) and "default" in known[name]
        }
    except RecursionError:
        raise ToolError(f"the arguments of {tool} do not fit: they are nested too deep") from None
    if problems := _problems(tool, schema, given):
        told = "; ".join(f"{'.'.join(map(str, path)) or 'input'}: {message}" for path, message in problems)
        raise ToolError(f"the arguments of {tool} do not fit: {told}")
    return given | _fitting(tool, schema, given, defaults)


def _whole(value: Any) -> Any:
    """The value with 12.0 as 12: to JSON they are one number, to a rule two texts. https://www.rfc-editor.org/rfc/rfc8259#section-6"""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _fitting(tool: str, schema: Mapping[str, Any], given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Those of the defaults that fit the schema: many servers declare null for a text, and would refuse it."""
    while defaults and (problems := _problems(tool, schema, given | defaults)):
        wrong = {path[0] if path else None for path, _ in problems}
        if not wrong & defaults.keys():
            return {}
        defaults = {name: value for name, value in defaults.items() if name not in wrong}
    return defaults


def _problems(tool: str, schema: Mapping[str, Any], arguments: dict[str, Any]) -> list[tuple[list[Any], str]]:
    """Where the arguments do not fit and why, at most five."""
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    kind = validator_for(dict(schema), default=Draft202012Validator)
    left = [STEPS]
    bounded = validators.extend(  # type: ignore[no-untyped-call]  # the library has no types for it
        kind, {name: _counted(name, keyword, left) for name, keyword in kind.VALIDATORS.items()}
    )
    try:
        # with a registry of its own: by default a `$ref` to an address would be fetched from there
        errors = bounded(dict(schema), registry=Registry()).iter_errors(arguments)
        return [(list(error.absolute_path), one_line(error.message, 200)) for error in itertools.islice(errors, 5)]
    except (_TooMuch, RecursionError, Unresolvable, SchemaError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise ToolError(
            f"the arguments of {tool} cannot be checked: its schema is of no use ({one_line(str(error) or type(error).__name__, 100)})"
        ) from error


def _counted(name: str, keyword: _Keyword, left: list[int]) -> _Keyword:
    def apply(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
        left[0] -= 1
        if left[0] < 0:
            raise _TooMuch(f"more than {STEPS:,} steps")
        if name in _LEFT_TO_THE_SERVER or (name == "additionalProperties" and "patternProperties" in schema):
            return None
        return keyword(validator, value, instance, schema)

    return apply
