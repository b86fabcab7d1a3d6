"""Reads prefect files with the lines on which things stand, and says which keys nobody knows.

What may stand in such a file: https://docs.prefect.io/v3/how-to-guides/deployments/prefect-yaml. Prefect itself ignores keys that it
does not know, so that `schedule_s:` would be a routine that never runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefect_routines.deploying.problems import Problem, Weight, meant
from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

Place = tuple[str | int, ...]

TOP = ("prefect-version", "name", "build", "push", "pull", "deployments", "definitions")
DEPLOYMENT = (
    "name", "version", "version_type", "tags", "description", "schedule", "schedules", "paused", "concurrency_limit", "flow_name",
    "entrypoint", "parameters", "enforce_parameter_schema", "build", "push", "pull", "work_pool", "triggers", "sla",
)  # fmt: skip
SCHEDULE = ("cron", "interval", "rrule", "timezone", "anchor_date", "active", "parameters", "slug", "replaces", "day_or")
TRIGGER = (
    "type", "name", "description", "enabled", "parameters", "job_variables", "schedule_after", "match", "match_related", "after", "expect",
    "for_each", "posture", "threshold", "within", "require", "triggers", "metric",
)  # fmt: skip
WORK_POOL = ("name", "work_queue_name", "job_variables")
CONCURRENCY = ("limit", "collision_strategy", "grace_period_seconds")


@dataclass(frozen=True)
class Stanza:
    """One deployment of a prefect file, as it is written.

    Args:
        file: The file.
        index: Its place among the file's deployments.
        data: What it says, as Prefect reads it.
        actions: `build`, `push` and `pull` of the whole file.
        lines: The line of each key and item, by the way to it from the top of the file.
    """

    file: Path
    index: int
    data: dict[str, Any]
    actions: dict[str, Any]
    lines: Mapping[Place, int]

    @property
    def name(self) -> str:
        """The deployment's name; empty when it has none."""
        return str(self.data.get("name") or "")

    def line(self, *place: str | int) -> int:
        """The line of a key of the deployment, or of what is nearest above it."""
        way: Place = ("deployments", self.index, *place)
        while way and way not in self.lines:
            way = way[:-1]
        return self.lines.get(way, 0)

    def problem(self, text: str, *place: str | int, weight: Weight = "error") -> Problem:
        """A remark on one of its keys."""
        return Problem(self.file, self.line(*place), self.name, text, weight)

    def schedules(self) -> list[tuple[Place, dict[str, Any]]]:
        """Its schedules, each with the way to it."""
        listed = self.data.get("schedules") or []
        found: list[tuple[Place, dict[str, Any]]] = [
            (("schedules", number), each) for number, each in enumerate(listed) if isinstance(each, dict)
        ]
        if isinstance(one := self.data.get("schedule"), dict) and one:
            found.append((("schedule",), one))
        return found

    def triggers(self) -> list[tuple[Place, dict[str, Any]]]:
        """Its event triggers, each with the way to it; those inside compound ones, too."""
        return list(_triggers(("triggers",), self.data.get("triggers") or []))


def _triggers(place: Place, listed: Any) -> Iterator[tuple[Place, dict[str, Any]]]:
    for number, each in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(each, dict):
            yield (*place, number), each
            yield from _triggers((*place, number, "triggers"), each.get("triggers") or [])


def find_files(directory: Path) -> list[Path]:
    """The prefect files of a directory: YAML files that have `deployments`, whatever else lies there (a compose file, say).

    Raises:
        SettingsError: There is no such directory.
    """
    if not directory.is_dir():
        raise SettingsError(f"{directory}: there is no such directory; name prefect files, or run this where {directory.name}/ is")
    return [path for path in sorted([*directory.glob("*.yaml"), *directory.glob("*.yml")]) if not _is_something_else(path)]


def _is_something_else(path: Path) -> bool:
    """Whether a file can be read and is no prefect file. One that cannot be read is one, so that its error is shown."""
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and "deployments" not in data and bool({"services", "volumes", "networks"} & set(data))


def read_file(file: Path) -> tuple[list[Stanza], list[Problem]]:
    """The deployments of a prefect file, and what is wrong with the file itself.

    Args:
        file: The file; never written.
    """
    try:
        text = file.read_text("utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        return [], [Problem(file, 0, "", f"it cannot be read: {error.strerror}")]
    except UnicodeDecodeError:
        return [], [Problem(file, 0, "", "it is not UTF-8 text")]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error)
        return [], [Problem(file, mark.line + 1 if mark else 0, "", f"no valid YAML: {one_line(str(said), 200)}")]
    if not isinstance(data, dict) or not isinstance(data.get("deployments"), list) or not data["deployments"]:
        return [], [Problem(file, 0, "", "it holds no `deployments:` list; see deployments/docs-sync.yaml for the form")]
    lines: dict[Place, int] = {}
    problems = [Problem(file, line, "", text) for line, text in _walk(node, (), lines, set())]
    problems += _unknown_keys(file, data, lines)
    actions = {name: data[name] for name in ("build", "push", "pull") if name in data}
    stanzas = [Stanza(file, index, each, actions, lines) for index, each in enumerate(data["deployments"]) if isinstance(each, dict)]
    return stanzas, problems


def _walk(node: Any, way: Place, lines: dict[Place, int], seen: set[int]) -> Iterator[tuple[int, str]]:
    """Notes the line of everything; yields keys that stand twice, of which YAML would take the last without a word."""
    lines.setdefault(way, node.start_mark.line + 1)
    if id(node) in seen:  # an alias: its anchor was looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in known and name != "<<":
                yield key.start_mark.line + 1, f"the key {one_line(name)!r} stands twice; only the last would count"
            known.add(name)
            lines[(*way, name)] = key.start_mark.line + 1
            yield from _walk(value, (*way, name), lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, (*way, number), lines, seen)


def _unknown_keys(file: Path, data: dict[str, Any], lines: Mapping[Place, int]) -> Iterator[Problem]:
    """Keys that Prefect would leave out without a word, and parts that are no mapping."""

    def check(part: Any, known: Sequence[str], way: Place, where: str, what: str) -> Iterator[Problem]:
        if not isinstance(part, dict):
            line = lines.get(way, 0)
            yield Problem(file, line, where, f"{what} must hold names and values, not {one_line(repr(part), 60)}")
            return
        for key in part:
            if key not in known and not (way == () and str(key).startswith((".", "x-"))):
                at = lines.get((*way, str(key)), lines.get(way, 0))
                there = meant(str(key), known, otherwise=f"there is {', '.join(known)}")
                yield Problem(file, at, where, f"{what} has no key {one_line(str(key))!r}{there}")

    yield from check(data, TOP, (), "", "a prefect file")
    for index, one in enumerate(data["deployments"]):
        way: Place = ("deployments", index)
        name = str(one.get("name") or "") if isinstance(one, dict) else ""
        yield from check(one, DEPLOYMENT, way, name, "a deployment")
        if not isinstance(one, dict):
            continue
        if "work_pool" in one:
            yield from check(one["work_pool"], WORK_POOL, (*way, "work_pool"), name, "work_pool")
        if isinstance(one.get("concurrency_limit"), dict):
            yield from check(one["concurrency_limit"], CONCURRENCY, (*way, "concurrency_limit"), name, "concurrency_limit")
        for key, known in (("schedules", SCHEDULE), ("triggers", TRIGGER)):
            listed = one.get(key) or []
            if not isinstance(listed, list):
                yield Problem(file, lines.get((*way, key), 0), name, f"{key} must be a list: put `- ` before each")
                continue
            for number, item in enumerate(listed):
                yield from check(item, known, (*way, key, number), name, "a schedule" if key == "schedules" else "a trigger")
