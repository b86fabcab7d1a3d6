"""Addresses of services, as blocks hold them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def _usable(value: str) -> str:
    try:
        parts = urlsplit(value)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not close, a port that is no number
        whole = False
    if not whole:
        raise ValueError("it is no address of a service; write it as https://HOST or https://HOST/PATH")
    if parts.username is not None:  # it would be shown wherever the address is
        raise ValueError("no login belongs into an address; there are fields for it")
    return value


Address = Annotated[str, AfterValidator(_usable)]
"""An http or https address without a login in it. What is wrong is said without showing what was given."""
