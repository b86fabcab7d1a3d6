"""A process dies around a write, and the routine has changed when the run is started again: nothing goes out twice, no doubt is hidden."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest
from prefect import get_client
from prefect.states import Crashed, Pending, Scheduled

from prefect_routines.store import Output, Store
from prefect_routines.testing import ScriptedClaude, call, say

from . import board_routine
from .harness.pool import Pool, Run

REPORT = say(call("report", verdict="done", summary="Said it."))
FLOW = f"{board_routine.__file__}:tell_the_board"


class Board:
    """A run that posts on a board."""

    def __init__(self, pool: Pool, place: Path) -> None:
        self._pool, self._place = pool, place
        self.board = place / "board"
        self.board.mkdir()
        self.claude = ScriptedClaude([say(call("board_post", board="main", text="hello")), REPORT])
        with get_client(sync_client=True) as client:
            self._id = client.create_flow_run(board_routine.tell_the_board, state=Pending()).id

    def start(self, name: str, *, kill: int | None = None, after: bool = False, changed: str = "") -> Run:
        """Run it. It dies before or after a commit to the outputs: the first records the write, the second writes down how it went."""
        environment = self.claude.environment() | {"ROUTINES_LEASE_SECONDS": "600", "BOARD": str(self.board), "CHANGED": changed}
        return self._pool.start(
            self._place / name, environment=environment, flow=FLOW, flow_run=str(self._id), of="outputs", kill=kill, after=after
        )

    def retry(self, changed: str) -> str:
        """Start it again as something else. Returns the run's last message."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(self._id, Crashed(message="killed by the test"), force=True)
            client.set_flow_run_state(self._id, Scheduled(message="retried"), force=True)
            run = self.start("again", changed=changed)
            run.wait()
            state = client.read_flow_run(self._id).state
        assert state is not None, run.said
        return state.message or ""

    @property
    def posted(self) -> list[str]:
        """All that hangs on the board."""
        return [line for path in self.board.iterdir() for line in path.read_text().splitlines()]

    @property
    def outputs(self) -> list[Output]:
        """The session's writes as its store has them."""

        async def read() -> list[Output]:
            async with await Store.open() as store:
                return await store.outputs((await store.find(str(self._id))).id)

        return asyncio.run(read())

    @property
    def heard(self) -> Any:
        """What Claude was told of the write."""
        return self.claude.requests[-1].results[0]


@pytest.mark.parametrize(
    ("changed", "status", "heard", "message"),
    [
        ("", "done", "it was posted", "done: Said it."),
        ("links", "done", "it was posted", "done: Said it."),
        ("denied", "unknown", "Outcome unknown: Interrupted", "needs_attention: Said it."),
        ("gone", "unknown", "Outcome unknown: Interrupted", "needs_attention: Said it."),
        ("unplannable", "unknown", "it cannot be looked up: the board is busy", "needs_attention: Said it."),
        ("unreachable", "unknown", "could not be looked up: the board does not answer", "needs_attention: Said it."),
    ],
)
def test_killed_after_it_was_sent(pool: Pool, tmp_path: Path, changed: str, status: str, heard: str, message: str) -> None:
    """It is looked up; where that cannot be, the doubt is told, and the verdict is not done."""
    case = Board(pool, tmp_path)
    with case.claude:
        assert case.start("killed", kill=2).wait() == -signal.SIGKILL
        assert case.posted == ["hello"]
        assert case.retry(changed) == message
    assert case.posted == ["hello"]
    assert [output.status for output in case.outputs] == [status]
    assert heard in case.heard.text


@pytest.mark.parametrize("changed", ["", "denied", "gone", "unplannable", "unreachable"])
def test_killed_after_it_was_written_down(pool: Pool, tmp_path: Path, changed: str) -> None:
    """What is known to be done is told as done, whatever the routine says by now."""
    case = Board(pool, tmp_path)
    with case.claude:
        assert case.start("killed", kill=2, after=True).wait() == -signal.SIGKILL
        assert case.retry(changed) == "done: Said it."
    assert case.posted == ["hello"]
    assert case.heard.text == "posted"


@pytest.mark.parametrize(("changed", "posted"), [("", ["hello"]), ("denied", []), ("gone", []), ("unplannable", [])])
def test_killed_before_it_was_recorded(pool: Pool, tmp_path: Path, changed: str, posted: list[str]) -> None:
    """Nothing went out, so what holds now decides."""
    case = Board(pool, tmp_path)
    with case.claude:
        assert case.start("killed", kill=1).wait() == -signal.SIGKILL
        assert case.posted == []
        case.retry(changed)
    assert case.posted == posted
