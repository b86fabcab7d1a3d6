"""The session API as an OpenAPI document, made of its models. https://spec.openapis.org/oas/v3.1.1.html"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from prefect_routines.gateway import session_models as models
from prefect_routines.steering.form import Answer

Parameter = tuple[str, dict[str, Any], str]

_FILTERS: list[Parameter] = [
    ("routine", {"type": "string"}, "Only this routine's."),
    ("verdict", {"type": "string"}, "Only with this verdict."),
    ("without", {"type": "string"}, "All but those with this verdict, for example `nothing_to_do`."),
    ("state", {"type": "string"}, "Only in this state."),
    ("cursor", {"type": "string"}, "`next` of the page before."),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, "How many."),
]
_PAGE: list[Parameter] = [
    ("after", {"type": "integer", "minimum": 0, "default": 0}, "Only entries behind this number."),
    ("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}, "How many."),
]
_STREAM = (
    "Server-sent events. `entry` (its `id` is the entry's number: send the last one as Last-Event-ID to go on from there), `live` "
    "(the text of the turn under way from the character `at` on), `form`, `status` (a session), and `end` when the session has ended."
)
_WRONG = {
    "401": "No token, or one that is not known.",
    "403": "The token may not do this.",
    "404": "No such session, or not one of the token's.",
    "409": "Too late: the session is over, or somebody was first.",
    "413": "The body is too large.",
    "422": "Something does not fit; the message says what.",
    "429": "Too much in a minute.",
    "503": "Not just now; try it again.",
}


def _operation(
    name: str,
    summary: str,
    scope: str,
    gives: type[BaseModel] | None,
    *,
    takes: type[BaseModel] | None = None,
    status: str = "200",
    query: list[Parameter] | None = None,
) -> dict[str, Any]:
    """One method of one path."""
    json = {"application/json": {"schema": _ref(gives)}} if gives else {"text/event-stream": {"schema": {"type": "string"}}}
    wrong = {"application/json": {"schema": _ref(models.ErrorOut)}}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "description": f"Scope: {scope}.",
        "responses": {
            status: {"description": "Done.", "content": json},
            **{code: {"description": words, "content": wrong} for code, words in _WRONG.items()},
        },
    }
    if query:
        operation["parameters"] = [{"name": n, "in": "query", "schema": schema, "description": about} for n, schema, about in query]
    if takes:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(takes)}}}
    return operation


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _paths() -> dict[str, dict[str, Any]]:
    one, form = "/v1/sessions/{session}", "/v1/sessions/{session}/forms/{form}"
    answer = _operation("answer_form", "Answer a form; the first answer counts", "approve (a pause: steer)", models.FormOut, takes=Answer)
    stream = _operation("stream", "Watch a session", "read", None, query=_PAGE[:1])
    stream["description"] += f" {_STREAM}"
    message = _operation("send_message", "Send Claude a message", "steer", models.ActOut, takes=models.Message, status="202")
    resume = _operation("resume", "Go on with a session that has ended", "steer", models.Resumed, takes=models.ResumeRequest, status="202")
    paths: dict[str, dict[str, Any]] = {
        "/v1/sessions": {"get": _operation("list_sessions", "The newest sessions first", "read", models.SessionList, query=_FILTERS)},
        one: {"get": _operation("read_session", "A session", "read", models.SessionOut)},
        f"{one}/entries": {"get": _operation("read_entries", "Its journal", "read", models.EntryList, query=_PAGE)},
        f"{one}/stream": {"get": stream},
        f"{one}/messages": {"post": message},
        f"{one}/interrupt": {"post": _operation("interrupt", "Stop what is under way", "steer", models.ActOut, status="202")},
        f"{one}/suspend": {"post": _operation("suspend", "Have it wait for a person", "steer", models.ActOut, status="202")},
        f"{one}/cancel": {"post": _operation("cancel", "End it now", "steer", models.Cancelled)},
        f"{one}/resume": {"post": resume},
        f"{one}/forms": {"get": _operation("list_forms", "What it asked of people", "read", models.FormList)},
        form: {"get": _operation("read_form", "A form", "read", models.FormOut), "post": answer},
    }
    paths[f"{one}/cancel"]["post"]["responses"]["202"] = paths[f"{one}/cancel"]["post"]["responses"]["200"]
    for path, methods in paths.items():
        names = [name for name in ("session", "form") if f"{{{name}}}" in path]
        if names:
            methods["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    return paths


@cache
def document() -> dict[str, Any]:
    """The document. Its schemas come from the models that check what comes in, so they cannot say anything else."""
    given: list[type[BaseModel]] = [models.SessionOut, models.SessionList, models.EntryList, models.FormOut, models.FormList]
    given += [models.ActOut, models.Cancelled, models.Resumed, models.ErrorOut]
    taken: list[type[BaseModel]] = [models.Message, models.ResumeRequest, Answer]
    wanted = [(model, "serialization") for model in given] + [(model, "validation") for model in taken]
    _, schemas = models_json_schema(wanted, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]  # literals, widened
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sessions of prefect-routines",
            "version": version("prefect-routines"),
            "description": "Read sessions, and steer them. Tokens come from `routines token create`. What is done is journaled under the "
            "token's name.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }
