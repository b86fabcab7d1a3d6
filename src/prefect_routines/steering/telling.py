"""Writes down that people and services are to be told of a session. Sending is another's: see `notices`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from prefect_routines.audience import notice_targets
from prefect_routines.config import config
from prefect_routines.errors import SettingsError
from prefect_routines.store import NoticeKind, Store

# People are asked, and not told of all that goes on; a webhook's block says itself what it wants.
_USUAL: dict[str, frozenset[str]] = {"slack": frozenset({"approval"}), "email": frozenset({"approval"})}
_log = logging.getLogger(__name__)


async def write_down(store: Store, session_id: str, kind: NoticeKind, subject: str, told: Iterable[str] = ()) -> int:
    """Have people and services told, each once however often this is called. Returns how many are new.

    Args:
        kind: `started`, `approval` (a form waits) or `finished`.
        subject: What it is about: the form's id, else the flow run's. A session that goes on in another run is told of again.
        told: The routine's setting `notify`; those of `ROUTINES_NOTIFY` are told as well.
    """
    try:
        everywhere = operators_targets()
    except SettingsError as error:  # no reason for a session to fail
        _log.warning("%s", error)
        everywhere = []
    wanted = [target for target, kinds in notice_targets([*told, *everywhere]).items() if kind in (kinds or _usual(target))]
    return await store.record_notices(session_id, kind, subject, wanted)


def operators_targets() -> list[str]:
    """Who is told of all routines' sessions.

    Raises:
        SettingsError: `ROUTINES_NOTIFY` names something that cannot be told.
    """
    names = [name.strip() for name in config().notify.split(",") if name.strip()]
    try:
        notice_targets(names)
    except ValueError as error:
        raise SettingsError(f"ROUTINES_NOTIFY: {error}") from None
    return names


def _usual(target: str) -> frozenset[str]:
    return _USUAL.get(target.partition("/")[0], frozenset({"started", "approval", "finished"}))
