"""Blocks by reference: the right type, its own module only, and a line that helps where there is none."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import get_client
from prefect.blocks.system import Secret
from pydantic import ValidationError

from prefect_routines.blocks import CONNECTORS, load_block
from prefect_routines.connectors.prometheus import Prometheus
from prefect_routines.errors import SettingsError
from prefect_routines.gateway.signatures import Scheme
from prefect_routines.gateway.sources import WebhookSource
from prefect_routines.settings import first_problem


async def test_a_block_is_loaded_by_type_and_name(prefect_server: str) -> None:
    """Ours, and Prefect's own."""
    name = f"test-{uuid4().hex[:8]}"
    await Prometheus(url="http://prometheus:9090").save(name)
    await Secret(value="s3cret-w0rd").save(name)  # type: ignore[misc]
    ours, secret = await load_block(f"prometheus/{name}"), await load_block(f"secret/{name}")
    assert isinstance(ours, Prometheus)
    assert (ours.url, ours._block_document_name) == ("http://prometheus:9090", name)
    assert isinstance(secret, Secret)


async def test_loading_a_block_imports_no_other_collection(prefect_server: str) -> None:
    """A run that uses Prometheus does not wait for the libraries of Google and Slack."""
    name = f"test-{uuid4().hex[:8]}"
    await Prometheus(url="http://prometheus:9090").save(name)
    code = f"import asyncio, sys; from prefect_routines.blocks import load_block; asyncio.run(load_block('prometheus/{name}'))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", f"{code}; print(*sys.modules)", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    loaded = said.decode().split()
    assert "prefect_routines.connectors.prometheus" in loaded
    assert not {"prefect_gcp", "prefect_slack", "prefect_email", "prefect_routines.connectors.mcp"} & set(loaded)


@pytest.mark.parametrize("reference", ["prometheus/nowhere", "secret/nowhere"])
async def test_a_block_that_is_not_there_says_how_to_make_it(prefect_server: str, reference: str) -> None:
    """In one line."""
    with pytest.raises(SettingsError, match=f"there is no block '{reference}' on this Prefect server.*create it with"):
        await load_block(reference)


async def test_a_block_that_was_filled_in_wrongly_is_told_without_what_it_holds(prefect_server: str) -> None:
    """The UI's form takes any text, and a login in an address as well."""
    name = f"test-{uuid4().hex[:8]}"
    made = await Prometheus(url="http://prometheus:9090", token="sk-secret").save(name)
    async with get_client() as client:
        data = {"url": "http://ada:hunter2@prometheus", "token": "sk-secret"}
        await client.request("PATCH", "/block_documents/{id}", path_params={"id": made}, json={"data": data})
    with pytest.raises(SettingsError) as caught:
        await load_block(f"prometheus/{name}")
    said = "".join(traceback.format_exception(caught.value))
    assert str(caught.value) == (
        f"the block 'prometheus/{name}' holds something wrong: url: no login belongs into an address; there are fields for it; "
        "edit it in the UI or save it anew"
    )
    assert "hunter2" not in said
    assert "sk-secret" not in said


def _type(slug: str) -> Any:
    module, _, name = CONNECTORS[slug].partition(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize(
    "address", ["http://admin:hunter2@localhost", "https://hunter2@localhost/x", "admin:hunter2@localhost", "http://a:hunter2@[b"]
)
def test_an_address_with_a_login_is_refused(address: str) -> None:
    """It would be shown wherever the address is; what is said does not show it either."""
    with pytest.raises(ValidationError) as caught:
        Prometheus(url=address)
    assert re.match("url: (no login belongs into an address|it is no address)", said := first_problem(caught.value))
    assert "hunter2" not in said


@pytest.mark.parametrize("field", ["url", "sheets_url", "base_url", "oauth_token_url"])
@pytest.mark.parametrize(
    "address", ["grafana.acme.com", "ftp://acme.com", "https://", "https://[::1", "https://acme.com:x", "https://:9/", " "]
)
def test_what_is_no_address_is_refused_by_every_block(field: str, address: str) -> None:
    """Where it is typed in, and not when the first session asks there."""
    with_it = [block for slug in CONNECTORS if field in (block := _type(slug)).model_fields]
    assert with_it
    for block in with_it:
        with pytest.raises(ValidationError) as caught:
            block(**{field: address})
        wrong = {str(one["loc"][0]): one["msg"] for one in caught.value.errors()}
        assert wrong[field] == "Value error, it is no address of a service; write it as https://HOST or https://HOST/PATH"


@pytest.mark.parametrize("reference", ["prometheus", "/x", "prometheus/", "a/b/c"])
async def test_what_names_no_block_is_refused(reference: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(SettingsError, match="write it as 'type/name'"):
        await load_block(reference)


async def test_a_type_that_nobody_knows_is_refused(prefect_server: str) -> None:
    """After all collections were asked."""
    with pytest.raises(SettingsError, match="no-such-type/x"):
        await load_block("no-such-type/x")


GIVEN = {
    "anthropic": {"ANTHROPIC_API_KEY": "sk-given"},
    "datadog": {"DD_API_KEY": "sk-given", "DD_APP_KEY": "sk-given"},
    "email": {"SMTP_SERVER": "127.0.0.1", "EMAIL_SENDER": "bot@acme.com", "EMAIL_RECIPIENTS": "ops@acme.com", "SMTP_PASSWORD": "sk-given"},
    "github": {"GITHUB_TOKEN": "sk-given"},
    "google_drive": {"GOOGLE_KEY_FILE": "key.json"},
    "grafana": {"GRAFANA_URL": "http://127.0.0.1:1", "GRAFANA_TOKEN": "sk-given"},
    "mcp": {"MCP_NAME": "tickets", "MCP_URL": "http://127.0.0.1:1/mcp", "MCP_TOKEN": "sk-given"},
    "notice_webhook": {"NOTICE_URL": "http://127.0.0.1:1", "NOTICE_SECRET": "whsec_c2stZ2l2ZW4tc2stZ2l2ZW4tc2stZ2l2ZW4="},
    "prometheus": {"PROMETHEUS_URL": "http://127.0.0.1:1", "PROMETHEUS_TOKEN": "sk-given"},
    "slack": {"SLACK_TOKEN": "xoxb-sk-given"},
    "twilio": {"TWILIO_ACCOUNT_SID": "AC" + "0" * 32, "TWILIO_RECIPIENTS": "+4915112345678", "TWILIO_FROM": "+4915112345679"}
    | {"TWILIO_AUTH_TOKEN": "sk-given"},
    "webhook": {"WEBHOOK_SECRET": "sk-given"},
}


def _save(script: str, place: Path, *arguments: str, **given: str) -> str:
    """What a script of blocks/ says when it fails; all of its output."""
    key = {"type": "service_account", "client_email": "a@b", "private_key": "sk-given", "token_uri": "http://127.0.0.1:1"}
    (place / "key.json").write_text(json.dumps(key))
    path = Path(__file__).parents[1] / "blocks" / f"save_{script}.py"
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", **given}
    done = subprocess.run(
        [sys.executable, str(path), *arguments], env=environment, cwd=place, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_every_script_for_blocks_is_tried() -> None:
    """None is forgotten below."""
    assert {path.stem.removeprefix("save_") for path in (Path(__file__).parents[1] / "blocks").glob("*.py")} == set(GIVEN)


@pytest.mark.parametrize("script", GIVEN)
def test_a_script_that_cannot_save_says_so_in_one_line_without_its_secret(script: str, tmp_path: Path) -> None:
    """Where Prefect is away; no traceback."""
    said = _save(script, tmp_path, **GIVEN[script])
    assert re.fullmatch(r"error: Prefect cannot be reached at http://127\.0\.0\.1:9/api \(.+\): run `prefect server start`, .+\n", said), (
        said
    )
    assert "sk-given" not in said


@pytest.mark.parametrize(
    ("script", "wrong", "said"),
    [
        ("notice_webhook", {"NOTICE_SECRET": "whsec_sk-given"}, "error: secret: "),
        ("mcp", {"MCP_COMMAND": "'"}, "error: MCP_COMMAND cannot be read as for a shell: "),
        ("google_drive", {"GOOGLE_KEY_FILE": "broken.json"}, "error: broken.json is not JSON"),
        (
            "github",
            {"GITHUB_APP_ID": "1", "GITHUB_INSTALLATION_ID": "2", "GITHUB_PRIVATE_KEY_FILE": "none"},
            "error: GITHUB_PRIVATE_KEY_FILE",
        ),
        ("webhook", {"WEBHOOK_SIGNATURE": "none"}, "error: signature: "),
        ("webhook", {"WEBHOOK_SIGNATURE": "hmac"}, "error: WEBHOOK_SIGNATURE is hmac: set WEBHOOK_HEADER"),
    ],
)
def test_a_script_says_which_setting_is_wrong(script: str, wrong: dict[str, str], said: str, tmp_path: Path) -> None:
    """In one line, without the secret."""
    (tmp_path / "broken.json").write_text("sk-given")
    found = _save(script, tmp_path, **{**GIVEN[script], **wrong})
    assert found.startswith(said), found
    assert (found.count("\n"), "sk-given" in found) == (1, False)


def test_the_script_for_webhooks_makes_a_source_that_signs_with_a_header_of_its_own(prefect_server: str) -> None:
    """Such as a forge's that is none of the known ones."""
    script = str(Path(__file__).parents[1] / "blocks" / "save_webhook.py")
    given = {"WEBHOOK_SECRET": "sk-given", "WEBHOOK_SIGNATURE": "hmac", "WEBHOOK_HEADER": "X-Forge-Signature", "WEBHOOK_PREFIX": "sha256="}
    name = f"forge-{uuid4().hex[:8]}"
    subprocess.run([sys.executable, script, name], env={**os.environ, **given}, check=True, capture_output=True, timeout=120)
    source = WebhookSource.load(name)
    assert isinstance(source, WebhookSource)
    assert source.how() == Scheme(kind="hmac", header="X-Forge-Signature", prefix="sha256=")
    assert source.known_secrets() == ["sk-given"]
