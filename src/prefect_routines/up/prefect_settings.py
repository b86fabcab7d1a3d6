"""What Prefect is set to, read by a process of its own: Prefect costs 1 s and 80 MB, and `routines up` lives long.

Run as a program it prints JSON on stdout, which may hold logins: it is meant for the pipe of its parent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line


@dataclass(frozen=True)
class PrefectSettings:
    """What `routines up` needs to know of Prefect's settings, from the environment, the profile and prefect.toml.

    Args:
        api_url: Where Prefect's clients look for the API; None if nobody said.
        host: Of a server to be started.
        port: Of a server to be started.
        chosen: Names of the settings that the user has made.
        api_key: Login of Prefect Cloud.
        auth_string: Login (`user:password`) of a server with basic authentication.
        verify: False if TLS certificates are not to be checked.
        certificates: File with the certificate authorities; None for the usual ones.
    """

    api_url: str | None
    host: str
    port: int
    chosen: frozenset[str]
    api_key: str | None = field(default=None, repr=False)
    auth_string: str | None = field(default=None, repr=False)
    verify: bool = True
    certificates: str | None = None


def read() -> PrefectSettings:
    """Read them.

    Raises:
        SettingsError: Prefect refuses its settings.
    """
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise SettingsError("Prefect did not say within 60 s what it is set to: look with `prefect config view`") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        why = one_line(said[-1], 200) if said else f"status {done.returncode}"
        raise SettingsError(f"Prefect refuses its settings ({why}): look with `prefect config view` and correct them")
    found = json.loads(done.stdout.splitlines()[-1])
    return PrefectSettings(**{**found, "chosen": frozenset(found["chosen"])})


def main() -> None:
    """Print them."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    api = settings.api
    json.dump(
        {
            "api_url": api.url,
            "host": settings.server.api.host,
            "port": settings.server.api.port,
            "chosen": sorted(settings.to_environment_variables(exclude_unset=True)),
            "api_key": api.key.get_secret_value() if api.key else None,
            "auth_string": api.auth_string.get_secret_value() if api.auth_string else None,
            "verify": not api.tls_insecure_skip_verify,
            "certificates": str(api.ssl_cert_file) if api.ssl_cert_file else None,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
