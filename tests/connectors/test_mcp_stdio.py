"""A server over stdio, in a real sandbox: what it may see, and that nothing it does costs more than a tool error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from prefect_routines.config import config
from prefect_routines.connectors.mcp import MCP
from prefect_routines.connectors.mcp.results import HALF_DONE, TEXT_MAX
from prefect_routines.errors import OutcomeUnknown, ToolError
from prefect_routines.workspace.sandbox import SandboxSpec
from prefect_routines.workspace.setup import READY
from waiting import until_async

from .mcp_sessions import SERVERS, Talk, approved, command, talking, text_of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with the server in it."""
    (tmp_path / "w").mkdir()
    shutil.copy(SERVERS / "hostile.py", tmp_path / "w")
    return tmp_path / "w"


def hostile(**settings: Any) -> MCP:
    """The block of the misbehaving server."""
    return MCP(command=list(command("hostile.py")), **{"timeout": 20.0, **settings})


@pytest.fixture
async def talk(place: Path) -> AsyncIterator[Talk]:
    block = await approved(hostile(), SandboxSpec(place))
    (place / "starts").unlink()
    async with talking(block, place) as talk:
        yield talk


def server_pids(directory: Path) -> list[int]:
    """Processes of this machine that run the test's server."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
            inside = Path("/proc", name, "root/workspace/hostile.py").stat().st_ino == (directory / "hostile.py").stat().st_ino
        except OSError:
            continue
        if b"/workspace/hostile.py" in words and inside:
            found.append(int(name))
    return found


async def test_nothing_starts_before_the_first_call(talk: Talk) -> None:
    """The tools come from the approval; the first call starts the server, the end of the session ends it."""
    assert "mcp__there__echo" in [tool.name for tool in talk.connection.tools]
    assert not (talk.directory / "starts").exists()
    assert text_of(await talk.call("echo", text="héllo")) == "héllo"
    assert len(server_pids(talk.directory)) == 1
    await talk.connection.close()
    assert server_pids(talk.directory) == []


async def test_calls_at_once_share_one_server(talk: Talk) -> None:
    """Ten calls side by side start it once, and each gets its own answer."""
    answers = await asyncio.gather(*(talk.call("echo", text=str(number)) for number in range(10)))
    assert [text_of(answer) for answer in answers] == [str(number) for number in range(10)]
    assert text_of(await talk.call("pid")) == "1"


async def test_the_server_works_in_the_sessions_workspace(talk: Talk) -> None:
    """What it writes there the session's shell reads and changes, and the other way round."""
    await talk.call("note", text="from the server")
    await talk.workspace.box.bash("cat notes > copy; echo from the shell >> notes")
    await talk.call("note", text="again")
    assert (await talk.workspace.box.bash("cat copy notes")).output == "from the server\nfrom the server\nfrom the shell\nagain\n"


async def test_the_server_sees_nothing_of_the_host(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the worker's environment nor its files, nor what the routine's environment holds, nor the session's other processes."""
    monkeypatch.setenv("WORKER_SECRET", "hidden-value")
    block = await approved(hostile(), SandboxSpec(place))
    async with talking(block, place, environment={"ROUTINE_VARIABLE": "hidden-too"}) as talk:
        seen = json.loads(text_of(await talk.call("look")))
    assert "hidden" not in json.dumps(seen)
    assert seen["paths"] == {"/root": False, "/etc/shadow": False, "/home/agent": True, "/workspace": True}
    assert "hostile.py" in seen["files"]


async def test_the_server_reaches_no_host_that_is_not_declared(place: Path) -> None:
    """Not without a network, not with one that has other hosts, and this machine in no case."""
    for network, why in ((["none.invalid"], "403"), ([], "Error")):
        block = await approved(hostile(network=network), SandboxSpec(place))
        async with talking(block, place, network=("example.com",)) as talk:
            for url in ("http://example.com/", f"{os.environ['PREFECT_API_URL']}/health"):
                answer = text_of(await talk.call("reach", url=url))
                assert why in answer or "refused" in answer, answer


@pytest.mark.parametrize(
    ("tool", "told"),
    [
        ("exit", "exit status 7.*its last words: 'out of luck'.*starts it anew"),
        ("huge", "a line of more than"),
        ("endless", "a line of more than"),
        ("malformed", "malformed JSON"),
        ("deep", "malformed JSON"),
        ("flood", "asks and asks"),
        ("chatter", r"talks and talks.*'Listening! \(this line is no message\)'"),
        ("wrong_form", "not of a form that MCP has"),
        ("refuses", r"reported an error: broken\\u202e \\x1b\[31minside"),
    ],
)
async def test_what_a_server_breaks_is_a_tool_error(talk: Talk, tool: str, told: str) -> None:
    """One clear line, little memory, and the next call works: the server is started anew where it must be."""
    await talk.call("echo", text="x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ToolError, match=f"^mcp/there: .*{told}") as caught:
        await talk.call(tool)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kB
    assert text_of(await talk.call("echo", text="fine")) == "fine"
    assert len(server_pids(talk.directory)) == 1


async def test_a_server_that_hangs_is_started_anew(place: Path) -> None:
    """The call ends with its time; the server, which said nothing meanwhile, is replaced when the next one comes."""
    block = await approved(hostile(timeout=2.0), SandboxSpec(place))
    async with talking(block, place) as talk:
        with pytest.raises(ToolError, match=r"did not answer within 2 s .*Listening! \(this line is no message\)"):
            await talk.call("hang")
        assert text_of(await talk.call("echo", text="fine")) == "fine"


async def test_what_became_of_a_write_is_unknown_when_the_server_dies(talk: Talk) -> None:
    """It may have been carried out, so it is not reported as failed; an error that the server reports is told, and counts as made."""
    with pytest.raises(OutcomeUnknown, match="whether exit_writing was carried out is unknown"):
        await talk.call("exit_writing")
    half = await talk.call("fails_writing")
    assert (half.is_error, text_of(half)) == (True, f"there is no such thing\n\n{HALF_DONE}")
    result = await talk.call("fails")
    assert (result.is_error, text_of(result)) == (True, "there is no such thing")


@pytest.mark.parametrize(
    ("code", "known"), [(-32602, True), (-32601, True), (-32600, True), (-32603, False), (-32700, False), (-32000, False), (7, False)]
)
async def test_which_errors_of_the_protocol_say_that_nothing_happened(talk: Talk, code: int, known: bool) -> None:
    """Those that refuse the request; after any other a part of the write may have been done."""
    with pytest.raises(ToolError, match=rf"broken inside \(code {code}\)") as caught:
        await talk.call("refuses_writing", code=code)
    assert isinstance(caught.value, OutcomeUnknown) is not known


async def test_calls_in_flight_end_when_the_server_dies(talk: Talk) -> None:
    """All of them, at once; and they do not bring it up twice."""
    await talk.call("echo", text="x")
    waiting = [asyncio.create_task(talk.call("hang")) for _ in range(3)]
    await until_async((talk.directory / "hanging").exists, 15)
    [pid] = server_pids(talk.directory)
    os.kill(pid, 9)
    for task in waiting:
        with pytest.raises(ToolError, match="exit status -9"):
            await asyncio.wait_for(task, 15)
    answers = await asyncio.gather(*(talk.call("echo", text="y") for _ in range(3)))
    assert [text_of(answer) for answer in answers] == ["y"] * 3
    assert text_of(await talk.call("pid")) == "2"


@pytest.mark.parametrize("change", ["another description", "gone"])
async def test_a_tool_that_changed_since_its_approval_is_refused(talk: Talk, change: str) -> None:
    """Before the first call or behind a living connection; the others go on, and Claude is told what the author approved."""
    (talk.directory / "changes.json").write_text(json.dumps({"echo": change}))
    what = "is gone from the server" if change == "gone" else "has changed"
    with pytest.raises(ToolError, match=f"^the tool `echo` of mcp/there {what} since it was approved; .*`routines mcp approve there`$"):
        await talk.call("echo", text="x")
    assert text_of(await talk.call("pid")) == "1"
    assert next(tool for tool in talk.connection.tools if tool.name.endswith("echo")).description == "Says the text again."


async def test_a_server_asks_in_vain(talk: Talk) -> None:
    """Sampling, elicitation and roots are refused."""
    refused = text_of(await talk.call("ask")).splitlines()
    assert len(refused) == 3
    assert all("not supported" in line for line in refused)


async def test_long_and_strange_answers(talk: Talk) -> None:
    """A long text is cut and says so; what a database does not take is replaced."""
    long = text_of(await talk.call("long"))
    assert "150,000 more characters were left out" in long
    assert len(long) < TEXT_MAX + 200
    assert "\0" not in text_of(await talk.call("strange"))


async def test_a_command_that_is_not_there(place: Path) -> None:
    """The error names the block and says what the sandbox said."""
    block = await approved(hostile(), SandboxSpec(place))
    block.command = ["no-such-server"]
    async with talking(block, place) as talk:
        with pytest.raises(ToolError, match=r"mcp/there cannot be used: .*exit status 127.*No such file"):
            await talk.call("echo", text="x")


async def test_a_cancelled_call_leaves_the_connection_usable(talk: Talk) -> None:
    """The session's own deadline cuts a call off; others go on."""
    await talk.call("echo", text="x")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(talk.call("look"), 0.000001)
    assert text_of(await talk.call("echo", text="fine")) == "fine"


async def test_check_tells_what_may_be_used(place: Path) -> None:
    """In a sandbox with an empty workspace; so this one's server comes from elsewhere."""
    block = MCP(command=["sh", "-c", "exit 3"])
    with pytest.raises(ToolError, match="exit status 3"):
        await block.check()


def installed(*more: str) -> str:
    """A setup script that installs the server as `there`; nobody has run it before."""
    program = (SERVERS / "hostile.py").read_text()
    place = f"mkdir -p /opt/setup/bin; cat > /opt/setup/bin/there <<'END'\n#!/usr/bin/python3\n{program}\nEND\n"
    return "\n".join([f"{place}chmod 755 /opt/setup/bin/there # {uuid4()}", *more])


def setups() -> dict[Path, int]:
    """What setup scripts have made on this machine so far, with the moment at which each was ready; 0: it is not yet."""
    made = (place for place in (config().workspaces / "setups").glob("*") if place.is_dir())
    return {place: (place / READY).stat().st_mtime_ns if (place / READY).exists() else 0 for place in made}


async def begun(before: Collection[Path]) -> Path:
    """Where a setup script is at work now; it makes a file that says so."""
    new = await until_async(lambda: [place for place in setups() if place not in before and (place / "result" / "waits").exists()], 30)
    return new[0]


async def test_a_setup_runs_once_and_when_it_is_needed(tmp_path: Path) -> None:
    """Not when the tools are told, but at the first call; `check` and a second session find what it made."""
    block = MCP(command=["there"], setup=installed(), timeout=20)
    block.approved = (await approved(hostile_in(tmp_path / "elsewhere"), SandboxSpec(tmp_path / "elsewhere"))).approved
    before = setups()
    async with talking(block, tmp_path / "w") as talk:
        assert "mcp__there__echo" in [tool.name for tool in talk.connection.tools]
        assert setups() == before
        assert text_of(await talk.call("echo", text="there")) == "there"
        made = dict(setups().items() - before.items())
        assert [moment > 0 for moment in made.values()] == [True]
    assert (await block.check()).startswith("hostile 1.0: ")
    async with talking(block, tmp_path / "w") as talk:
        await asyncio.gather(*(talk.call("echo", text="again") for _ in range(3)))
    assert dict(setups().items() - before.items()) == made


def hostile_in(place: Path) -> MCP:
    """The block of a server that lies in a workspace."""
    place.mkdir()
    shutil.copy(SERVERS / "hostile.py", place)
    return hostile()


async def test_a_setup_takes_the_place_of_the_sessions_own(tmp_path: Path) -> None:
    """And without one the server has that of the session."""
    own = tmp_path / "setup" / "bin"
    own.mkdir(parents=True)
    (own / "there").write_text("#!/usr/bin/python3\n" + (SERVERS / "hostile.py").read_text().replace('"1.0"', '"of the session"'))
    (own / "there").chmod(0o755)
    spec = SandboxSpec(tmp_path / "w", setup=own.parent)
    for setup, version in ((None, "of the session"), (installed(), "1.0")):
        async with MCP(command=["there"], setup=setup).connected("there", spec) as (server, given):
            assert await server.about(given) == f"hostile {version}"


async def test_a_setup_that_fails_is_a_tool_error(place: Path) -> None:
    """In one line, at each call; the session goes on."""
    block = await approved(hostile(), SandboxSpec(place))
    block.setup = "echo no such package >&2; exit 3"
    async with talking(block, place) as talk:
        for _ in range(2):
            with pytest.raises(ToolError, match=r"^mcp/there cannot be used: the setup script ended with exit status 3: no such package"):
                await talk.call("echo", text="x")
        assert (await talk.workspace.box.bash("echo alive")).output == "alive\n"


async def test_a_setup_reaches_the_hosts_of_the_block_only(place: Path) -> None:
    """Not those of the session."""
    block = await approved(hostile(network=["none.invalid"]), SandboxSpec(place))
    block.setup = "python3 -c 'import urllib.request as u; u.urlopen(\"http://example.com/\", timeout=10)'"
    async with talking(block, place, network=("example.com",)) as talk:
        with pytest.raises(ToolError, match="HTTP Error 403"):
            await talk.call("echo", text="x")


async def test_a_setup_outlives_the_call_that_waits_for_it(tmp_path: Path) -> None:
    """A call that is cut off at its deadline does not send the installation back to its beginning."""
    block = MCP(command=["there"], setup=installed("touch /opt/setup/waits; while [ ! -e /opt/setup/go ]; do sleep 0.05; done"))
    block.approved = (await approved(hostile_in(tmp_path / "elsewhere"), SandboxSpec(tmp_path / "elsewhere"))).approved
    before = setups()
    async with talking(block, tmp_path / "w") as talk:
        waiting = asyncio.create_task(talk.call("echo", text="x"))
        place = await begun(before)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        began = (place / "result" / "waits").stat().st_mtime_ns
        (place / "result" / "go").touch()
        assert text_of(await talk.call("echo", text="y")) == "y"
        assert (place / "result" / "waits").stat().st_mtime_ns == began


async def test_the_end_of_a_session_ends_a_setup(tmp_path: Path) -> None:
    """Nothing of it goes on, and what it began is not taken for finished."""
    mark = str(uuid4())
    block = MCP(command=["there"], setup=installed(f"touch /opt/setup/waits; until false; do sleep 0.05; done # {mark}"))
    block.approved = (await approved(hostile_in(tmp_path / "elsewhere"), SandboxSpec(tmp_path / "elsewhere"))).approved
    before = setups()
    async with talking(block, tmp_path / "w") as talk:
        waiting = asyncio.create_task(talk.call("echo", text="x"))
        place = await begun(before)
        assert running(mark)
        await talk.connection.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert setups()[place] == 0
    assert not running(mark)


def running(script: str) -> list[str]:
    """Processes that were started with this in their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it is gone
            if script.encode() in Path("/proc", pid, "cmdline").read_bytes():
                found.append(pid)
    return found
