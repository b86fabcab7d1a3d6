"""Which silence alarms have fired lately, as Prefect's event feed has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PREFIX = "routines: "
"""What the names of our automations begin with."""


class Fired(NamedTuple):
    """An alarm that has fired.

    Args:
        what: The automation's name without our prefix, such as 'docs-sync/weekly does not start'.
        at: When.
    """

    what: str
    at: datetime


async def recent_alarms(client: PrefectClient, hours: float = 24) -> list[Fired]:
    """The silence alarms that fired in the last hours, newest first.

    Args:
        client: Of Prefect's API.
        hours: How far to look back; Prefect keeps events for seven days unless it is told otherwise.

    Example:
        ```python
        async with get_client() as client:
            for fired in await recent_alarms(client):
                print(fired.at, fired.what)
        ```
    """
    since = datetime.now(UTC) - timedelta(hours=hours)
    asked = {
        "event": {"name": ["prefect.automation.triggered"]},
        "resource": {"labels": {"prefect.resource.name": f"{PREFIX}*"}},
        "occurred": {"since": since.isoformat(), "until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()},
        "order": "DESC",
    }
    answer = await client.request("POST", "/events/filter", json={"filter": asked, "limit": 50})
    return [
        Fired(str(event["resource"]["prefect.resource.name"]).removeprefix(PREFIX), datetime.fromisoformat(event["occurred"]))
        for event in answer.json()["events"]
        if str(event["resource"].get("prefect.resource.name", "")).startswith(PREFIX)
    ]
