"""What is decided before anything starts: whose server, which ports, which settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from ports import free_port
from prefect_routines.config import Config
from prefect_routines.errors import SettingsError
from prefect_routines.up import Wishes, make_plan
from prefect_routines.up.parts import SERVER_SETTINGS
from prefect_routines.up.plan import Plan
from prefect_routines.up.prefect_settings import PrefectSettings, read

REST = ["worker", "gateway"]


def settings(api_url: str | None = None, port: int | None = None, chosen: frozenset[str] = frozenset()) -> PrefectSettings:
    return PrefectSettings(api_url, "127.0.0.1", port or free_port(), chosen)


async def plan(place: Path, wishes: Wishes, prefect: PrefectSettings) -> Plan:
    return await make_plan(wishes, Config(home=place, gateway_url="https://routines.acme.com"), prefect)


@pytest.fixture
def other_service() -> Iterator[int]:
    """The port of a web service that is no Prefect server."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as service:
        Thread(target=service.serve_forever, daemon=True).start()
        yield service.server_address[1]
        service.shutdown()


async def test_without_an_address_a_server_is_started_here(tmp_path: Path) -> None:
    """The user learns what to tell his other terminals."""
    prefect, gate = settings(), free_port()
    made = await plan(tmp_path, Wishes(gateway_port=gate), prefect)
    assert [part.name for part in made.parts] == ["server", *REST]
    assert made.addresses["Prefect API"] == f"http://127.0.0.1:{prefect.port}/api"
    assert made.addresses["Gateway"] == f"http://127.0.0.1:{gate}"
    assert made.notes == [f"For other terminals: export PREFECT_API_URL=http://127.0.0.1:{prefect.port}/api"]


async def test_links_lead_to_the_gateway_that_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it listens; what the user has set stays. Other terminals have to be told."""
    monkeypatch.delenv("ROUTINES_GATEWAY_URL", raising=False)
    gate = free_port()
    made = await make_plan(Wishes(gateway_port=gate), Config(home=tmp_path), settings())
    here = f"http://127.0.0.1:{gate}"
    assert [part.environment.get("ROUTINES_GATEWAY_URL") for part in made.parts] == [None, here, here]
    assert f"For other terminals: export ROUTINES_GATEWAY_URL={here}" in made.notes
    assert made.addresses["Sessions"] == f"{here}/sessions"
    monkeypatch.setenv("ROUTINES_GATEWAY_URL", "https://routines.acme.com")
    made = await make_plan(Wishes(gateway_port=gate), Config(home=tmp_path), settings())
    assert {part.environment["ROUTINES_GATEWAY_URL"] for part in made.parts} == {"https://routines.acme.com"}
    assert not [note for note in made.notes if "GATEWAY" in note]


async def test_a_loopback_address_without_a_server_is_where_one_is_started(tmp_path: Path) -> None:
    """PREFECT_API_URL of a profile is kept to."""
    port = free_port()
    made = await plan(tmp_path, Wishes(gateway_port=free_port()), settings(f"http://localhost:{port}/api"))
    assert str(port) in made.parts[0].command
    assert made.parts[1].environment["PREFECT_API_URL"] == f"http://localhost:{port}/api"
    assert made.notes == []


async def test_an_open_api_is_told(tmp_path: Path) -> None:
    """Until the user has set a login, and the address that browsers use."""
    wishes = Wishes(host="0.0.0.0", gateway_port=free_port())
    made = await plan(tmp_path, wishes, settings())
    assert [word for note in made.notes for word in note.split() if word.startswith("PREFECT_SERVER")] == [
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_UI_API_URL,",
    ]
    assert made.addresses["Prefect API"].startswith("http://127.0.0.1:")
    chosen = frozenset({"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_UI_API_URL"})
    assert len((await plan(tmp_path, wishes, settings(chosen=chosen))).notes) == 1


async def test_a_server_that_answers_is_used(tmp_path: Path, prefect_server: str) -> None:
    """Only the rest is started."""
    made = await plan(tmp_path, Wishes(gateway_port=free_port()), settings(prefect_server))
    assert [part.name for part in made.parts] == REST
    assert made.notes == [f"A Prefect server answers at {prefect_server}: it is used, none is started."]


async def test_a_server_on_the_wished_port_is_used_too(tmp_path: Path, prefect_server: str) -> None:
    """Somebody ran `prefect server start` and set no address."""
    port = int(prefect_server.rpartition(":")[2].removesuffix("/api"))
    made = await plan(tmp_path, Wishes(port=port, gateway_port=free_port()), settings())
    assert [part.name for part in made.parts] == REST


async def test_an_address_elsewhere_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    """A second server beside the team's would hide the mistake."""
    with pytest.raises(SettingsError, match=r"no Prefect server answers there .*prefect config unset PREFECT_API_URL"):
        await plan(tmp_path, Wishes(), settings("http://prefect.invalid:4200/api"))


async def test_an_address_that_a_server_here_would_not_have_is_refused(tmp_path: Path) -> None:
    """A server started here speaks http and answers below /api."""
    with pytest.raises(SettingsError, match="a server started here answers at"):
        await plan(tmp_path, Wishes(), settings(f"http://127.0.0.1:{free_port()}/team/api"))


async def test_a_port_that_something_else_has_is_named(tmp_path: Path, other_service: int) -> None:
    """With the option that gives another one."""
    with pytest.raises(SettingsError, match=rf"port {other_service} on 127.0.0.1 is taken by another program.*another port with --port"):
        await plan(tmp_path, Wishes(), settings(port=other_service))
    with pytest.raises(SettingsError, match=rf"port {other_service} .*the gateway.*--gateway-port"):
        await plan(tmp_path, Wishes(gateway_port=other_service), settings())


async def test_an_address_of_no_interface_is_refused(tmp_path: Path) -> None:
    """192.0.2.1 is nobody's (RFC 5737)."""
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1"):
        await plan(tmp_path, Wishes(gateway_host="192.0.2.1", gateway_port=free_port()), settings())


async def test_clients_ask_for_no_token_where_none_is_needed(tmp_path: Path) -> None:
    """Only where the server is started here, and the user does not protect it."""
    name = "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"
    made = await plan(tmp_path, Wishes(gateway_port=free_port()), settings())
    assert [part.environment.get(name) for part in made.parts] == [None, "false", None]
    protected = settings(chosen=frozenset({"PREFECT_SERVER_CSRF_PROTECTION_ENABLED"}))
    made = await plan(tmp_path, Wishes(gateway_port=free_port()), protected)
    assert [part.environment.get(name) for part in made.parts] == [None, None, None]


async def test_the_server_gets_our_settings_and_keeps_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set, wherever he did, is not overwritten; nothing is said about analytics."""
    monkeypatch.delenv("PREFECT_SERVER_ANALYTICS_ENABLED")
    theirs = "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE"
    made = await plan(tmp_path, Wishes(gateway_port=free_port()), settings(chosen=frozenset({theirs})))
    environment = made.parts[0].environment
    ours = {name: value for name, value in SERVER_SETTINGS.items() if name != theirs}
    assert ours.items() <= environment.items()
    assert theirs not in environment
    assert environment["PREFECT_SERVER_UI_API_URL"] == made.addresses["Prefect API"]
    assert not [name for name in environment if "ANALYTICS" in name]


async def test_secrets_are_in_no_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody on the machine can read command lines; the worker's environment has the key, for its runs."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret-word")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret-word")
    made = await plan(tmp_path, Wishes(gateway_port=free_port()), settings())
    assert "secret-word" not in " ".join(word for part in made.parts for word in part.command)
    assert "secret-word" not in repr(made.parts)
    worker = next(part for part in made.parts if part.name == "worker")
    assert worker.environment["ANTHROPIC_API_KEY"] == "sk-ant-secret-word"


def test_every_setting_that_we_give_the_server_is_known_to_prefect() -> None:
    """A misspelt one would do nothing, in silence."""
    from prefect.settings import get_current_settings

    known = get_current_settings().to_environment_variables()
    assert set(SERVER_SETTINGS) <= set(known)
    assert "PREFECT_SERVER_UI_API_URL" in known


def test_prefects_settings_are_read_from_where_the_user_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, and a profile."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "4321")
    (tmp_path / "profiles.toml").write_text(
        'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:4999/api"\n'
        'PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE = "30"\nPREFECT_API_AUTH_STRING = "admin:pw"\n'
    )
    found = read()
    assert (found.api_url, found.port) == ("http://127.0.0.1:4999/api", 4321)
    assert "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE" in found.chosen
    assert "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE" not in found.chosen
    assert found.auth_string == "admin:pw"
    assert "admin:pw" not in repr(found)


def test_settings_that_prefect_refuses_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback."""
    monkeypatch.setenv("PREFECT_SERVER_API_PORT", "many")
    with pytest.raises(SettingsError, match="Prefect refuses its settings") as failure:
        read()
    assert "\n" not in str(failure.value)
    assert sys.executable not in str(failure.value)
    assert os.environ["PREFECT_SERVER_API_PORT"] == "many"
