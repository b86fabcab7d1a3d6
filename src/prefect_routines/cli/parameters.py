"""What a person types as `--param`, `--settings` and `--set`, checked before anything starts."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect import Flow

_SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST = 500_000
"""Bytes of all parameters together; Prefect takes 512 KiB."""


def given_parameters(flow: Flow[Any, Any], texts: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run, as JSON values that fit the flow's own schema.

    Args:
        flow: The flow.
        texts: Each `NAME=VALUE`. A parameter that takes text gets the value as it stands; for any other it is read as JSON
            first, so `count=3`, `tags=["a"]` and `dry_run=true` arrive typed.
        more: Values that are ready: `settings`, `event`.

    Raises:
        SettingsError: A parameter is unknown, missing, given twice or does not fit.
    """
    known = inspect.signature(flow.fn).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    schema = flow.parameters.model_dump()
    values: dict[str, Any] = dict(more)
    for text in texts:
        name, equals, raw = text.partition("=")
        if not equals:
            raise SettingsError(f"--param {one_line(text)}: write it as NAME=VALUE")
        if name not in known and not takes_any:
            names = ", ".join(n for n in known if n != "settings") or "none"
            hint = " (`--settings FILE` and `--set` change settings)" if name.split(".")[0] == "settings" else ""
            raise SettingsError(f"{flow.name} has no parameter {one_line(name)!r}; it has: {names}{hint}")
        if name in values:
            instead = "; use --settings or --set" if name == "settings" else ""
            raise SettingsError(f"the parameter {name!r} is given twice{instead}")
        values[name] = read_value(raw, schema.get("properties", {}).get(name, {}), schema.get("definitions", {}))
    for name, value in values.items():
        check_text(value, f"parameter {name!r}")
    _check(flow, values, known)
    return values


def read_value(raw: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Any:
    if _takes_text(schema, definitions):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw  # a date, an id of a block: what it means is for the flow's own validation to say


def _takes_text(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether the schema of a parameter lets any text through."""
    if "$ref" in schema:
        schema = definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {})
    options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or [schema]
    if options != [schema]:
        return any(_takes_text(option, definitions) for option in options)
    return schema.get("type") == "string" and schema.get("format") != "binary"


def check_text(value: Any, where: str) -> None:
    """Refuse text that databases and other programs cannot take.

    Raises:
        SettingsError: A lone surrogate or a NUL character is in it, at any depth.
    """
    if isinstance(value, str):
        if "\0" in value:
            raise SettingsError(f"{where} contains a NUL character (\\0); take it out")
        if found := _SURROGATE.search(value):
            raise SettingsError(f"{where} contains a lone surrogate (\\u{ord(found[0]):04x}), which is no character; is the text UTF-8?")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_text(key, where)
            check_text(item, where)
    elif isinstance(value, (list, tuple)):
        for item in value:
            check_text(item, where)


def _check(flow: Flow[Any, Any], values: dict[str, Any], known: Mapping[str, inspect.Parameter]) -> None:
    from prefect.exceptions import ParameterTypeError

    optional = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    missing = [p.name for p in known.values() if p.default is p.empty and p.kind not in optional and p.name not in values]
    if missing:
        raise SettingsError(f"{flow.name} needs {_listed(missing)}: {' '.join(f'--param {name}=...' for name in missing)}")
    if (size := len(json.dumps(values))) > LARGEST:
        raise SettingsError(f"the parameters are too large ({size:,} bytes; Prefect takes {LARGEST:,}); give a long text with --payload")
    try:
        flow.validate_parameters(values)
    except ParameterTypeError as error:
        # "Flow run received invalid parameters:\n - since: Input should be a valid string"
        problems = [line.strip().removeprefix("- ") for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
        raise SettingsError(f"parameter {problems[0]}{f' (and {len(problems) - 1} more)' if len(problems) > 1 else ''}") from None


def _listed(names: Sequence[str]) -> str:
    return f"the parameter{'s' if len(names) > 1 else ''} {', '.join(names)}"


def given_settings(file: Path | None, assignments: Sequence[str], *, rehearsal: bool) -> dict[str, Any] | None:
    """The overrides of the settings, validated; None when nothing is overridden.

    Args:
        file: YAML or JSON.
        assignments: Each `KEY.PATH=VALUE`, the value as YAML: `budget.turns=5`, `repositories=[../docs]`.
        rehearsal: Capture outward writes.

    Raises:
        SettingsError: It cannot be read, or is not a valid override; names the place.
    """
    import yaml
    from pydantic import ValidationError

    from prefect_routines.settings import SettingsOverride, first_problem

    data = _read_file(file) if file else {}
    for text in assignments:
        path, equals, raw = text.partition("=")
        if not equals or not path:
            raise SettingsError(f"--set {one_line(text)}: write it as KEY=VALUE or KEY.KEY=VALUE")
        try:
            _put(data, path.split("."), yaml.safe_load(raw))
        except yaml.YAMLError as error:
            raise SettingsError(f"--set {one_line(text)}: the value is not valid YAML: {one_line(str(error), 200)}") from None
    if rehearsal:
        data["rehearsal"] = True
    if not data:
        return None
    check_text(data, "settings")
    try:
        override = SettingsOverride.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(map(str, problem["loc"]))
        said = f"there is no setting {name!r}" if problem["type"] == "extra_forbidden" else first_problem(error)
        raise SettingsError(f"settings{f' ({file})' if file else ''}: {said}") from None
    return override.model_dump(mode="json", exclude_none=True)


def _read_file(file: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(file.read_text("utf-8"))  # JSON is YAML
    except OSError as error:
        raise SettingsError(f"settings file {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"settings file {file}: it is not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"settings file {file}{place}: {one_line(getattr(error, 'problem', None) or str(error), 200)}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {file}: it must hold names and values, such as `model: ...`, not a {type(data).__name__}")
    return data


def _put(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"--set {'.'.join(path)}: {key} is no group of settings")
        data = inner
    data[path[-1]] = value
