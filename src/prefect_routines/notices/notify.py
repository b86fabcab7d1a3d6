"""Has people and services told of a session: written down here, sent by the gateway and the workers."""

from __future__ import annotations

from collections.abc import Collection

from prefect_routines.config import config
from prefect_routines.steering.telling import write_down
from prefect_routines.store import NoticeKind, Store


async def notify(store: Store, session_id: str, kind: NoticeKind, subject: str, told: Collection[str] = (), *, now: bool = False) -> int:
    """Have people and services told, each once however often this is called. Returns how many are new.

    Args:
        kind: `started`, `approval` (a form waits) or `finished`.
        subject: What it is about: the form's id, else the flow run's. A session that goes on in another run is told of again.
        told: The routine's setting `notify`; those of `ROUTINES_NOTIFY` are told as well.
        now: Try at once to send what is due of the session, for a run that perhaps nobody else sends for. What fails stays due.

    Example:
        ```python
        await notify(store, record.id, "approval", form.id, settings.notify)
        ```
    """
    new = await write_down(store, session_id, kind, subject, told)
    if now and (told or config().notify):
        from prefect_routines.notices.sender import deliver

        await deliver(store, session_id)
    return new
