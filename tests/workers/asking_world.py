"""A routine that asks before it acts, deployed: its runs, what they have told people, and what the store knows of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prefect_routines.store import Form, SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until

from .place import ENDED, Place

REPORT = say(call("report", verdict="needs_attention", summary="The end."))
TELLS = [say(call("tell", room="all", text="Hello")), say(call("report", verdict="done", summary="They know."))]
"""Makes one call, which is asked about."""
_ROUTINE = """\
from pathlib import Path
from prefect_routines import Policy, routine, tool

@tool(writes=True, target="room")
def tell(room: str, text: str) -> str:
    \"\"\"Tell people.

    Args:
        room: Where.
        text: What.
    \"\"\"
    with Path({told!r}).open("a") as told:
        told.write(f"{{room}}: {{text}}\\n")
    return "told"

@routine(name={name!r}, tools=[tell], policy=Policy(ask=["tell"]), **{settings!r})
def asks() -> str:
    \"\"\"Asks before it acts.\"\"\"
    return "Tell them."
"""


def routine_that_asks(told: Path, name: str = "asks", **settings: Any) -> str:
    """Its code: each call of its tool that a person has approved leaves a line in the file `told`."""
    return _ROUTINE.format(told=str(told), name=name, settings=settings)


def in_store(work: Any, url: str | None = None) -> Any:
    """What `work` finds in a store; in a thread, since a browser's test has a loop of its own."""

    async def do() -> Any:
        async with await Store.open(url) as store:
            return await work(store)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(do())).result()


class World:
    """The routine at work.

    Args:
        place: Where its runs are started; the store is the one that its environment names.
        name: Of the routine.
        directory: For the file of what was told.
        claude: Whom its sessions talk to.
        before: Code in front of the routine's.
        env: More environment for its runs.
        settings: Of the routine, beside its tool and the rule that asks.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        directory: Path,
        claude: ScriptedClaude,
        *,
        before: str = "",
        env: Mapping[str, str] = MappingProxyType({}),
        **settings: Any,
    ) -> None:
        self.place, self._file = place, directory / "told"
        place.flow("asks", before + routine_that_asks(self._file, name, **{"budget": {"turns": 20}, **settings}))
        self.deployment = place.deploy("asks.py:asks", job_variables={"env": {**claude.environment(), **env}})

    @property
    def told(self) -> list[str]:
        """One line for each time that the tool was called."""
        return self._file.read_text().splitlines() if self._file.exists() else []

    def start(self) -> str:
        return self.place.start(self.deployment)

    def session(self, run: str) -> SessionRecord:
        """The session of a run, as soon as it is there."""
        return until(lambda: next(iter(self.in_store(lambda store: store.sessions(flow_run_id=run))), None))

    def form(self, run: str) -> Form:
        """The open form of the run, as soon as its run is suspended with it."""
        self.place.until(run, "Suspended", seconds=90)
        session = self.session(run)
        return until(lambda: next(iter(self.in_store(lambda store: store.forms(session_id=session.id, status="open"))), None))

    def went_on_once(self, run: str) -> None:
        """The run ended well: a second process of its session found the answer, and made the one call that was asked about."""
        assert self.place.until(run, *ENDED)["state_type"] == "COMPLETED"
        session = self.session(run)
        assert (session.status, session.verdict) == ("ended", "done")
        entries = self.in_store(lambda store: store.entries(session.id))
        kinds = Counter(entry.kind for entry in entries)
        assert (kinds["session.status_suspended"], kinds["session.status_running"], kinds["form.answered"]) == (1, 2, 1)
        [call] = [entry.seq for entry in entries if entry.kind == "tool.start" and entry.data["name"] == "tell"]
        assert call > next(entry.seq for entry in entries if entry.kind == "form.answered")
        assert len(self.in_store(lambda store: store.forms(session_id=session.id))) == 1

    def in_store(self, work: Any) -> Any:
        """What `work` finds in the store that its runs use."""
        return in_store(work, self.place.env.get("ROUTINES_DATABASE_URL"))
