"""kill -9 of the worker between the answer of a person and the process that is to go on with it: another worker goes on, once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from prefect_routines.steering.acts import Person, answer
from prefect_routines.steering.form import uniform_answer
from prefect_routines.store import Form
from prefect_routines.testing import ScriptedClaude

from .asking_world import TELLS, World
from .place import Place


@pytest.mark.timeout(300)
def test_another_worker_goes_on(make_place: Callable[[str], Place], tmp_path: Path) -> None:
    """With a run that the killed one had claimed and not started, and with one that was answered while nobody was there."""
    place = make_place("answered")
    first = place.worker()
    with ScriptedClaude(TELLS) as claude:
        world = World(place, "answered", tmp_path, claude)
        claimed, left = world.start(), world.start()
        forms = world.form(claimed), world.form(left)
        zygote = first.zygote()
        os.kill(zygote, signal.SIGSTOP)  # the process that it is to fork is never there
        try:
            approve(world, forms[0])
            place.until(claimed, "PENDING")
        finally:
            first.kill()
            os.kill(zygote, signal.SIGKILL)
        approve(world, forms[1])
        assert (place.run(left)["state_name"], world.told) == ("Resuming", [])
        place.worker()
        world.went_on_once(left)
        world.went_on_once(claimed)  # a claim holds for a minute
        assert world.told == ["all: Hello"] * 2
        assert len(claude.requests) == 4


def approve(world: World, form: Form) -> None:
    world.in_store(lambda store: answer(store, form, uniform_answer(form.content, "approve"), Person("ada", "cli")))
