"""Blocks by reference: the right type, its own module only, and a line that helps where there is none."""

from __future__ import annotations

import asyncio
import sys
from uuid import uuid4

import pytest
from prefect.blocks.system import Secret

from prefect_routines.blocks import load_block
from prefect_routines.connectors.prometheus import Prometheus
from prefect_routines.errors import SettingsError


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


@pytest.mark.parametrize("reference", ["prometheus", "/x", "prometheus/", "a/b/c"])
async def test_what_names_no_block_is_refused(reference: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(SettingsError, match="write it as 'type/name'"):
        await load_block(reference)


async def test_a_type_that_nobody_knows_is_refused(prefect_server: str) -> None:
    """After all collections were asked."""
    with pytest.raises(SettingsError, match="no-such-type/x"):
        await load_block("no-such-type/x")
