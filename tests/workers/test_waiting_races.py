"""What may happen to a waiting run in just the wrong moment: while it closes, in Prefect behind its back, before its process is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_routines.steering.acts import answer, cancel
from prefect_routines.steering.deadlines import sweep
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import Form
from prefect_routines.testing import Request, ScriptedClaude, call, say
from waiting import until

from .asking_world import World, in_store
from .gate import Gate, gate_to
from .place import ENDED, Place
from .test_waiting import ADA

DONE = say(call("report", verdict="done", summary="The end."))
ASKS = say(call("tell", room="all", text="Hello"))


@pytest.fixture
def gate(prefect_server: str) -> Iterator[Gate]:
    """What stands between a run and Prefect."""
    with gate_to(prefect_server) as opened:
        yield opened


@pytest.fixture
def own_store(place: Place, tmp_path: Path, configure: Callable[..., None]) -> dict[str, str]:
    """A store that the worker, which looks after forms, knows nothing of; the environment of a run that uses it."""
    env = {"ROUTINES_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'store.db'}"}
    configure(**env)
    return env


def approve(form: Form) -> None:
    """Ada's answer."""
    in_store(lambda store: answer(store, form, uniform_answer(form.content, "approve"), ADA))


def open_form(world: World, run: str) -> Form:
    """The form, as soon as it is open; the run may not be suspended yet."""
    session = world.session(run)
    return until(lambda: next(iter(in_store(lambda store: store.forms(session_id=session.id, status="open"))), None), 90)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("broken", ["CRASHED", "FAILED"])
def test_a_run_that_broke_down_while_it_waited_goes_on_when_it_is_answered(place: Place, tmp_path: Path, broken: str) -> None:
    """Prefect lets runs fail whose time is over, and calls others crashed: the answer counts all the same."""
    with ScriptedClaude([ASKS, DONE]) as claude:
        world = World(place, f"breaks-{uuid4().hex[:8]}", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        place.api(f"/flow_runs/{run}/set_state", {"state": {"type": broken}, "force": True})
        place.until(run, broken)
        approve(form)
        place.until(run, "COMPLETED")
        assert world.told == ["all: Hello"]


@pytest.mark.timeout(300)
def test_a_run_that_cannot_start_any_more_is_not_started_for_ever(place: Place, tmp_path: Path) -> None:
    """Its code is gone when the answer comes: after one attempt it is left to people, who find the answer there."""
    with ScriptedClaude([ASKS, DONE]) as claude:
        world = World(place, "cannot-start", tmp_path, claude)
        run = world.start()
        form = world.form(run)
        code = (tmp_path / "asks.py").read_text()
        place.flow("asks", "raise RuntimeError('broken')")
        place.api(f"/flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}, "force": True})
        place.until(run, "CRASHED")
        former = place.run(run)["state"]["id"]
        approve(form)
        until(lambda: (now := place.run(run)["state"])["id"] != former and now["type"] in ENDED, 90)
        assert in_store(sweep) == 0
        assert place.run(run)["state_type"] in ENDED
        place.flow("asks", code)
        place.api(f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True})
        place.until(run, "COMPLETED")
        assert world.told == ["all: Hello"]


@pytest.mark.timeout(300)
def test_cancelled_while_the_session_closes(place: Place, tmp_path: Path, gate: Gate) -> None:
    """It has decided to wait and hears nobody any more, and still has its lease: the cancellation is found when it is suspended."""

    def asks(request: Request) -> object:
        gate.hold(r"(POST|PATCH) /api/artifacts")  # the last thing that is done before
        return ASKS

    with ScriptedClaude([asks]) as claude:
        world = World(place, "cancel-closing", tmp_path, claude, env={"PREFECT_API_URL": gate.url})
        run = world.start()
        form = open_form(world, run)
        until(lambda: gate.barriers[0].met)
        session = world.session(run)
        assert in_store(lambda store: cancel(store, session, ADA)) == "asked"
        assert session.status == "running"
        gate.barriers[0].lift()

        def ended() -> bool:
            in_store(sweep)
            return world.session(run).status == "ended"

        until(ended, 60)
        place.until(run, "CANCELLED")
        assert in_store(lambda store: store.form(form.id)).status == "withdrawn"
        assert (world.told, len(claude.requests)) == ([], 1)


@pytest.mark.timeout(300)
def test_answered_while_the_session_closes(place: Place, tmp_path: Path, gate: Gate, own_store: dict[str, str]) -> None:
    """The run is not suspended yet, so nobody could wake it; it looks once more itself, and waits for no sweep."""
    with ScriptedClaude([ASKS, DONE]) as claude:
        world = World(place, "answer-closing", tmp_path, claude, env={"PREFECT_API_URL": gate.url, **own_store})
        barrier = gate.hold(r"POST /api/flow_runs/[^/]+/input$")  # the form in Prefect, before the state
        run = world.start()
        form = open_form(world, run)
        until(lambda: barrier.met, 90)
        approve(form)
        assert place.run(run)["state_type"] == "RUNNING"
        barrier.lift()
        place.until(run, *ENDED, seconds=60)
        assert any(request == f"POST /api/flow_runs/{run}/resume" for request in gate.seen)
        assert world.told == ["all: Hello"]


LINGERS = """\
import atexit, os, time
from pathlib import Path

def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:
        return False

_place = Path(__file__).parent
_others = [int(path.name.removeprefix("process-")) for path in _place.glob("process-*")]
(_place / f"process-{os.getpid()}").write_text(" ".join(str(pid) for pid in _others if _alive(pid)))

@atexit.register
def _linger():
    until = time.monotonic() + 60
    while not (_place / "leave").exists() and time.monotonic() < until:
        time.sleep(0.02)

"""


@pytest.mark.timeout(300)
def test_a_new_process_waits_until_the_former_one_is_gone(place: Place, tmp_path: Path) -> None:
    """Somebody was quick to answer: the run is due again while its first process is still ending."""
    with ScriptedClaude([ASKS, DONE]) as claude:
        world = World(place, "lingers", tmp_path, claude, before=LINGERS)
        run = world.start()
        form = world.form(run)

        def processes() -> list[Path]:
            return list(tmp_path.glob("process-*"))

        assert len(processes()) == 1
        approve(form)
        until(lambda: f"former process of flow run {run}" in place.workers[0].said or len(processes()) > 1, 60)
        (tmp_path / "leave").touch()
        place.until(run, *ENDED)
        assert [path.read_text() for path in processes()] == ["", ""]
        assert world.told == ["all: Hello"]


@pytest.mark.timeout(300)
def test_a_prefect_that_is_out_of_order_does_not_continue_a_session(place: Place, tmp_path: Path, gate: Gate) -> None:
    """Somebody answered "stop", and Prefect cannot say so: the run fails in one line, and hears it when it is tried again."""
    with ScriptedClaude([say(call("bash", command="sleep 60"))]) as claude:
        world = World(place, "out-of-order", tmp_path, claude, env={"PREFECT_API_URL": gate.url})
        run = world.start()
        until(lambda: claude.requests, 90)
        place.set_state(
            run, type="PAUSED", name="Suspended", state_details={"pause_timeout": "2030-01-01T00:00:00Z", "pause_reschedule": True}
        )
        until(lambda: (place.run(run)["state"]["state_details"] or {}).get("run_input_keyset"), 60)
        barrier = gate.fail(r"GET /api/flow_runs/[^/]+/input/.*response")
        assert place.api(f"/flow_runs/{run}/resume", {"run_input": {"action": "stop"}})["status"] == "ACCEPT"
        failed = place.until(run, *ENDED)
        assert failed["state"]["message"] == "failed: Prefect does not tell what was answered (500); retry the run"
        assert len(claude.requests) == 1
        barrier.lift()
        place.api(f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True})
        place.until(run, "CANCELLED")
        assert len(claude.requests) == 1
