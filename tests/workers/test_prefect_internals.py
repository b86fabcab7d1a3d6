"""The contract with Prefect's private names: all of them are there, and one that is not is told by name."""

from __future__ import annotations

import inspect
from pathlib import Path

import prefect
import pytest
from prefect import flow, get_client
from prefect.states import Paused, Running, Scheduled, State, Suspended

import prefect_routines
from prefect_routines.workers import prefect_internals
from prefect_routines.workers.prefect_internals import NEEDED, missing, state_proposer


def test_the_installed_prefect_has_every_private_name_that_the_worker_needs() -> None:
    """When this fails, prefect_internals.py is what has to follow Prefect."""
    lacks = missing()
    assert not lacks, f"Prefect {prefect.__version__} lacks {', '.join(lacks)}"


@pytest.mark.parametrize(
    ("module", "name", "argument", "told"),
    [
        ("prefect.runner._gone", "Runner", "x", "prefect.runner._gone.Runner"),
        ("prefect.workers.base", "BaseWorker.gone", "x", "prefect.workers.base.BaseWorker.gone"),
        ("prefect.workers.base", "BaseWorker.run", "gone", "prefect.workers.base.BaseWorker.run(gone=)"),
    ],
)
def test_what_a_prefect_lacks_is_named(module: str, name: str, argument: str, told: str) -> None:
    """A module, a name in it, an argument: each is told so that one can search for it."""
    assert missing({module: {name: (argument,)}}) == [told]


def test_private_modules_of_prefect_are_named_in_one_file_and_in_its_contract() -> None:
    """No other module of the worker knows them, and none is used that the contract does not list."""
    workers = Path(prefect_routines.__file__).parent / "workers"
    for path in workers.glob("*.py"):
        if path.name != "prefect_internals.py":
            assert "prefect.runner" not in path.read_text().replace('"prefect.runner.storage"', ""), path
    source = inspect.getsource(prefect_internals)
    used = {line.split()[1] for line in source.splitlines() if line.strip().startswith("from prefect.runner._")}
    assert used
    assert used <= set(NEEDED)


@flow
def _idle() -> None:
    """Is said to run here."""


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (Running(), "Crashed"),
        (Paused(timeout_seconds=86_400), "Crashed"),
        (Suspended(timeout_seconds=86_400), "Suspended"),
        (Scheduled(name="Resuming"), "Resuming"),
        (Scheduled(), "Crashed"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
async def test_a_run_that_its_process_had_suspended_does_not_crash_with_it(prefect_server: str, state: State[None], after: str) -> None:
    """The process may be killed while it closes: what waits for a person, or was told to go on, does so in another one."""
    async with get_client() as client:
        run = await client.create_flow_run(_idle)
        await client.set_flow_run_state(run.id, state, force=True)
        await state_proposer(client).propose_crashed(run, "killed")
        now = (await client.read_flow_run(run.id)).state
    assert now is not None
    assert now.name == after
