"""A deployment of a prefect file, made from a few lines."""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

from prefect_routines.deploying.files import Stanza, read_file


def stanza(text: str) -> Stanza:
    """The deployment `a` with these further lines."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "a.yaml"
        body = textwrap.indent(textwrap.dedent(text), "    ")
        file.write_text(f"deployments:\n  - name: a\n    entrypoint: flows/ask.py:ask\n{body}")
        [found], problems = read_file(file)
    assert problems == []
    return found


def trigger(text: str) -> Stanza:
    """The deployment `a` with one trigger, given in flow style."""
    return stanza(f"triggers:\n  - {{{text}}}\n")
