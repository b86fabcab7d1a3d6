"""What runs in a forked process: one flow run, as Prefect's engine runs it, killed at one commit of the session store if so ordered."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, get_client
from prefect.flow_engine import run_flow
from sqlalchemy import Connection, Engine, event

from e2e.harness.processes import descendants


class Commits:
    """Counts the commits of this process, with what each one writes; kills the process before or after one of them.

    Args:
        of: Only commits that write this are counted for the kill: a table's name, or the kind of an entry. The others can differ from
            run to run: what parallel calls bring at the same moment is written together.
    """

    def __init__(self, kill: int | None, after: bool, tree: Path, of: str = "") -> None:
        self.written: list[str] = []
        self._kill, self._after, self._tree, self._of = kill, after, tree, of
        self._now: list[str] = []
        event.listen(Engine, "before_cursor_execute", self._executing)
        event.listen(Engine, "commit", self._committing)

    def _executing(self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if not statement.startswith(("INSERT", "UPDATE")):
            return
        table = statement.split()[2 if statement.startswith("INSERT") else 1]
        # the journal's third column is the kind of the entry
        kinds = [row[2] for row in (parameters if many else [parameters])] if table == "routines_entries" else []
        self._now.append(f"{table.removeprefix('routines_')}{f' {kinds}' if kinds else ''}")

    def _committing(self, connection: Connection) -> None:
        self.written.append(", ".join(self._now))
        self._now.clear()
        if self._of not in self.written[-1] or sum(self._of in one for one in self.written) != self._kill:
            return
        if self._after:
            connection.dialect.do_commit(connection.connection)
        self._tree.write_text(json.dumps(descendants(os.getpid())))
        os.kill(os.getpid(), signal.SIGKILL)


def run(order: dict[str, Any]) -> int:
    """Carry out an order; 0 when the flow run came to its end, whatever it was."""
    place = Path(order["place"])
    commits = Commits(order.get("kill"), bool(order.get("after")), place / "tree.json", order.get("of", ""))
    asyncio.run(_run(order))
    (place / "commits.json").write_text(json.dumps(commits.written))
    return 0


async def _run(order: dict[str, Any]) -> None:
    async with get_client() as client:
        flow_run = await client.read_flow_run(UUID(order["flow_run"]))
    await run_flow(load(order["flow"]), flow_run=flow_run, return_type="state")  # type: ignore[misc]  # the flow is async


def load(reference: str) -> Flow[..., Any]:
    """The flow NAME of FILE.py, from `FILE.py:NAME`."""
    file, _, name = reference.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flow = getattr(module, name)
    assert isinstance(flow, Flow)
    return flow
