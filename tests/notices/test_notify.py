"""Who is told what: the routine's setting and the operator's, people only when they are needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from prefect_routines.audience import notice_targets
from prefect_routines.errors import SettingsError
from prefect_routines.notices.notify import notify
from prefect_routines.settings import Settings, SettingsOverride, merge
from prefect_routines.steering.acts import Person, cancel
from prefect_routines.steering.telling import operators_targets
from prefect_routines.store import Store

from .world import waiting


async def test_people_are_told_when_they_are_needed_and_webhooks_of_all(store: Store, configure: Callable[..., None]) -> None:
    """Unless a setting says otherwise; the operator's come on top, and none is told twice."""
    configure(ROUTINES_NOTIFY="notice-webhook/all, slack/docs#ops")
    record, form = await waiting(store)
    told = ["slack/docs#ops", "email/ops#ada@acme.com finished", "notice-webhook/ci approval"]
    assert await notify(store, record.id, "started", "run-1", told) == 1
    assert await notify(store, record.id, "approval", form.id, told) == 3
    assert await notify(store, record.id, "finished", "run-1", told) == 2
    found = {(notice.kind, notice.target) for notice in await store.notices(session_id=record.id)}
    assert found == {
        *(("started", target) for target in ("notice-webhook/all",)),
        *(("approval", target) for target in ("slack/docs#ops", "notice-webhook/all", "notice-webhook/ci")),
        *(("finished", target) for target in ("notice-webhook/all", "email/ops#ada@acme.com")),
    }


async def test_a_slip_of_the_operator_fails_no_session(store: Store, configure: Callable[..., None]) -> None:
    """The gateway says so when it starts."""
    configure(ROUTINES_NOTIFY="slack")
    record, form = await waiting(store)
    assert await notify(store, record.id, "approval", form.id, ["slack/docs"]) == 1
    with pytest.raises(SettingsError, match="ROUTINES_NOTIFY: 'slack' names nobody"):
        operators_targets()


async def test_the_end_of_a_session_that_is_cancelled_while_it_waits_is_told(store: Store, configure: Callable[..., None]) -> None:
    """It has no process that could: whoever cancels it does."""
    configure(ROUTINES_NOTIFY="notice-webhook/all")
    record, _ = await waiting(store)
    lease = await store.acquire(record.id)
    async with store.keep(lease):
        await store.update_session(lease, data={"notify": ["notice-webhook/ci", "slack/docs#ops", "email/ops finished"]})
    assert await cancel(store, await store.find(record.id), Person("ada", "cli")) == "cancelled"
    assert (await store.find(record.id)).status == "ended"
    told = {(notice.kind, notice.target) for notice in await store.notices(session_id=record.id)}
    assert told == {("finished", target) for target in ("notice-webhook/all", "notice-webhook/ci", "email/ops")}


@pytest.mark.parametrize(
    "name", ["", "slack", "slack/", "github/docs-bot", "slack/docs ops", "slack/docs#", "email/ops#a b", "slack/docs#a#b"]
)
def test_what_names_nobody_is_refused(name: str) -> None:
    """When the routine is defined, with the form that is wanted."""
    with pytest.raises(ValueError, match="names nobody who can be told"):
        Settings(notify=[name])


def test_a_deployment_can_tell_others() -> None:
    """A list replaces; kinds add up."""
    base = Settings(notify=["slack/docs"])
    assert merge(base, SettingsOverride(notify=["email/ops"])).notify == ["email/ops"]  # type: ignore[call-arg]
    assert merge(base, SettingsOverride(notify=[])).notify == []  # type: ignore[call-arg]
    assert notice_targets(["slack/docs#a started", "slack/docs#a finished"]) == {"slack/docs#a": frozenset({"started", "finished"})}
