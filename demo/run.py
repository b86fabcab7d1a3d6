"""`make demo`: a routine does real work on real git repositories, and you can look at it in the Prefect UI.

Starts a Prefect server of its own, makes two repositories (a library, and its documentation, which lags behind), runs
`flows/docs_sync.py` against them and shows what came of it. Everything is kept in `.demo/`.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".demo"
VENV = Path(sys.executable).parent  # where the command `routines` is
sys.path.insert(0, str(Path(__file__).parent))


def main() -> int:
    began = time.monotonic()
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal, too, must not leave the server behind
        signal.signal(number, lambda *_: sys.exit(1))
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    port = free_port()
    os.environ.update(
        PREFECT_HOME=str(HOME / "prefect"),
        PREFECT_API_URL=f"http://127.0.0.1:{port}/api",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        # so that what happens shows in the UI at once, and triggers are not held up by the many events of tool calls
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE="50",
        PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE="100",
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE="200",
        PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE="100",
    )
    with ExitStack() as stack:
        say("Starting a Prefect server (about 15 seconds) ...")
        server = start_server(port, stack)
        from repositories import make_repositories

        _, sdk, docs = make_repositories(HOME / "remotes")
        say(f"Made two repositories: the library {sdk.path.relative_to(ROOT)}, its documentation {docs.path.relative_to(ROOT)}")
        choose_model(stack)
        settings = HOME / "settings.json"
        settings.write_text(
            json.dumps({"repositories": [sdk.url, docs.url], "checks": [{"repository": "docs", "command": "python3 check.py"}]}, indent=1)
        )
        wait_until_healthy(port, server)
        say("")
        command = [str(VENV / "routines"), "run", "flows/docs_sync.py", "--settings", str(settings)]
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        say("")
        for push in docs.pushes:
            say(f"Branch {push.branch} of {docs.path.relative_to(ROOT)}, {'new' if push.old is None else 'moved on'}:")
        for branch in sorted({push.branch for push in docs.pushes}):
            print(docs.diff(branch))
        say(f"Look at it: http://127.0.0.1:{port}/runs   ({time.monotonic() - began:.0f} s in all)")
        command = os.path.relpath(VENV / "routines", ROOT)
        say(f"All of the session, also later: PREFECT_HOME={HOME.relative_to(ROOT)}/prefect {command} show ses")
        if status == 0 and sys.stdin.isatty() and sys.stdout.isatty():
            say("The server stays up until you press Ctrl-C.")
            with suppress(KeyboardInterrupt):
                server.wait()
            say("Stopping.")
    return status


def say(text: str) -> None:
    print(text, flush=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def choose_model(stack: ExitStack) -> None:
    """Claude if there is a key for it, else the scripted model; and say which."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        say("ANTHROPIC_API_KEY is set: Claude itself does the work, at your account's cost (budget: 10 dollars at most).")
        return
    from script import SCRIPT

    from prefect_routines.testing import ScriptedClaude

    claude = stack.enter_context(ScriptedClaude(SCRIPT))
    os.environ.update(claude.environment())
    say("ANTHROPIC_API_KEY is not set: a SCRIPTED MODEL plays Claude's part. Its words are prepared; the tools, the sandbox, git,")
    say("the checks and Prefect are real. Costs are what the tokens would have cost.")


def start_server(port: int, stack: ExitStack) -> "subprocess.Popen[bytes]":
    """Prefect's server, in a process group of its own: Ctrl-C reaches this program alone, which then stops it."""
    log = stack.enter_context((HOME / "server.log").open("wb"))
    command = [sys.executable, "-m", "prefect_routines.up.sqlite", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    stack.callback(stop, server)
    return server


def stop(server: "subprocess.Popen[bytes]") -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_healthy(port: int, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    pause = threading.Event()
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: the Prefect server did not start; its log is {HOME / 'server.log'}")
            pause.wait(0.2)


if __name__ == "__main__":
    raise SystemExit(main())
