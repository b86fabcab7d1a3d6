"""Finds the flow that a person names: a file with a routine, or a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect import Flow


def load_flow(reference: str) -> Flow[Any, Any]:
    """The flow that `FILE.py[:NAME]` or `module[:NAME]` names.

    Args:
        reference: Without a name: the only routine in it, else the only flow.

    Raises:
        SettingsError: There is no such file, module or flow, or it cannot be imported; names those that are there.

    Example:
        ```python
        load_flow("flows/docs_sync.py:docs_sync")
        ```
    """
    place, _, name = reference.partition(":")
    module = _load_file(Path(place)) if place.endswith(".py") or "/" in place or Path(place).is_file() else _load_module(place)
    return _named(module, place, name) if name else _only(module, place)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SettingsError(f"{path}: there is no such file; name a Python file with a routine, such as flows/ask.py")
    path = path.resolve()
    # its neighbours can be imported, as when Python runs the file; the name keeps `flows/email.py` from hiding the standard library's
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"__routines__{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path} is no Python file; name one with a routine, such as flows/ask.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # pydantic and typing look up annotations there
    try:
        spec.loader.exec_module(module)
    except RoutinesError as error:
        raise SettingsError(f"{path.name}: {error}") from error
    except Exception as error:
        raise SettingsError(f"{path} cannot be loaded: {_cause(error, path)}") from error
    return module


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except RoutinesError as error:
        raise SettingsError(f"{name}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise SettingsError(f"{name}: there is no such file or module; name one with a routine, such as flows/ask.py") from None
        raise SettingsError(f"{name} cannot be loaded: {error}") from error
    except Exception as error:
        raise SettingsError(f"{name} cannot be loaded: {_cause(error, None)}") from error


def _cause(error: Exception, path: Path | None) -> str:
    """What went wrong, with the line of the user's own file."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if path is not None and trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {one_line(said, 300)}{f' (line {line})' if line else ''}"


def _flows(module: ModuleType) -> dict[str, Flow[Any, Any]]:
    from prefect import Flow

    return {name: value for name, value in vars(module).items() if isinstance(value, Flow)}


def _named(module: ModuleType, place: str, name: str) -> Flow[Any, Any]:
    flows = _flows(module)
    found = flows.get(name) or next((flow for flow in flows.values() if flow.name == name), None)
    if found is None:
        raise SettingsError(f"{place} has no routine or flow {name!r}; {_there_is(flows)}")
    return found


def _only(module: ModuleType, place: str) -> Flow[Any, Any]:
    """The only routine; flows that were imported from elsewhere do not count while there is one of the file's own."""
    from prefect_routines.routines import Routine

    flows = _flows(module)
    own = {name: flow for name, flow in flows.items() if flow.fn.__module__ == module.__name__} or flows
    routines: dict[str, Flow[Any, Any]] = {name: flow for name, flow in own.items() if isinstance(flow, Routine)}
    routines = routines or own
    if len(routines) != 1:
        how = f"name one of them: {place}:NAME" if routines else "make one with @routine"
        found = "more than one routine or flow" if routines else "no routine"
        raise SettingsError(f"{place} has {found}; {_there_is(routines)}; {how}")
    return next(iter(routines.values()))


def _there_is(flows: dict[str, Flow[Any, Any]]) -> str:
    return f"there is {', '.join(sorted(flows)) or 'none'}"
