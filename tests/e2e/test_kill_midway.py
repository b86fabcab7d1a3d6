"""kill -9 in the middle of a reply, of a command, of a push; again and again; by the real command line; while a store is being made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import until

from .harness.case import Case
from .harness.pool import Pool
from .harness.processes import alive
from .harness.routine import STEPS, play, waits

WAITING = [(waits("wait"),), *STEPS]
"""The steps, with a command before them that lasts until the test lets it end."""

HOOK = """#!/bin/sh
# the first one to push waits until there is a file `go`
if mkdir "$GIT_DIR/waiting" 2>/dev/null; then while [ ! -e "$GIT_DIR/go" ]; do sleep 0.05; done; fi
"""


def test_a_reply_that_was_streaming_is_asked_for_once_more(pool: Pool, tmp_path: Path) -> None:
    """Nothing of it is used, and it counts in the spend."""
    with Case(pool, tmp_path, script=play(silent=1)) as case:
        run = case.start()
        request = case.claude.wait_for(2, 60)
        until(lambda: request.status, what="the reply has begun")
        tree = run.kill()
        assert case.retry().wait() == 0
        case.judge(tree)
        assert [request.turn for request in case.claude.requests] == [0, 1, 1, 2, 3, 4, 5]
        assert case.found().spent.attempts == 7


def test_a_command_that_was_running_is_not_run_again(pool: Pool, tmp_path: Path) -> None:
    """It and what it started in sessions of their own are gone, and Claude is told that the outcome is unknown."""
    with Case(pool, tmp_path, script=play(WAITING)) as case:
        run = case.start()
        until(lambda: case.has_session() and case.ran() == ["wait"], what="the command runs")
        tree = run.kill()
        until(lambda: not alive(tree), what="the sandbox ended with the process that made it")
        case.go()
        assert case.retry().wait() == 0
        case.judge(tree)
        assert case.ran().count("wait") == 1
        assert case.ran("again.log") == ["wait"]
        assert "outcome is unknown" in case.claude.requests[1].results[0].text


def test_everything_ends_when_the_whole_service_is_killed(pool: Pool, tmp_path: Path) -> None:
    """As systemd and container runtimes do it: the worker's group at once. What runs in the sandbox has left that group."""
    with Case(pool, tmp_path, script=play(WAITING)) as case:
        run = case.start()
        until(lambda: case.has_session() and case.ran() == ["wait"], what="the command runs")
        tree = run.tree_now()
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        until(lambda: not alive(tree), what="the sandbox ended")


@pytest.mark.parametrize("first", ["the orphan", "the retry"])
def test_a_push_that_was_under_way_arrives_once(pool: Pool, tmp_path: Path, first: str) -> None:
    """The host's git outlives its killed process; whichever push comes first, the branch is made once and the other one sees it."""
    with Case(pool, tmp_path) as case:
        hook = case.docs.path / "hooks" / "pre-receive"
        hook.write_text(HOOK)
        hook.chmod(0o755)
        run = case.start()
        until((case.docs.path / "waiting").exists, what="the push is under way")
        tree = run.kill()
        if first == "the orphan":
            (case.docs.path / "go").touch()
            until(lambda: not alive(tree), what="the push has ended")
        assert case.retry().wait() == 0
        (case.docs.path / "go").touch()
        case.judge(tree)


@pytest.mark.timeout(600)
def test_killed_again_and_again_it_comes_to_its_end(pool: Pool, tmp_path: Path) -> None:
    """Each process gets a few commits further than its opening takes."""
    with Case(pool, tmp_path) as case:
        kills, run = 0, case.start(kill=11)
        trees = []
        while run.wait() == -signal.SIGKILL:
            kills += 1
            assert kills < 40, "it does not come forward"
            trees.append(run.tree)
            run = case.retry(kill=11)
        assert run.wait() == 0
        assert kills > 3
        case.judge(*trees, kills=kills)


def test_killed_while_its_store_is_made(pool: Pool, tmp_path: Path) -> None:
    """A store whose tables came half-way is completed by whoever opens it next."""
    for number, after in [(1, False), (1, True)]:
        place = tmp_path / f"{number}-{after}"
        place.mkdir()
        with Case(pool, place, database_url=f"sqlite+aiosqlite:///{place / 'store.db'}") as case:
            killed = case.start(kill=number, after=after)
            assert killed.wait() == -signal.SIGKILL
            assert case.retry().wait() == 0
            case.judge(killed.tree)


def test_the_retry_of_the_command_line_goes_on(pool: Pool, tmp_path: Path) -> None:
    """`prefect flow-run retry ID`, and a worker that takes the run up.

    Without a deployment, `retry --entrypoint` cannot be used: Prefect 3.8 forgets to await flows that are async.
    """
    with Case(pool, tmp_path, deployed=True) as case:
        killed = case.start(kill=20)
        assert killed.wait() == -signal.SIGKILL
        case.crash()
        for command in (
            ["flow-run", "retry", str(case.flow_run)],
            ["worker", "start", "--pool", "kill-tests", "--type", "process", "--run-once"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "prefect", *command],
                env=os.environ | case.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=200,
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        case.judge(killed.tree)
