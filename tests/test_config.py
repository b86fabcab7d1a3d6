"""The machine's settings: what they come to."""

from __future__ import annotations

import pytest

from prefect_routines.config import Config


@pytest.mark.parametrize(
    ("url", "links", "told"),
    [
        ("http://127.0.0.1:4280", None, False),
        ("http://localhost:4280", None, False),
        ("http://[::1]:4280", None, False),
        ("https://routines.example.org/", None, True),
        ("https://routines.example.org", False, False),
        ("http://127.0.0.1:4280", True, True),
    ],
)
def test_the_page_is_named_outside_where_others_can_reach_it(url: str, links: bool | None, told: bool) -> None:
    """Or as the operator says."""
    config = Config(gateway_url=url, session_links=links)
    assert config.session_page("ses-1") == f"{url.rstrip('/')}/sessions/ses-1"
    assert config.public_session_page("ses-1") == (config.session_page("ses-1") if told else None)
