"""Several machines without containers: what compose.yaml starts, with its commands and variables, on PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from ports import free_port
from prefect_routines.store import Store
from prefect_routines.testing import ScriptedClaude, call, say
from store.postgres_server import PostgresServer
from waiting import until

COMPOSE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "deployments" / "compose.yaml").read_text())["services"]
RUNS = 6
AT_ONCE = 2
"""Runs that one worker may have at once: six runs need both."""
ROUTINE = '''
"""A routine that says where it runs."""

import os
from pathlib import Path

from prefect.runtime import flow_run

from prefect_routines import routine


@routine
def visit(number: int = 0) -> str:
    """Leave a line for each time that the function is called."""
    with Path(os.environ["VISITS"]).open("a") as file:
        file.write(f"{flow_run.id} {os.environ['SITE']}\\n")
    return f"Visit number {number}."
'''
DEPLOYMENT = """
deployments:
  - name: both-sites
    entrypoint: visits.py:visit
    work_pool: {name: routines}
    pull:
      - prefect.deployments.steps.set_working_directory: {directory: PLACE}
    triggers:
      - {type: event, expect: [visit.wanted], match: {prefect.resource.id: visit.board}, parameters: {number: 99}}
"""


class Site:
    """The services of compose.yaml as processes of this machine."""

    def __init__(self, place: Path, postgres: PostgresServer) -> None:
        self.place, self._postgres = place, postgres
        self.port, self.redis_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, service: str) -> dict[str, str]:
        """The variables of a service, with the addresses that they have here."""
        login = "prefect:${POSTGRES_PASSWORD:?set it in deployments/.env}"
        here = {
            f"{login}@postgres:5432": f"routines:s3cret-word@127.0.0.1:{self._postgres.port}",
            "//redis:6379": f"//127.0.0.1:{self.redis_port}",
            "http://server:4200": f"http://127.0.0.1:{self.port}",
        }
        found = {}
        for name, value in COMPOSE[service].get("environment", {}).items():
            for there, ours in here.items():
                value = value.replace(there, ours)  # noqa: PLW2901
            if "${" not in value:
                found[name] = value
        return found

    def start(self, service: str, *more: str, name: str = "", **environment: str) -> None:
        """Start a service with the command that compose.yaml gives it."""
        name = name or service
        home = self.place / name
        home.mkdir()
        variables = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
        variables |= {"PREFECT_HOME": str(home), **self.environment(service), **environment}
        program, *words = [{"4200": str(self.port), "0.0.0.0": "127.0.0.1"}.get(word, word) for word in COMPOSE[service]["command"]]
        if program == "redis-server":
            words += ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(home)]
        else:
            program = str(Path(sys.executable).with_name(program))
        with (self.place / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [program, *words, *more], env=variables, cwd=home, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def ask(self, path: str, body: Any = None) -> Any:
        """Prefect's API; None while it does not answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.loads(answer.read() or b"true")
        except urllib.error.HTTPError:
            raise
        except OSError:
            return None

    def prefect(self, *arguments: str) -> None:
        """Prefect's own command."""
        environment = {**os.environ, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.place / "desk")}
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=self.place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in sorted(self.place.glob("*.log")))

    def close(self) -> None:
        """Stop all, the newest first."""
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """API and services of their own processes, PostgreSQL, Redis, a Claude, two workers."""
    script = [say(call("bash", command="sleep 2; echo here")), say(call("report", verdict="done", summary="It was a visit."))]
    with ExitStack() as stack:
        postgres = PostgresServer()
        stack.callback(postgres.remove)
        for database in ("prefect", "routines"):  # as compose.yaml makes them
            asyncio.run(postgres.create_database(database))
        place = tmp_path_factory.mktemp("site")
        site = Site(place, postgres)
        stack.callback(site.close)
        claude = stack.enter_context(ScriptedClaude(script))
        site.start("redis")
        site.start("server")
        until(lambda: site.ask("/health"), 180)
        site.start("services")
        (place / "visits.py").write_text(ROUTINE)
        (place / "prefect.yaml").write_text(DEPLOYMENT.replace("PLACE", str(place)))
        for name in ("one", "two"):
            more = {"SITE": name, "VISITS": str(place / "visits"), "ROUTINES_HOME": str(place / f"routines-{name}")}
            site.start("worker", "--limit", str(AT_ONCE), "--name", name, name=f"worker-{name}", **more, **claude.environment())
        until(lambda: online(site) == {"one", "two"}, what=site.logs)
        site.prefect("deploy", "--all")
        yield site


def online(site: Site) -> set[str]:
    """The names of the workers that the API has heard of."""
    try:
        return {worker["name"] for worker in site.ask("/work_pools/routines/workers/filter", {}) or [] if worker["status"] == "ONLINE"}
    except urllib.error.HTTPError:  # the first worker has not made the pool yet
        return set()


def ended(site: Site, runs: list[str]) -> list[Mapping[str, Any]]:
    """The runs, once all have ended."""
    found = site.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": runs}}, "limit": 50}) or []
    over = [run for run in found if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")]
    return over if len(over) == len(runs) else []


def visits(site: Site) -> list[list[str]]:
    """(run, site) for each time that the routine was called."""
    return [line.split() for line in (site.place / "visits").read_text().splitlines()]


@pytest.mark.timeout(600)
def test_runs_are_spread_over_both_workers_and_each_runs_once(site: Site) -> None:
    """Two homes, one store: every session is there, with one run."""
    [deployment] = site.ask("/deployments/filter", {})
    made = [
        site.ask(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"number": number}})["id"] for number in range(RUNS)
    ]
    runs = until(lambda: ended(site, made), 300)
    assert Counter(run["state"]["message"] for run in runs) == {"done: It was a visit.": RUNS}, site.logs()
    calls = [line for line in visits(site) if line[0] in made]
    assert sorted(run for run, _ in calls) == sorted(made)
    assert {where for _, where in calls} == {"one", "two"}
    sessions = [run["labels"]["routines.session"] for run in runs]
    assert len(set(sessions)) == RUNS

    async def in_the_store() -> list[str]:
        store = await Store.open(site.environment("worker")["ROUTINES_DATABASE_URL"])
        try:
            return [session.id for session in await store.sessions(limit=50)]
        finally:
            await store.close()

    assert set(sessions) <= set(asyncio.run(in_the_store()))
    assert not list(site.place.glob("routines-*/*.db")), "a worker keeps sessions of its own"


@pytest.mark.timeout(300)
def test_an_event_taken_by_the_api_starts_a_run_through_redis(site: Site) -> None:
    """The API only publishes it; the services, another process, hold it against the triggers, once."""
    event = {"event": "visit.wanted", "resource": {"prefect.resource.id": "visit.board"}, "id": "0198c6f0-7a5d-7c3e-8000-000000000001"}
    before = {run["id"] for run in site.ask("/flow_runs/filter", {"limit": 50})}
    occurred = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert site.ask("/events", [{**event, "occurred": occurred}]) is not None
    new = until(lambda: {run["id"] for run in site.ask("/flow_runs/filter", {"limit": 50})} - before, 90, site.logs)
    [run] = until(lambda: ended(site, list(new)))
    assert run["parameters"]["number"] == 99
    assert len([line for line in visits(site) if line[0] == run["id"]]) == 1
    keys = subprocess.run(["redis-cli", "-p", str(site.redis_port), "--scan"], capture_output=True, text=True, check=True).stdout
    assert "events" in keys, keys
