"""Where this machine keeps things: environment variables with the prefix `ROUTINES_`, read once and in one place."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


def _prefect_home() -> Path:
    """Prefect's own rule (`PREFECT_HOME`, else `~/.prefect`), without importing Prefect (3 s of CPU)."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser().absolute()


class Config(BaseSettings):
    """Settings of the machine, not of a routine (those are `prefect_routines.Settings`).

    Example:
        ```console
        $ ROUTINES_DATABASE_URL=postgresql+asyncpg://routines@db/routines routines sessions
        ```
    """

    model_config = SettingsConfigDict(env_prefix="ROUTINES_", extra="ignore")

    home: Path = Field(
        default_factory=lambda: _prefect_home() / "routines",
        description="Directory of the host's own data: git mirrors, results of setup scripts, the SQLite store, logs of `routines up`.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL of the session store. Default: SQLite in `home`. PostgreSQL as soon as there are two machines.",
    )
    workspaces: Path = Field(
        default_factory=lambda: Path("/var/lib/prefect-routines") if os.getuid() == 0 else _prefect_home() / "routines" / "workspaces",
        description="Directory of the sessions' workspaces. As root it must be reachable by other users: "
        "sessions run under a uid of their own.",
    )
    gateway_url: str = Field(
        default="http://127.0.0.1:4280",
        description="Address under which senders reach the gateway; `routines deploy` and `routines show` tell it.",
    )
    session_links: bool | None = Field(
        default=None,
        description="Whether commits and pull requests of sessions name the address of the session's page. Default: if `gateway_url` is "
        "no address of this machine alone.",
    )
    gateway_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Key under which the gateway keeps its sources on disk, so that it can start while Prefect is down; for example "
        "from `openssl rand -hex 32`. Default: they are kept in memory only.",
    )
    gateway_max_body: int = Field(default=25_000_000, ge=1000, description="Most bytes of a delivery. GitHub sends at most 25 MB.")
    gateway_body_seconds: float = Field(default=30.0, gt=0, description="Seconds in which a sender must have sent its request.")
    gateway_concurrency: int = Field(default=200, ge=2, description="Requests that are worked on at the same time.")
    gateway_fires_per_minute: int = Field(default=120, ge=1, description="Fire calls for one routine in a minute.")
    gateway_failures_per_minute: int = Field(
        default=60, ge=1, description="Wrong signatures and tokens from one address in a minute, before it has to wait."
    )
    gateway_streams: int = Field(default=100, ge=1, description="People and programs that watch sessions at the same time.")
    gateway_forwarded_from: str = Field(
        default="127.0.0.1", description="Addresses of reverse proxies, with commas, whose X-Forwarded-For is believed."
    )
    inbox_days: float = Field(
        default=30, gt=0, description="Days for which deliveries are kept. One that comes again within that time is a duplicate."
    )
    transcript_days: float | None = Field(
        default=None, gt=0, description="Days after its end for which `routines prune` keeps a session's transcript. Default: for ever."
    )
    workspace_days: float = Field(
        default=7, gt=0, description="Days after its end for which `routines prune` keeps a session's workspace; it can be had anew."
    )
    alarm_block: str | None = Field(
        default=None,
        description="Notification block of Prefect that the silence alarms tell, such as slack-webhook/ops. Default: they only show.",
    )
    alarm_late_minutes: float = Field(default=5, gt=0, description="How long a run may be late before the alarm; for `routines deploy`.")
    notify: str = Field(
        default="",
        description="Who is told of all routines' sessions, with commas, as the setting `notify` of a routine: "
        "notice-webhook/ci, slack/docs#ops approval finished.",
    )
    lease_seconds: float = Field(default=30.0, gt=1, description="How long a session stays taken after its process was last heard of.")
    sandbox_python: str | None = Field(
        default=None,
        description="Python interpreter under /usr that serves the tools inside the sandbox. Default: the first of /usr/bin/python3, "
        "/usr/local/bin/python3 that runs.",
    )

    def session_page(self, session_id: str) -> str:
        """Address of a session's page."""
        return f"{self.gateway_url.rstrip('/')}/sessions/{session_id}"

    def public_session_page(self, session_id: str) -> str | None:
        """The address for commits and pull requests; None if they are not to name it."""
        host = urlsplit(self.gateway_url).hostname or ""
        here = host in ("localhost", "::1") or host.startswith("127.")
        wanted = not here if self.session_links is None else self.session_links
        return self.session_page(session_id) if wanted else None


@cache
def config() -> Config:
    """The configuration of this process, read from the environment at first use."""
    return Config()
