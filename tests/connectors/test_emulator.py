"""The emulator that other tests rest on."""

from __future__ import annotations

from typing import Literal

import httpx
import pytest

from .emulator import Emulator


@pytest.mark.parametrize(
    ("service", "method", "path", "field"),
    [("github", "GET", "/user", "login"), ("slack", "POST", "/api/auth.test", "user_id"), ("google", "GET", "/drive/v3/files", "files")],
)
def test_each_service_answers(
    emulator: Emulator, service: Literal["github", "slack", "google"], method: str, path: str, field: str
) -> None:
    """Each service answers on a port of its own, and stops when it is no longer needed."""
    with emulator.start(service) as one, emulator.start(service) as other:
        assert one.url != other.url
        for running in (one, other):
            answer = httpx.request(method, running.url + path, headers={"Authorization": "Bearer a-token"})
            assert field in answer.json(), answer.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(one.url + path)
