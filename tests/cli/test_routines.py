"""Routines at work: listed, shown, paused, started and scheduled by name."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from prefect_routines.cli.routine_lines import address_lines
from prefect_routines.deploying.deployed import Deployed
from prefect_routines.store import Store

from .conftest import FLOWS
from .terminal import Finished, Terminal


def api(path: str, body: dict[str, Any] | None = None) -> Any:
    """Prefect's own API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{os.environ['PREFECT_API_URL']}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


@dataclass
class Work:
    """A deployment of the routine `ask`, made without a prefect file."""

    terminal: Terminal
    name: str
    id: str

    def run(self, command: str, *arguments: str) -> Finished:
        """`routines COMMAND NAME ...`"""
        return self.terminal.run(command, self.name, *arguments)

    def runs(self) -> list[dict[str, Any]]:
        """Its runs, as Prefect has them."""
        chosen = {"flow_runs": {"deployment_id": {"any_": [self.id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = api("/flow_runs/filter", chosen)
        return [run for run in found if not run["auto_scheduled"]]


@pytest.fixture
def work(online: Terminal) -> Work:
    """At work, every Monday at ten."""
    from prefect.utilities.callables import parameter_schema

    from prefect_routines.cli.loading import load_flow

    flow = load_flow(str(FLOWS / "ask.py"))
    name = f"w{uuid.uuid4().hex[:8]}"
    flow_id = api("/flows/", {"name": "ask"})["id"]
    made = {
        "name": name,
        "flow_id": flow_id,
        "entrypoint": "flows/ask.py:ask",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(FLOWS.parent)}}],
        "parameters": {"prompt": "Look around.", "settings": {"budget": {"dollars": 3}}},
        "parameter_openapi_schema": parameter_schema(flow).model_dump(),
        "schedules": [{"schedule": {"cron": "0 10 * * 1", "timezone": "Europe/Paris"}, "active": True}],
    }
    return Work(online, name, api("/deployments/", made)["id"])


async def _session(home: str, deployment_id: str) -> None:
    async with await Store.open(f"sqlite+aiosqlite:///{home}/store.db") as store:
        await store.create_session(session_id="ses-ab12", routine="ask", flow_run_id=str(uuid.uuid4()), deployment_id=deployment_id)
        lease = await store.acquire("ses-ab12")
        await store.update_session(lease, status="ended", verdict="done", summary="All seen.", dollars=1.25)
        await store.release(lease)


def test_routines_at_work_are_listed(work: Work) -> None:
    """What starts each, when next, what it came to and what it cost."""
    home = work.terminal.directory / "home"
    home.mkdir()
    asyncio.run(_session(str(home), work.id))
    [one] = [row for row in json.loads(work.terminal.run("list", "--json").out) if row["name"] == f"ask/{work.name}"]
    assert one["triggers"] == ["every Monday at 10:00 Europe/Paris"]
    assert "T10:00:00+0" in one["next"]
    assert (one["last"]["verdict"], one["dollars_7_days"], one["sessions_7_days"], one["paused"]) == ("done", 1.25, 1, False)
    status, screen = work.terminal.run_on_a_tty("list")
    assert status == 0
    assert work.name in screen
    assert "$1.25" in screen


def test_a_routines_page(work: Work) -> None:
    """Task, what it may use, what starts it, its addresses, and its last runs with verdict and cost."""
    home = work.terminal.directory / "home"
    home.mkdir()
    asyncio.run(_session(str(home), work.id))
    done = work.run("show")
    assert done.status == 0, done.err
    for line in (f"ask/{work.name} · on", "prompt = Look around.", "$3, 60 minutes", "every Monday at 10:00 Europe/Paris",
                 f"/v1/claude_code/routines/{work.id}/fire", "ses-ab12  All seen.", "$1.2500"):  # fmt: skip
        assert line in done.out, line
    data = json.loads(work.run("show", "--json").out)
    assert data["settings"]["budget"]["dollars"] == 3
    assert len(data["next_times"]) == 5
    assert [session["id"] for session in data["sessions"]] == ["ses-ab12"]
    assert "Session ses-ab12" in work.terminal.run("show", "ses-ab").out


def test_a_name_that_is_not_clear_is_told(work: Work) -> None:
    """With those that may have been meant."""
    wrong = work.terminal.run("show", f"{work.name}x")
    assert wrong.status == 2
    assert f"did you mean ask/{work.name}?" in wrong.err
    assert work.terminal.run("show", work.name[:-1]).status == 0


def test_a_paused_routine_starts_by_hand_alone(work: Work) -> None:
    """And says so everywhere."""
    assert "is paused" in work.run("pause").out
    assert "was paused already" in work.run("pause").out
    assert api(f"/deployments/{work.id}")["paused"]
    assert "· paused" in work.run("show").out
    assert work.run("run-now").status == 0
    assert len(work.runs()) == 1
    assert "is on" in work.run("unpause").out
    assert not api(f"/deployments/{work.id}")["paused"]


def test_what_a_person_says_reaches_the_run_as_a_delivery(work: Work) -> None:
    """Each time as one of its own, also the same words twice; parameters are typed and checked before anything starts."""
    for _ in range(2):
        done = work.run("run-now", "--text", "Look at the cellar.", "--param", "prompt=Look down.")
        assert done.status == 0, done.err
        assert "No worker of the pool" not in done.err
    runs = work.runs()
    ids = [run["labels"]["routines.delivery"] for run in runs]
    assert len(set(ids)) == 2
    assert [run["parameters"]["event"] for run in runs] == ids
    assert all(run["parameters"]["prompt"] == "Look down." for run in runs)

    async def body() -> tuple[str, str]:
        async with await Store.open(f"sqlite+aiosqlite:///{work.terminal.directory}/home/store.db") as store:
            delivery = await store.delivery(ids[0])
            assert delivery is not None
            return delivery.source, delivery.body

    assert asyncio.run(body()) == ("person", "Look at the cellar.")
    wrong = work.run("run-now", "--param", "promt=x")
    assert (wrong.status, len(work.runs())) == (2, 2)
    assert "has no parameter 'promt'; it has: prompt, event" in wrong.err


def test_a_one_off_run_is_scheduled_once(work: Work) -> None:
    """Asked for again it is the same run; taken away and asked for again it is a new one; with other words it is refused."""
    at = ("--at", "2027-10-31 02:30", "--zone", "Europe/Paris")
    first = work.run("schedule", *at)
    assert first.status == 0, first.err
    assert "is to run once: Sun 2027-10-31 02:30 CEST = Sun 2027-10-31 00:30 UTC" in first.out
    assert "comes twice that day; the first one (CEST) is taken" in first.err
    again = work.run("schedule", *at)
    assert "is scheduled for that time already" in again.out
    [run] = work.runs()
    assert (run["expected_start_time"][:16], run["tags"]) == ("2027-10-31T00:30", ["one-off"])
    other = work.run("schedule", *at, "--text", "Now something else.")
    assert other.status == 2
    assert "with other parameters or another text" in other.err
    assert "Sun 2027-10-31 02:30 CEST" in work.run("schedule", "--list").out
    assert "will not run on Sun 2027-10-31 02:30 CEST" in work.run("schedule", "--cancel").out
    assert "has no one-off run that waits" in work.run("schedule", "--list").out
    assert work.run("schedule", *at).status == 0
    assert sorted(run["state_type"] for run in work.runs()) == ["CANCELLED", "SCHEDULED"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at", "2020-01-01 09:00"), "is past"),
        (("--at", "2027-03-28 02:30", "--zone", "Europe/Paris"), "does not exist in Europe/Paris"),
        (("--at", "2027-03-28 02:30", "--zone", "Europe/Pari"), "did you mean 'Europe/Paris'?"),
        (("--at", "soon"), "is no time"),
        ((), "say when with --at"),
        (("--cancel",), "there is no one-off run"),
        (("--list", "--at", "2027-01-01 09:00"), "--list stands alone"),
    ],
)
def test_a_time_that_cannot_be_meant_is_refused(work: Work, arguments: tuple[str, ...], said: str) -> None:
    """In one line; nothing is scheduled."""
    done = work.run("schedule", *arguments)
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err
    assert work.runs() == []


def test_a_trigger_for_several_sources_has_no_single_address() -> None:
    """A `*` in an address would be no address; what stands in its place is said."""
    trigger = {"type": "event", "expect": ["webhook.ci*", "webhook.alerts.firing"]}
    deployed = Deployed("docs", {"id": "1", "name": "main"}, [{"trigger": trigger}])
    lines = [str(line).strip() for line in address_lines(deployed)]
    assert [line.partition("/hooks/")[2] for line in lines] == ["alerts", "NAME  (NAME begins with ci)"]
