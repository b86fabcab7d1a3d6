"""A session as data: the JSON that `--json` prints. Its keys are stable: new ones may come, none goes or changes its meaning.

```
{"session":  {"id", "routine", "name", "status", "verdict", "summary", "turns", "tokens", "dollars", "flow_run_id", "deployment_id",
              "event_id", "created_at", "started_at", "ended_at", "workspace", "data"},
 "entries":  [{"seq", "at", "kind", "data"}, ...],                 the journal, oldest first
 "outputs":  [{"id", "tool_use_id", "tool", "target", "rule", "status", "request", "result", "created_at", "finished_at"}, ...],
 "spend":    {"dollars", "reserved_dollars", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "attempts"}}
```

Times are ISO 8601 in UTC, money is US dollars. `status` is `running`, `stopped` (its process is gone), `idle`, `suspended` or `ended`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect_routines.store import SessionRecord, Store


def shown_status(record: SessionRecord) -> str:
    """The status of a session; `stopped` when it says running and nobody holds it any more: its process was killed."""
    return record.state


def session_data(record: SessionRecord) -> dict[str, Any]:
    """One session as lists have it."""
    fields = asdict(record) | {"status": shown_status(record)}
    del fields["leased_until"]
    return fields


async def up_to_date(store: Store, record: SessionRecord) -> SessionRecord:
    """The record with the totals of now: the store's own are written at the end of a session."""
    if record.status == "ended":
        return record
    spent = await store.spent(session_id=record.id)
    turns = sum(entry.kind == "agent.message" for entry in await store.entries(record.id))
    return replace(record, turns=turns, tokens=spent.tokens, dollars=spent.dollars)


async def whole_session(store: Store, record: SessionRecord) -> dict[str, Any]:
    """Everything that is known of one session."""
    return {
        "session": session_data(await up_to_date(store, record)),
        "entries": [entry._asdict() for entry in await store.entries(record.id)],
        "outputs": [{k: v for k, v in asdict(output).items() if k != "session_id"} for output in await store.outputs(record.id)],
        "spend": asdict(await store.spent(session_id=record.id)),
    }


def print_json(value: Any) -> None:
    """Print as JSON, in ASCII: whatever a session contains, every program can read it and no terminal acts on it."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True, default=_plain) + "\n")


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
