"""kill -9 at every write of the session store, then a retry: the session goes on where it was and nothing is done twice."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .harness.case import Case
from .harness.pool import Pool

AT_ONCE = os.cpu_count() or 1


@pytest.mark.timeout(900)
def test_killed_before_and_after_every_commit_it_goes_on(pool: Pool, tmp_path: Path) -> None:
    """The points are counted in a run that is left alone, so a write that is added later is a point more.

    What parallel calls bring at the same moment is one commit: a run may have one or two fewer, and then comes to its end before the last.
    """
    with Case(pool, tmp_path / "whole") as case:
        whole = case.start()
        assert whole.wait() == 0, whole.said
        case.judge(kills=0)
        commits = whole.commits

    def check(point: tuple[int, bool]) -> str | None:
        number, after = point
        with Case(pool, tmp_path / f"{'after' if after else 'before'}-{number}") as case:
            said = ""
            try:
                killed = case.start(kill=number, after=after)
                if killed.wait() == 0 and len(commits) - 2 <= len(killed.commits) < number:
                    case.judge(kills=0)
                    return None
                assert killed.wait() == -signal.SIGKILL, f"the run did not come to this point:\n{killed.said[-3000:]}"
                again = case.retry()
                status, said = again.wait(), again.said
                assert status == 0
                case.judge(killed.tree)
            except Exception as error:
                return f"{'after' if after else 'before'} commit {number} ({commits[number - 1]}): {error!r}\n{said[-1500:]}"
        return None

    points = [(number, after) for number in range(1, len(commits) + 1) for after in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as workers:
        failures = [failure for failure in workers.map(check, points) if failure]
    assert not failures, f"{len(failures)} of {len(points)} points:\n\n" + "\n\n".join(failures)
