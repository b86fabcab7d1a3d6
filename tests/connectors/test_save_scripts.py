"""The scripts in blocks/ that save a login from the environment."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from prefect_routines.connectors.connector import Connector, load_connectors

from .drive_service import WHO, key_pair

BLOCKS = Path(__file__).parents[2] / "blocks"
SECRET = "s3cret-of-the-script"
CASES = [
    ("prometheus", {"PROMETHEUS_URL": "http://prometheus:9090", "PROMETHEUS_TOKEN": SECRET}),
    ("grafana", {"GRAFANA_URL": "https://acme.grafana.net", "GRAFANA_TOKEN": SECRET}),
    ("datadog", {"DD_API_KEY": SECRET, "DD_APP_KEY": SECRET, "DD_SITE": "datadoghq.eu"}),
    ("google-drive", {"GOOGLE_KEY_FILE": "key.json", "GOOGLE_DRIVE_FOLDERS": "https://drive.google.com/drive/folders/1AbC,2DeF"}),
]


async def said(slug: str, place: Path, *arguments: str, **environment: str) -> tuple[int | None, str]:
    """Exit code and output of a script."""
    script = BLOCKS / f"save_{slug.replace('-', '_')}.py"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DD_", "GRAFANA_", "GOOGLE_", "PROMETHEUS_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(script),
        *arguments,
        env={**kept, **environment},
        cwd=place,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize(("slug", "environment"), CASES)
async def test_a_script_saves_a_block_that_a_routine_can_name(
    slug: str, environment: dict[str, str], tmp_path: Path, prefect_server: str
) -> None:
    """It says how, and shows no secret."""
    key = {"client_email": WHO, "private_key": key_pair()[0], "token_uri": "https://oauth2.googleapis.com/token"}
    (tmp_path / "key.json").write_text(json.dumps(key))
    name = f"test-{uuid4().hex[:8]}"
    code, output = await said(slug, tmp_path, name, **environment)
    assert code == 0, output
    assert f"connectors=['{slug}/{name}']" in output
    [(_, block)] = await load_connectors([f"{slug}/{name}"])
    assert isinstance(block, Connector)
    secrets = list(block.open(name).secrets())
    assert set(secrets) == ({key_pair()[0]} if slug == "google-drive" else {SECRET})
    assert not any(secret in output for secret in secrets)


@pytest.mark.parametrize("slug", [slug for slug, _ in CASES])
async def test_a_script_without_its_environment_says_what_to_set(slug: str, tmp_path: Path) -> None:
    """In one line, without a traceback."""
    code, output = await said(slug, tmp_path)
    assert code == 1
    assert output.splitlines()[-1].startswith("error: set ")
    assert "Traceback" not in output
