"""The tests of the loop notice when one of its rules is broken: each mutation of the source makes one of them fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .mutants import MAY_HANG, MUTANTS, PACKAGE, Mutant, node

pytestmark = pytest.mark.timeout(2400)  # all mutants run before the first of these tests is judged
TESTS = Path(__file__).parents[1]
FAILED = 1  # pytest's exit status for "tests ran and some failed"
Statuses = dict[str, int | None]


@pytest.fixture(scope="module")
def statuses(prefect_server: str, tmp_path_factory: pytest.TempPathFactory, let_others_in: Callable[[Path], None]) -> Iterator[Statuses]:
    """How the tests ended against each mutant, and, under the empty name, all of them against the source as it is."""
    place = tmp_path_factory.mktemp("mutants")
    let_others_in(place)  # the session's own user reads the sandbox's supervisor from the copy
    jobs = [_job("", None, sorted({test for mutant in MUTANTS for test in mutant.tests}), place / "unchanged")]
    jobs += [_job(mutant.rule, mutant, list(mutant.tests), place / str(number)) for number, mutant in enumerate(MUTANTS)]
    environment = {**os.environ, "TEST_PREFECT_API_URL": prefect_server, "PYTHONDONTWRITEBYTECODE": "1"}
    runner = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("mutant_runner.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=TESTS,
    )
    with runner:
        said, _ = runner.communicate("\n".join(json.dumps(job) for job in jobs))
    told = {answer["name"]: answer["status"] for answer in map(json.loads, said.splitlines())}
    if told[""] != 0:
        pytest.fail(f"the tests fail without any mutation:\n{Path(jobs[0]['log']).read_text()[-5000:]}")
    yield told
    shutil.rmtree(place, ignore_errors=True)


def _job(name: str, mutant: Mutant | None, tests: list[str], place: Path) -> dict[str, object]:
    copy = place / "prefect_routines"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        mutant.apply(copy)
    seconds = 8 if name in MAY_HANG else 240 if name else 900
    return {"name": name, "package": str(place), "tests": [node(test) for test in tests], "log": str(place / "log"), "seconds": seconds}


def test_the_table_fits_the_source() -> None:
    """Each mutation finds its place, exactly once, and each rule has a name of its own."""
    stale = [mutant.rule for mutant in MUTANTS if (PACKAGE / mutant.file).read_text().count(mutant.old) != 1]
    assert stale == []
    assert len({mutant.rule for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.rule for mutant in MUTANTS} >= MAY_HANG


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.rule for mutant in MUTANTS])
def test_a_broken_rule_is_noticed(mutant: Mutant, statuses: Statuses) -> None:
    """The tests named for it fail - they do not merely fail to start -, or the loop does not end where that is what the mutation does."""
    noticed = (FAILED, None) if mutant.rule in MAY_HANG else (FAILED,)
    assert statuses[mutant.rule] in noticed, f"no test notices: {mutant.rule}"
