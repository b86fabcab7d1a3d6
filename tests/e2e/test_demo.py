"""`make demo`, as a person types it, but for the terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_demonstration_shows_a_routine_at_work() -> None:
    """It says that the model is scripted, a check fails once and is mended, a branch is pushed, the verdict and the cost are shown."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ROUTINES_", "ANTHROPIC_"))}
    done = subprocess.run(
        [sys.executable, "demo/run.py"], cwd=ROOT, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert "SCRIPTED MODEL" in said
    assert said.index("checks failed") < said.index("pushed docs: claude/docs-sync-") < said.index("done")
    assert re.search(r"http://127\.0\.0\.1:\d+/runs/flow-run/[0-9a-f-]{36}", said)
    assert "+# unslugify" in said
    assert re.search(r"cost +\$0\.\d+", said)
