"""Runs that a person asks for: now, or once at a given time."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect_routines.deploying.deployed import ONE_OFF, Deployed, pages
from prefect_routines.errors import SettingsError
from prefect_routines.session.beginning import LABEL
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PERSON = "routines.person"
"""Label of runs that a person asked for on the command line."""


async def record_text(text: str, key: str = "") -> str:
    """Write what a person says into the inbox; its id, by which a run gets it. Claude reads it with `read_event`.

    Args:
        key: Text that was recorded with the same key is recorded once; without one each time is a delivery of its own.
    """
    from prefect_routines.store import Delivery, Store

    delivery_id = f"evt-{secrets.token_hex(12)}"
    digest = hashlib.sha256(f"{key or delivery_id}\n".encode() + text.encode("utf-8", "surrogatepass")).hexdigest()
    delivery = Delivery(delivery_id, "person", delivery_id, "text", text, body_sha256=digest)
    async with await Store.open() as store:
        recorded, _ = await store.record_delivery(delivery)
    return recorded.id


def check_parameters(deployed: Deployed, parameters: Mapping[str, Any]) -> None:
    """Whether a run of the deployment may have these parameters.

    Raises:
        SettingsError: One is unknown, missing or does not fit.
    """
    from prefect.utilities.schema_tools.validation import ValidationError, validate

    schema = dict(deployed.data.get("parameter_openapi_schema") or {})
    merged = {**(deployed.data.get("parameters") or {}), **parameters}
    known = list(schema.get("properties") or {})
    if unknown := [name for name in parameters if name not in known]:
        names = ", ".join(name for name in known if name != "settings") or "none"
        raise SettingsError(f"{deployed.name} has no parameter {one_line(unknown[0])!r}; it has: {names}")
    if lacking := [name for name in schema.get("required") or [] if name not in merged]:
        raise SettingsError(f"{deployed.name} needs {', '.join(lacking)}: {' '.join(f'--param {name}=...' for name in lacking)}")
    try:
        validate(merged, schema, raise_on_error=True)
    except ValidationError as error:
        raise SettingsError(f"{deployed.name}: {one_line(str(error), 300)}") from None


async def create_run(
    client: PrefectClient,
    deployed: Deployed,
    parameters: Mapping[str, Any],
    *,
    at: datetime | None = None,
    delivery: str | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Ask Prefect for a run of the deployment, as its API gives it back.

    Args:
        parameters: Beside those of the deployment.
        at: When; default: now.
        delivery: What a person said, by its id in the inbox.
        key: Asked again with the same key it is the same run.
    """
    values = dict(parameters)
    labels = {PERSON: "yes"}
    if delivery is not None:
        labels[LABEL] = delivery
        if "event" in (deployed.data.get("parameter_openapi_schema") or {}).get("properties", {}):
            values["event"] = delivery
    state: dict[str, Any] = {"type": "SCHEDULED", "name": "Scheduled"}
    if at is not None:
        state["state_details"] = {"scheduled_time": at.astimezone(UTC).isoformat()}
    body = {"state": state, "parameters": values, "labels": labels, "idempotency_key": key, "tags": [ONE_OFF] if at is not None else []}
    path = {"id": deployed.id}
    made = await client.request("POST", "/deployments/{id}/create_flow_run", path_params=path, json=body)
    run: dict[str, Any] = made.json()
    return run


async def schedule_once(
    client: PrefectClient, deployed: Deployed, at: datetime, parameters: Mapping[str, Any], text: str | None
) -> tuple[dict[str, Any], bool]:
    """A run at one time, and whether it is new: the same deployment has one run at one time, however often it is asked for.

    Raises:
        SettingsError: There is one at that time with other parameters or another text.
    """
    base = f"one-off {deployed.id} {at.astimezone(UTC).isoformat()}"
    earlier = await _one_offs(client, deployed, at)
    delivery = await record_text(text, base) if text is not None else None
    waiting = next((run for run in earlier if run["state_type"] == "SCHEDULED"), None)
    if waiting is not None:
        own = {name: value for name, value in waiting["parameters"].items() if name != "event"}
        wanted = {**(deployed.data.get("parameters") or {}), **parameters}
        if own != wanted or waiting["labels"].get(LABEL) != delivery:
            raise SettingsError(
                f"{deployed.name} is scheduled for that time already, with other parameters or another text; take that one away with "
                f"`routines schedule {deployed.name} --cancel --at ...`"
            )
        return waiting, False
    # one that was cancelled keeps its key: the next one at the same time is another
    made = await create_run(client, deployed, parameters, at=at, delivery=delivery, key=f"{base} {len(earlier)}")
    return made, True


async def _one_offs(client: PrefectClient, deployed: Deployed, at: datetime) -> list[dict[str, Any]]:
    """Its one-off runs for exactly this time, ended ones too."""
    moment = at.astimezone(UTC)
    times = {"after_": moment.isoformat(), "before_": moment.isoformat()}
    chosen = {"deployment_id": {"any_": [deployed.id]}, "tags": {"all_": [ONE_OFF]}, "expected_start_time": times}
    return await pages(client, "/flow_runs/filter", {"flow_runs": chosen})


async def cancel_run(client: PrefectClient, run: Mapping[str, Any]) -> None:
    """Take a scheduled run away; it stays on record as cancelled."""
    from prefect.states import Cancelled

    await client.set_flow_run_state(run["id"], Cancelled(message="Taken away with `routines schedule --cancel`"), force=True)
