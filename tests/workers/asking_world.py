"""A routine that asks before it acts, deployed: its runs, what they have told people, and what the store knows of them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prefect_routines.store import Form, SessionRecord, Store
from prefect_routines.testing import ScriptedClaude, call, say
from waiting import until

from .place import Place

REPORT = say(call("report", verdict="needs_attention", summary="The end."))
_ROUTINE = """\
from pathlib import Path
from prefect_routines import Policy, Settings, routine, tool

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


class World:
    """The routine at work.

    Args:
        place: Where its runs are started; the store is the one that its environment names.
        name: Of the routine.
        directory: For the file of what was told.
        claude: Whom its sessions talk to.
        settings: Of the routine, beside its tool and the rule that asks.
    """

    def __init__(self, place: Place, name: str, directory: Path, claude: ScriptedClaude, **settings: Any) -> None:
        self.place, self._file = place, directory / "told"
        given = {"budget": {"turns": 20}, **settings}
        place.flow("asks", _ROUTINE.format(told=str(self._file), name=name, settings=given))
        self.deployment = place.deploy("asks.py:asks", job_variables={"env": claude.environment()})

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

    def in_store(self, work: Any) -> Any:
        """What `work` finds in the store; in a thread, since a browser's test has a loop of its own."""

        async def do() -> Any:
            async with await Store.open(self.place.env.get("ROUTINES_DATABASE_URL")) as store:
                return await work(store)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: asyncio.run(do())).result()
