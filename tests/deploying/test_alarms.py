"""The silence alarms as automations on a real Prefect server: made once, brought up to date, left alone, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient

from prefect_routines.deploying.alarms import ensure_alarms, late_alarm, reply_alarm, source_alarm
from prefect_routines.doctor.alarms import PREFIX
from prefect_routines.errors import SettingsError
from prefect_routines.gateway.sources import WebhookSource


@flow
def watched() -> None:
    """Is deployed here."""


@pytest.fixture
async def client(prefect_server: str) -> AsyncIterator[PrefectClient]:
    """Prefect without sources of other tests, which would be watched, too; no alarm is left behind."""
    assert prefect_server
    async with get_client() as client:
        wanted = {"block_types": {"slug": {"any_": ["webhook-source"]}}}
        for document in (await client.request("POST", "/block_documents/filter", json=wanted)).json():
            await client.delete_block_document(document["id"])
        yield client
        await ensure_alarms(client, [])


@pytest.fixture
async def deployment(client: PrefectClient) -> AsyncIterator[dict[str, Any]]:
    """A deployment as the API gives it."""
    made = await client.create_deployment(await client.create_flow(watched), f"w-{uuid4().hex[:6]}")
    yield (await client.request("GET", "/deployments/{id}", path_params={"id": made})).json()
    await client.delete_deployment(made)


async def _alarms(client: PrefectClient) -> dict[str, dict[str, Any]]:
    found = (await client.request("POST", "/automations/filter", json={"limit": 200})).json()
    return {one["name"].removeprefix(PREFIX): one for one in found if one["name"].startswith(PREFIX)}


async def test_a_second_call_changes_nothing(client: PrefectClient, deployment: dict[str, Any]) -> None:
    """Two alarms for a deployment; they stay the same automations, so their watch goes on."""
    name = f"watched/{deployment['name']}"
    made = await ensure_alarms(client, [deployment])
    assert made == [f"alarm '{name} {what}' made" for what in ("does not start", "gets no reply")]
    before = await _alarms(client)
    assert await ensure_alarms(client, [deployment]) == []
    assert await _alarms(client) == before
    assert {one["actions"][0]["type"] for one in before.values()} == {"do-nothing"}


async def test_what_differs_is_brought_up_to_date_and_a_switch_is_left_alone(
    client: PrefectClient, deployment: dict[str, Any], configure: Callable[..., None]
) -> None:
    """The deadline of the deployment's settings and the notification come in; an alarm that somebody switched off stays off."""
    await ensure_alarms(client, [deployment])
    name = f"watched/{deployment['name']} gets no reply"
    old = (await _alarms(client))[name]
    assert old["trigger"]["within"] == 480
    await client.request("PATCH", "/automations/{id}", path_params={"id": old["id"]}, json={"enabled": False})
    await CustomWebhookNotificationBlock(name="ops", url="http://127.0.0.1:9/").asave("ops", overwrite=True)
    configure(ROUTINES_ALARM_BLOCK="custom-webhook/ops")
    longer = {**deployment, "parameters": {"settings": {"deadlines": {"first_reply": 600}}}}
    assert len(await ensure_alarms(client, [longer])) == 2
    new = (await _alarms(client))[name]
    assert (new["id"], new["enabled"], new["trigger"]["within"]) == (old["id"], False, 900)
    assert new["actions"][0]["type"] == "send-notification"


async def test_the_alarms_of_others_stay_while_their_deployment_is_there(client: PrefectClient, deployment: dict[str, Any]) -> None:
    """Deploying one routine does not take away the alarms of another; once that is gone they are."""
    other = await client.create_deployment(await client.create_flow(watched), f"o-{uuid4().hex[:6]}")
    data = (await client.request("GET", "/deployments/{id}", path_params={"id": other})).json()
    await ensure_alarms(client, [data])
    await ensure_alarms(client, [deployment])
    assert any(data["name"] in name for name in await _alarms(client))
    await client.delete_deployment(other)
    removed = await ensure_alarms(client, [deployment])
    assert len(removed) == 2
    assert all("removed" in line for line in removed)
    assert not any(data["name"] in name for name in await _alarms(client))


async def test_an_automation_of_a_persons_is_not_touched(client: PrefectClient) -> None:
    """Even if its name begins like ours: the tag is missing."""
    trigger = {"type": "event", "posture": "Reactive", "expect": ["x.y"], "threshold": 1, "within": 0}
    body = {"name": f"{PREFIX}mine", "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    made = (await client.request("POST", "/automations/", json=body)).json()
    try:
        await ensure_alarms(client, [])
        assert "mine" in await _alarms(client)
    finally:
        await client.request("DELETE", "/automations/{id}", path_params={"id": made["id"]})


async def test_sources_that_may_be_quiet_for_a_while_are_watched(client: PrefectClient) -> None:
    """As the block says; those that say nothing are not. What signs as GitHub does is watched by GitHub's events."""
    await WebhookSource(signature="bearer", secrets=["s"], quiet_after=30).asave("alerts", overwrite=True)
    await WebhookSource(signature="github", secrets=["s"], quiet_after=60).asave("forge", overwrite=True)
    await WebhookSource(signature="bearer", secrets=["s"]).asave("rare", overwrite=True)
    try:
        await ensure_alarms(client, [])
        found = await _alarms(client)
        assert {name for name in found if "quiet" in name} == {"source alerts is quiet", "source forge is quiet"}
        assert sorted(found["source alerts is quiet"]["trigger"]["expect"]) == ["webhook.alerts", "webhook.alerts.*"]
        assert found["source alerts is quiet"]["trigger"]["within"] == 1800
        assert found["source forge is quiet"]["trigger"]["expect"] == ["github.*"]
        assert await ensure_alarms(client, []) == []
    finally:
        for name in ("alerts", "forge", "rare"):
            await WebhookSource.adelete(name)
    assert len(await ensure_alarms(client, [])) == 2


@pytest.mark.parametrize(
    ("reference", "said"), [("custom-webhook/nobody", "there is no block 'custom-webhook/nobody'"), ("secret/quiet", "cannot notify")]
)
async def test_a_block_that_cannot_tell_anybody_is_refused(
    client: PrefectClient, configure: Callable[..., None], reference: str, said: str
) -> None:
    """Before anything is made: an alarm that tells nobody would be found out when it is too late."""
    await Secret(value="x").asave("quiet", overwrite=True)
    configure(ROUTINES_ALARM_BLOCK=reference)
    with pytest.raises(SettingsError, match=said):
        await ensure_alarms(client, [])


def test_prefect_accepts_no_shorter_wait_than_ten_seconds() -> None:
    """However short a person wants it."""
    deployment = {"id": str(uuid4()), "name": "d", "parameters": {"settings": {"deadlines": {"first_reply": 1}}}}
    alarms = (source_alarm("alerts", 0.01), reply_alarm(deployment, "f", 0))
    assert [alarm.trigger["within"] for alarm in alarms] == [10, 10]
    assert late_alarm(deployment, "f").trigger["within"] == 300
