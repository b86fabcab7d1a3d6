"""Errors as values: they go through Prefect's result storage and into other processes."""

from __future__ import annotations

import pickle

import pytest

from prefect_routines.errors import LeaseHeld, LeaseLost, OutputLimit, RepositoryError, RoutinesError, SettingsError
from prefect_routines.verdict import Outcome, WorkNotDone
from prefect_routines.workspace.git import GitError

ERRORS = [
    SettingsError("wrong"),
    RepositoryError("docs", "gone"),
    GitError("docs", "fetch", "fatal: no", 128),
    LeaseHeld("s1", "process 1 on here", 3.0),
    LeaseLost("s1", 2),
    OutputLimit("push x1", 1),
    WorkNotDone(Outcome("s1", "failed", "It failed.")),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_pickle(error: RoutinesError) -> None:
    """Else whoever waits for the run's result gets a TypeError instead of the reason."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
