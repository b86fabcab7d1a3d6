"""A connector's login shows up nowhere: whatever the service does with it, nothing that is kept or shown holds it."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from pydantic import SecretStr

from prefect_routines.config import config
from prefect_routines.connectors.prometheus import Prometheus
from prefect_routines.testing import ScriptedClaude, call, say
from session.world import REPORT, artifacts, run

from .http_service import Asked, Said, serving

TOKEN = "a-Very/secret+token=" + "x" * 20


def tell_all(asked: Asked) -> Said:
    """A service that repeats what it was sent, in all ways it can think of, as an answer or as an error."""
    login = asked.headers.get("authorization", asked.headers.get("Authorization", ""))
    token = login.removeprefix("Bearer ")
    told = [login, base64.b64encode(token.encode()).decode(), token.encode().hex(), json.dumps(token), quote(token, safe="")]
    if asked.query.get("query") == "fail":
        return Said({"status": "error", "error": f"bad login {told}"}, status=422)
    series = {"metric": {"told": str(told)}, "value": [0, "1"]}
    return Said({"status": "success", "data": {"resultType": "vector", "result": [series]}, "warnings": told})


@pytest.fixture
def saved(prefect_server: str) -> Any:
    assert prefect_server
    with serving(tell_all) as service:
        Prometheus(url=service.url, token=SecretStr(TOKEN)).save("leaky", overwrite=True)
        yield service
    Prometheus.delete("leaky")


def traces(text: str) -> list[str]:
    """The forms of the token that a text holds."""
    forms = [TOKEN, TOKEN.encode().hex(), base64.b64encode(TOKEN.encode()).decode()[:12], TOKEN[:12], quote(TOKEN, safe="")]
    return [form for form in forms if form in text]


async def test_nothing_that_is_kept_or_shown_holds_it(saved: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the journal nor requests to Claude, nor Prefect's database with parameters, states, names and artifacts, nor the log."""
    caplog.set_level(logging.INFO)
    queries = [call("prometheus_query", query="ok"), call("prometheus_query", query="fail")]
    calls = say(*queries, call("bash", command="env; cat /proc/*/environ"))
    with ScriptedClaude([calls, REPORT]) as claude:
        ran = await run(claude, connectors=["prometheus/leaky"])
    assert len(saved.asked) == 2
    assert all(TOKEN in json.dumps(dict(asked.headers)) for asked in saved.asked), "the service did get it"
    assert ran.state.is_completed(), ran.message
    results = ran.requests[1].results
    assert "[secret]" in results[0].text
    assert "[secret]" in results[1].text
    assert results[1].is_error
    assert traces(json.dumps([entry.data for entry in ran.journal])) == []
    assert traces(json.dumps([request.body for request in ran.requests])) == []
    assert traces(json.dumps(await artifacts(ran.run.id))) == []
    assert traces(caplog.text) == []
    async with get_client() as client:
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[ran.run.id]))
        tasks = await client.read_task_runs(flow_run_filter=of_run)
        states = [await client.read_task_run_states(each.id) for each in tasks]
    assert traces(str(ran.run) + str(tasks) + str(states)) == []
    store = sqlite3.connect(f"file:{config().home / 'routines.db'}?mode=ro", uri=True) if (config().home / "routines.db").exists() else None
    assert store is None or traces("\n".join(store.iterdump())) == []
    for path in Path(config().workspaces).rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert traces(path.read_bytes().decode("utf-8", "replace")) == [], path
