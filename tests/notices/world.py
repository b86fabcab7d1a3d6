"""A session that waits for a person, as the store knows it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from prefect_routines.steering.form import call_hash
from prefect_routines.store import Form, FormKind, SessionRecord, Store


def asked(number: int = 1, **fields: Any) -> dict[str, Any]:
    """A call that waits."""
    arguments = fields.pop("arguments", {"channel": "#docs", "text": "The guide is up to date."})
    tool = fields.pop("tool", "slack_post")
    call = {"id": f"toolu_{number}", "tool": tool, "title": f"{tool} to #docs", "arguments": arguments, "hash": call_hash(tool, arguments)}
    call |= {"target": "#docs", "reason": "no rule allows it", "like": f"{tool}(channel=#docs)", "editable": True}
    return call | fields


async def waiting(
    store: Store, *calls: dict[str, Any], kind: FormKind = "approval", seconds: float | None = 3600, **content: Any
) -> tuple[SessionRecord, Form]:
    """A session, and the form that it waits for."""
    record = await store.create_session(session_id=f"ses-{uuid4().hex[:12]}", routine="docs-sync", flow_run_id=str(uuid4()))
    lease = await store.acquire(record.id)
    async with store.keep(lease):
        shown = {"calls": list(calls or [asked()]), "questions": [], **content}
        form = await store.open_form(lease, f"frm-{uuid4().hex}", key="turn-1", kind=kind, content=shown, flow_run_id=None, seconds=seconds)
        await store.update_session(lease, status="suspended")
    return record, form
