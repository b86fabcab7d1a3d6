"""Servers that others made, over stdio in the sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mcp
import pytest

from prefect_routines.connectors.mcp import MCP
from prefect_routines.connectors.mcp.approval import Choice
from prefect_routines.workspace.sandbox import SandboxSpec

from .mcp_sessions import SERVERS, approved, talking, text_of

SITE = Path(mcp.__file__).parents[1]


def other_python() -> bool:
    """Whether the sandbox's Python is of another version than ours, whose packages it then cannot load."""
    asked = ["/usr/bin/python3", "-c", "import sys; print(sys.version_info[:2])"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip() != str(sys.version_info[:2])
    except (OSError, subprocess.CalledProcessError):
        return True


@pytest.mark.skipif(other_python(), reason="the sandbox has another Python, which cannot load the SDK of this one")
async def test_a_server_of_the_python_sdk(tmp_path: Path) -> None:
    """It speaks the newest protocol; its structured answer comes once."""
    shutil.copy(SERVERS / "with_sdk.py", tmp_path)
    shown = {"/opt/site": SITE}
    block = MCP(command=["env", "PYTHONPATH=/opt/site", "python3", "with_sdk.py"])
    await approved(block, SandboxSpec(tmp_path, read_only=shown))
    async with talking(block, tmp_path, read_only=shown) as talk:
        assert text_of(await talk.call("add", a=2, b=3)) == "5"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference servers, installed as a person would."""
    if shutil.which("npm") is None or not Path("/usr/bin/node").exists():
        pytest.skip("there is no npm here, or no node where the sandbox sees it")
    place = tmp_path_factory.mktemp("npm")
    names = [f"@modelcontextprotocol/server-{name}" for name in ("memory", "filesystem")]
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--prefix", place, *names], capture_output=True, timeout=200, check=False
    )
    if done.returncode:
        pytest.skip(f"npm cannot install them here: {done.stderr.decode(errors='replace')[-200:]}")
    return place / "node_modules"


async def test_the_reference_servers(tmp_path: Path, packages: Path) -> None:
    """Memory keeps what it is told in the workspace; the file server reads there and nowhere else."""
    (tmp_path / "w").mkdir()
    shutil.copytree(packages, tmp_path / "w/node_modules", symlinks=True)
    (tmp_path / "w/hello.txt").write_text("hello from the workspace")
    servers = "/workspace/node_modules/@modelcontextprotocol"

    memory = MCP(command=["env", "MEMORY_FILE_PATH=/workspace/memory.jsonl", "node", f"{servers}/server-memory/dist/index.js"])
    await approved(memory, SandboxSpec(tmp_path / "w"), Choice(reads=["read_graph"]))
    async with talking(memory, tmp_path / "w") as talk:
        entity = {"name": "Ada", "entityType": "person", "observations": ["writes programs"]}
        await talk.call("create_entities", entities=[entity])
        graph = json.loads(text_of(await talk.call("read_graph")))
        assert graph["entities"] == [entity]
        assert "writes programs" in (await talk.workspace.box.bash("cat memory.jsonl")).output
    assert memory.approved["create_entities"].writes

    files = MCP(command=["node", f"{servers}/server-filesystem/dist/index.js", "/workspace"])
    await approved(files, SandboxSpec(tmp_path / "w"))
    async with talking(files, tmp_path / "w") as talk:
        assert text_of(await talk.call("read_text_file", path="/workspace/hello.txt")) == "hello from the workspace"
        refused = await talk.call("read_text_file", path="/etc/passwd")
        assert refused.is_error
        assert "outside allowed directories" in text_of(refused)
