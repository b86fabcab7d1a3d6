"""Asking for a run that goes on with an earlier session: for the command line, the gateway, and whoever else may."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import ValidationError

from prefect_routines.deploying.deployed import Deployed
from prefect_routines.deploying.starting import create_run
from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.session.continuing import check_begun, check_routine
from prefect_routines.session.forking import cut
from prefect_routines.settings import Resume, first_problem
from prefect_routines.visible import one_line, storable

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.store import SessionRecord, Store


class AlreadyResumed(RoutinesError):
    """Somebody else was quicker: a run with another message goes on with the session."""

    def __init__(self, session_id: str, flow_run_id: str) -> None:
        super().__init__(
            f"session {session_id} is being resumed already, by flow run {flow_run_id}; wait for what comes of it, then resume it again"
        )
        self.session_id, self.flow_run_id = session_id, flow_run_id


class NoDeployment(SettingsError):
    """The session was not started by a deployment, so there is nothing that Prefect could run."""


async def resume(
    store: Store,
    session_id: str,
    message: str,
    *,
    by: str,
    fork: bool = False,
    at: int | None = None,
    transcript_only: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """Start a run of the session's deployment that goes on with it; the id of the flow run.

    Asked twice with the same words it is the same run; of two who ask at once with different ones, one wins.

    Args:
        session_id: The whole id.
        message: The follow-up.
        by: Who asks; the journal keeps it.
        fork: Begin a new session with a copy of the conversation.
        at: With `fork`: the journal entry up to which it is copied.
        transcript_only: Go on with fresh clones when the workspace is lost.
        settings: Further overrides of the settings, beside those that the former run had.

    Raises:
        NoDeployment: It was started without one.
        AlreadyResumed: Somebody else has resumed it with other words.
        SettingsError: There is no such session, it is at work or waits for an answer, or something given does not fit.

    Example:
        ```python
        async with await Store.open() as store:
            flow_run = await resume(store, "ses-68a1...", "Mention the new flag, too.", by="ada")
        ```
    """
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    record, wanted = await prepared(store, session_id, message, by=by, fork=fork, at=at, transcript_only=transcript_only)
    if record.deployment_id is None:
        raise NoDeployment(f"session {record.id} was not started by a deployment; run its routine here, with --path FILE.py[:ROUTINE]")
    async with get_client() as client:
        former = await former_run(client, record)
        if not fork:
            _check_waiting(record, former)
        parameters = resumed_parameters(former, wanted, settings)
        try:
            answer = await client.request("GET", "/deployments/{id}", path_params={"id": record.deployment_id})
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:
                raise
            gone = f"the deployment of session {record.id} is gone; deploy it again, or run its routine here with --path FILE.py[:ROUTINE]"
            raise NoDeployment(gone) from error
        deployed = Deployed(record.routine, answer.json())
        try:
            run = await _create(client, deployed, parameters, None if fork else f"resume {record.id} {wanted['seen']}")
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in (409, 422):
                raise
            said = one_line(error.response.text, 200)
            raise SettingsError(f"{deployed.name} does not take this ({said}); if it is older, `routines deploy` it again") from error
    given = (run["parameters"].get("settings") or {}).get("resume") or {}
    if not fork and given.get("message") != wanted["message"]:
        raise AlreadyResumed(record.id, run["id"])
    return str(run["id"])


async def prepared(
    store: Store, session_id: str, message: str, *, by: str, fork: bool, at: int | None, transcript_only: bool
) -> tuple[SessionRecord, dict[str, Any]]:
    """The session, and the override `resume` that goes on with it as it is now.

    Raises:
        SettingsError: There is no such session, it is at work, or something given does not fit.
    """
    record = await store.session(session_id)
    if record is None:
        raise SettingsError(f"session {one_line(session_id, 80)}: there is no such session in the store. `routines sessions` lists them.")
    check_routine(record, record.routine)
    entries = await store.entries(record.id)
    check_begun(record, entries)
    if fork:
        cut(entries, at)
    elif record.leased_until is not None and record.leased_until > datetime.now(UTC):
        raise SettingsError(
            f"session {record.id} is being run now; wait for its end, or stop it first (a killed process is noticed within half a minute)"
        )
    given = {"session": record.id, "message": storable(message), "fork": fork, "at": at, "transcript_only": transcript_only, "by": by}
    try:
        checked = Resume.model_validate({**given, "seen": entries[-1].seq})
    except ValidationError as error:
        raise SettingsError(f"resume: {first_problem(error)}") from None
    return record, checked.model_dump(mode="json", exclude_none=True)


def resumed_parameters(former: Mapping[str, Any] | None, wanted: dict[str, Any], settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those of the former run, with the follow-up among the overrides of its settings."""
    parameters = dict(former["parameters"]) if former is not None else {}
    overrides = {name: value for name, value in (parameters.get("settings") or {}).items() if name != "resume"}
    parameters["settings"] = {**_over(overrides, settings or {}), "resume": wanted}
    return parameters


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides with changes to them, group by group."""
    both = [name for name, value in changes.items() if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)]
    inner = {name: _over(base[name], changes[name]) for name in both}
    return {**base, **changes, **inner}


async def former_run(client: PrefectClient, record: SessionRecord) -> dict[str, Any] | None:
    """The run that worked on the session last, as Prefect's API has it; None when it is deleted."""
    from prefect.exceptions import PrefectHTTPStatusError

    if record.flow_run_id is None:
        return None
    try:
        answer = await client.request("GET", "/flow_runs/{id}", path_params={"id": UUID(record.flow_run_id)})
    except PrefectHTTPStatusError as error:
        if error.response.status_code == 404:
            return None
        raise
    found: dict[str, Any] = answer.json()
    return found


def _check_waiting(record: SessionRecord, former: Mapping[str, Any] | None) -> None:
    """Refuse a session that waits for an answer in its own run.

    Raises:
        SettingsError: It does.
    """
    if record.status == "suspended" and former is not None and former.get("state_type") == "PAUSED":
        raise SettingsError(f"session {record.id} waits for an answer in its run {former['name']}; give that, or cancel the run first")


async def _create(client: PrefectClient, deployed: Deployed, parameters: dict[str, Any], key: str | None) -> dict[str, Any]:
    """The run that goes on with the session as it is now. One that was cancelled before it could begin does not count."""
    for attempt in range(100):
        run = await create_run(client, deployed, parameters, key=f"{key} {attempt}" if key else None)
        if run.get("state_type") not in ("CANCELLED", "FAILED", "CRASHED", "COMPLETED"):
            return run
    raise SettingsError(f"{deployed.name}: its runs end before they begin; look at them in Prefect")
