"""`python -m prefect_routines.testing.claude --script FILE.py:NAME`: a scripted Claude for other processes."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from pathlib import Path
from typing import cast

from prefect_routines.testing.api import ScriptedClaude, ScriptProblems, Scripts

__all__ = ["ScriptProblems", "ScriptedClaude", "main"]

STOP = {signal.SIGINT, signal.SIGTERM}


def load(reference: str) -> Scripts:
    """The script NAME of FILE.py, from `FILE.py:NAME`."""
    file, _, name = reference.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file) if file else None
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise SystemExit(f"--script {reference}: give a Python file and the name of a script in it, as in demo/script.py:SCRIPT")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise SystemExit(f"--script {reference}: {file} defines no {name}")
    return cast(Scripts, getattr(module, name))


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; prints the URL first. Exit status 1 and a list on stderr if there were problems."""
    parser = argparse.ArgumentParser(prog="python -m prefect_routines.testing.claude", description=__doc__)
    parser.add_argument("--script", required=True, metavar="FILE.py:NAME", help="the script to play")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--api-key", default="sk-ant-scripted", help="the only key accepted")
    options = parser.parse_args(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)  # before the server's thread starts, which inherits it; else it would end by the signal
    claude = ScriptedClaude(load(options.script), api_key=options.api_key, port=options.port).start()
    sys.stdout.write(f"{claude.url}\n")
    sys.stderr.write(f"Point a routine at it: export {' '.join(f'{name}={value}' for name, value in claude.environment().items())}\n")
    sys.stdout.flush()
    signal.sigwait(STOP)
    claude.stop()
    sys.stderr.writelines(f"{problem}\n" for problem in claude.problems)
    return int(bool(claude.problems))


if __name__ == "__main__":
    raise SystemExit(main())
