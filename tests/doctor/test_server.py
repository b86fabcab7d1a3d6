"""What the doctor sees of a real Prefect server and of what stands on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.states import Running

from prefect_routines.doctor.server import (
    look_at_clock,
    look_at_deployment,
    look_at_gateway,
    look_at_pool,
    look_at_prefect,
    look_at_runs,
    look_at_services,
    look_at_source,
    skew,
    waited_for,
)
from prefect_routines.gateway.sources import WebhookSource
from waiting import until_async


def test_a_source_by_the_beginning_of_its_name_is_looked_for_among_those_there() -> None:
    """`webhook.al*` is no name of a block; only if nothing begins so there is something to say."""
    assert waited_for(["ci", "al*", "x*"], ["alerts", "other"]) == (["alerts", "ci", "other"], ["x*"])


@pytest.fixture
async def client(prefect_server: str) -> AsyncIterator[PrefectClient]:
    """Of the server."""
    assert prefect_server
    async with get_client() as client:
        yield client


@pytest.fixture
async def pool(client: PrefectClient) -> AsyncIterator[str]:
    """A work pool without workers."""
    name = f"pool-{uuid4().hex[:6]}"
    await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    yield name
    await client.delete_work_pool(name)


async def test_the_server_and_its_version_are_told(client: PrefectClient) -> None:
    """Both versions, and whether they fit."""
    found = await look_at_prefect(client)
    assert found.status == "ok"
    assert found.saw.count("3.") >= 2


async def test_the_servers_services_and_clock(client: PrefectClient) -> None:
    """The services are on; with Prefect's own batch size events wait behind busy runs, and the setting that mends it is named."""
    found = await look_at_services(client)
    assert (found.status, "TASK_RUN_RECORDER_BATCH_SIZE=50" in found.remedy) == ("warn", True)
    assert (await look_at_clock(client)).saw == "this machine and Prefect agree"


@pytest.mark.parametrize(("seconds", "status"), [(0, "ok"), (10, "warn"), (-10, "warn"), (120, "red"), (-120, "red")])
def test_clocks_that_differ(seconds: int, status: str) -> None:
    """A little is odd, much breaks signatures and leases; in both directions."""
    now = datetime.now(UTC)
    found = skew(format_datetime(now + timedelta(seconds=seconds), usegmt=True), now, "Prefect")
    assert found.status == status
    assert skew(None, now, "Claude").status == "ok"


async def test_a_pool_without_worker_is_red(client: PrefectClient, pool: str) -> None:
    """Missing, empty, at work, paused."""
    assert (await look_at_pool(client, "nowhere")).remedy == "prefect work-pool create nowhere --type routines"
    empty = await look_at_pool(client, pool)
    assert (empty.status, empty.remedy) == ("red", f"prefect worker start --pool {pool} (or `routines up`)")
    await client.send_worker_heartbeat(work_pool_name=pool, worker_name="one@elsewhere", heartbeat_interval_seconds=30)
    elsewhere = await look_at_pool(client, pool)
    assert (elsewhere.status, "workers on elsewhere" in elsewhere.saw) == ("red", True)  # the store is SQLite here
    await client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))
    assert (await look_at_pool(client, pool)).remedy == f"prefect work-pool resume {pool}"


async def test_a_pool_with_a_worker_here_is_well(client: PrefectClient, pool: str) -> None:
    """With the age of its last heartbeat."""
    await client.send_worker_heartbeat(work_pool_name=pool, worker_name="one", heartbeat_interval_seconds=30)
    found = await look_at_pool(client, pool)
    assert (found.status, "type process, 1 worker online, last heartbeat" in found.saw) == ("ok", True)


@pytest.mark.parametrize(
    ("data", "automations", "status", "said"),
    [
        ({"schedules": [{"active": True}]}, [{"name": "a", "enabled": True}], "ok", "it loads; 1 schedule and 1 trigger"),
        ({"schedules": []}, [], "ok", "it loads; started by people only"),
        ({"paused": True}, [], "warn", "it is paused"),
        ({"schedules": [{"active": False}, {"active": True}]}, [], "warn", "1 of its schedules is not active"),
        ({"schedules": []}, [{"name": "on-issue", "enabled": False}], "red", "switched off, so these events start nothing: on-issue"),
    ],
)
def test_what_keeps_a_deployment_from_starting(data: dict[str, Any], automations: list[dict[str, Any]], status: str, said: str) -> None:
    """Paused, asleep, switched off."""
    found = look_at_deployment({"id": "1", "name": "weekly", **data}, automations, "it loads")
    assert (found.status, found.saw) == (status, said)


async def test_a_run_that_has_lost_its_process_is_to_be_looked_at(client: PrefectClient) -> None:
    """It is Running and has no heartbeat; one that beats is well, and so is one that began a moment ago."""
    made = await client.create_deployment(await client.create_flow(_idle), f"runs-{uuid4().hex[:6]}")
    runs = [await client.create_flow_run_from_deployment(made) for _ in range(2)]
    for run in runs:
        await client.set_flow_run_state(run.id, Running(), force=True)
    lost, alive = runs
    assert (await look_at_runs(client, [str(made)])).saw == "none has lost its process"
    beat = {"event": "prefect.flow-run.heartbeat", "resource": {"prefect.resource.id": f"prefect.flow-run.{alive.id}"}, "related": []}

    async def told() -> str:  # the feed is written every few seconds
        beating = {**beat, "payload": {}, "id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}
        await client.request("POST", "/events", json=[beating])
        return (await look_at_runs(client, [str(made)], minutes=0.3)).saw

    async def alone() -> bool:
        return await told() == f"no sign of life for 0.3 minutes from {lost.name}"

    await until_async(alone, 90, every=1)
    await client.delete_deployment(made)


@flow
def _idle() -> None:
    """Is deployed here."""


async def test_a_gateway_that_is_away_matters_to_who_waits_for_it(configure: Callable[..., None]) -> None:
    """Red if a routine waits for deliveries, else only told."""
    configure(ROUTINES_GATEWAY_URL="http://127.0.0.1:9")
    assert (await look_at_gateway(needed=True)).status == "red"
    assert (await look_at_gateway(needed=False)).status == "ok"


async def test_a_source_tells_when_it_was_last_heard_of(client: PrefectClient) -> None:
    """A block that is not there is red; one that has been quiet for too long is to be looked at; its secret is not told."""
    await WebhookSource(signature="bearer", secrets=["hidden-secret"], quiet_after=60).asave("heard", overwrite=True)
    try:
        now = datetime.now(UTC)
        assert (await look_at_source(client, "heard", {})).saw == "no delivery yet"
        assert (await look_at_source(client, "heard", {"heard": now})).saw.startswith("last delivery 0 s ago")
        quiet = await look_at_source(client, "heard", {"heard": now - timedelta(hours=3)})
        assert (quiet.status, quiet.saw) == ("warn", "last delivery 3 h ago, though it should not be quiet for more than 60 min")
    finally:
        await WebhookSource.adelete("heard")
    assert (await look_at_source(client, "heard", {})).status == "red"
