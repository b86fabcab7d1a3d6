"""What the gateway asks of Prefect's server, in the words of its API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from prefect_routines.errors import RoutinesError
from prefect_routines.gateway.targets import Target, targets_of
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from types import TracebackType

    from prefect.server.events.schemas.events import ReceivedEvent

_PAGE = 200
_FRESH = 5.0  # seconds for which the list of deployments is taken as it was


class PrefectAway(RoutinesError):
    """Prefect's server does not answer, or not with what was asked: try again later."""


class PrefectRefused(RoutinesError):
    """Prefect's server does not take a request, and would not take it later."""


class PrefectServer:
    """A client of Prefect's API that remembers deployments and automations for a few seconds.

    Example:
        ```python
        async with PrefectServer() as prefect:
            for target in await prefect.targets():
                print(target.deployment)
        ```
    """

    def __init__(self) -> None:
        self._deployments: dict[str, dict[str, Any]] = {}
        self._targets: list[Target] = []
        self._read_at = -_FRESH
        self._reading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        from prefect import get_client

        self._client = get_client()
        await self._client.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def _ask(self, path: str, body: Any, method: str = "POST") -> Any:
        import httpx
        from prefect.exceptions import PrefectHTTPStatusError

        try:
            answer = await self._client.request(method, path, json=body)  # type: ignore[arg-type]
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            # a wrong login (401, 403) is mended by people, and then what was delivered shall go on
            kind = PrefectRefused if 400 <= status < 500 and status not in (401, 403, 408, 425, 429) else PrefectAway
            raise kind(f"Prefect answered {status}: {one_line(error.response.text, 200)}") from error
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            raise PrefectAway(f"Prefect does not answer ({one_line(str(error)) or type(error).__name__})") from error
        return answer.json() if answer.content else None

    async def _pages(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = await self._ask(path, {**body, "limit": _PAGE, "offset": len(found)})
            found += page
            if len(page) < _PAGE:
                return found

    async def _read(self, *, fresh: bool = False) -> None:
        """Deployments and automations, unless they were read a moment ago."""
        async with self._reading:
            if not fresh and time.monotonic() - self._read_at < _FRESH:
                return
            deployments, automations, flows = await asyncio.gather(
                self._pages("/deployments/filter", {}), self._pages("/automations/filter", {}), self._pages("/flows/filter", {})
            )
            names = {flow["id"]: flow["name"] for flow in flows}
            self._deployments = {one["id"]: one | {"flow_name": names.get(one["flow_id"], "?")} for one in deployments}
            self._targets = targets_of(automations, self._deployments)
            self._read_at = time.monotonic()

    async def targets(self, *, fresh: bool = False) -> list[Target]:
        """Each deployment with each of its event triggers.

        Raises:
            PrefectAway: The server does not answer.
        """
        await self._read(fresh=fresh)
        return self._targets

    async def deployments(self, *, fresh: bool = False) -> Mapping[str, Mapping[str, Any]]:
        """All deployments by id, as the API gives them, with `flow_name`."""
        await self._read(fresh=fresh)
        return self._deployments

    async def emit(self, events: Sequence[ReceivedEvent]) -> None:
        """Hand events over. An answer is no promise: a server that dies right after it may have lost them."""
        await self._ask("/events", [event.model_dump(mode="json", exclude={"received"}) for event in events])

    async def runs(self, deployment_ids: Iterable[str], since: datetime) -> list[dict[str, Any]]:
        """The runs of these deployments that were made since then."""
        chosen = {"deployment_id": {"any_": sorted(deployment_ids)}, "expected_start_time": {"after_": since.isoformat()}}
        return await self._pages("/flow_runs/filter", {"flow_runs": chosen, "sort": "EXPECTED_START_TIME_DESC"})

    async def states(self, run_ids: Iterable[str]) -> dict[str, str]:
        """The state types of runs; a run that was deleted is missing."""
        ids = sorted(run_ids)
        found = await self._pages("/flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}}) if ids else []
        return {run["id"]: run["state_type"] or "SCHEDULED" for run in found}

    async def create_run(self, deployment_id: str, parameters: Mapping[str, Any], *, key: str, labels: Mapping[str, str]) -> str:
        """Make a run of a deployment; asked again with the same key it is the same run. Its id."""
        body = {"state": {"type": "SCHEDULED"}, "parameters": dict(parameters), "idempotency_key": key, "labels": dict(labels)}
        made = await self._ask(f"/deployments/{deployment_id}/create_flow_run", body)
        return str(made["id"])
