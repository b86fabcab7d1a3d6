"""Runs that go on with an ended session, killed on the way: the follow-up is asked once, and nothing of it happens twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from waiting import until

from .harness.case import Case
from .harness.pool import Pool
from .harness.processes import alive
from .harness.routine import STEPS, bash, call, play

MORE = "cd /workspace/docs; grep -q more api.md || { echo more >> api.md; git commit -qam 'Say more'; }"
FOLLOW_UP = [(bash("more", MORE),), (call("push", repository="docs"),), STEPS[-1]]


@pytest.mark.parametrize(("kill", "after"), [(3, True), (8, False), (10, True), (12, False), (14, True), (17, False)])
def test_a_resumed_run_that_is_killed_goes_on_within_its_follow_up(pool: Pool, tmp_path: Path, kill: int, after: bool) -> None:
    """Wherever it dies: one follow-up, one verdict of it, one further push."""
    with Case(pool, tmp_path, script=play([*STEPS, *FOLLOW_UP])) as case:
        assert case.start().wait() == 0
        before = case.found()
        first = case.flow_run
        case.resume("Say more.")
        killed = case.start(kill=kill, after=after)
        assert killed.wait() == -9
        if not case.has_session():  # it died before it had taken the session
            assert kill < 8
        assert case.retry().wait() == 0
        assert case.state.message == "done: Documented."
        until(lambda: not alive(killed.tree), what="nothing of the killed process is left")
        found = case.found()
        found.check_journal()
        assert found.record.id == before.record.id
        assert found.entries[: len(before.entries)] == before.entries
        asked = [entry.data["content"][0]["text"] for entry in found.entries if entry.data.get("prompt")]
        assert asked[1:] == ["Say more."]
        assert len(found.transcript.verdicts) == 2
        assert case.docs.log(found.transcript.pushes[-1]["branch"])[0] == "Say more"
        assert len(case.docs.pushes) == 2
        requests = Counter(request.turn for request in case.claude.requests)
        assert sum(count - 1 for count in requests.values()) <= 1
        assert case.claude.problems == []
        case.flow_run = first  # somebody retries the run that the session began in
        assert case.retry().wait() == 0
        assert case.state.name == "Cancelled"
        assert f"session {found.record.id} goes on in flow run {found.record.flow_run_id}" in str(case.state.message)
        assert len(case.claude.requests) == sum(requests.values())


def test_a_write_that_was_under_way_is_looked_up_and_not_sent(pool: Pool, tmp_path: Path) -> None:
    """The run died between the record of a push and its result: what arrived is known to be done, what did not is Claude's to repeat."""
    again = [*STEPS[:5], (call("push", repository="docs"), call("push", repository="sdk")), STEPS[-1]]
    for kill, after, told, outcomes in [
        (1, True, "Not sent", ["failed", "done", "done"]),
        (2, False, "Pushed", ["done", "done"]),
    ]:
        with Case(pool, tmp_path / told, script=play(again)) as case:
            assert case.start(kill=kill, after=after, of="outputs").wait() == -9
            case.crash()
            assert len(case.docs.pushes) == (told == "Pushed")
            case.resume("Finish it.")
            assert case.start().wait() == 0
            assert case.state.message == "done: Documented."
            results = [request.results for request in case.claude.requests if request.text == "Finish it."][-1]
            assert [result.text.partition(":")[0] for result in results] == [told, "Not run"]
            assert [output.status for output in case.found().outputs] == outcomes
            assert (len(case.docs.pushes), len(case.sdk.pushes)) == (1, 1)
