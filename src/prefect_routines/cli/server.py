"""The Prefect server that commands talk to; when it does not answer, one line that says what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect import get_client
from prefect.exceptions import PrefectHTTPStatusError

from prefect_routines.cli.terminal import note
from prefect_routines.errors import RoutinesError, SettingsError
from prefect_routines.visible import one_line


@contextmanager
def prefect_errors() -> Iterator[None]:
    """When Prefect cannot be reached or refuses, one line that says what to do."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    try:
        yield
    except PrefectHTTPStatusError as error:
        said = one_line(error.response.text, 300)
        status = error.response.status_code
        raise SettingsError(f"Prefect at {url} answered {status}: {said}; check PREFECT_API_URL and PREFECT_API_KEY") from error
    except (httpx.TransportError, httpx.InvalidURL, RuntimeError) as error:
        where = f"Prefect cannot be reached at {url}" if url else "Prefect's temporary server did not start"
        cause = one_line(str(error)) or type(error).__name__
        raise SettingsError(f"{where} ({cause}): run `prefect server start`, or correct PREFECT_API_URL") from error


@contextmanager
def saving() -> Iterator[None]:
    """Around what a script does to save blocks: what goes wrong ends it with one line on standard error, and status 1.

    The line shows nothing of what was given: that may be a secret.

    Example:
        ```python
        with saving():
            Grafana(url=url, token=token).save("production", overwrite=True)
        ```
    """
    from pydantic import ValidationError

    from prefect_routines.settings import first_problem

    try:
        with prefect_errors():
            yield
    except ValidationError as error:
        sys.exit(f"error: {one_line(first_problem(error), 1000)}")
    except RoutinesError as error:
        sys.exit(f"error: {error}")


@contextmanager
def prefect_api() -> Iterator[Any]:
    """A client of Prefect's API; when it cannot be reached or refuses, one line that says what to do."""
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is None:
        note("No PREFECT_API_URL is set: Prefect starts a server for this run only; it takes a while (`prefect server start` keeps one).")
    with prefect_errors(), get_client(sync_client=True) as client:
        yield client
