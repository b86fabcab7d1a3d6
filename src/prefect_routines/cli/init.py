"""`routines init`: a new project from the reference project - flows, blocks, deployments - that runs at once."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from prefect_routines.cli.terminal import console, text
from prefect_routines.errors import RoutinesError, SettingsError

PARTS = ("flows", "blocks", "deployments")
SKIPPED = ("__pycache__", ".pyc")
README = """\
# Routines

Proactive Claude agents on your own Prefect. A routine is a prompt and what it may use; one short file each in `flows/`.

    export ANTHROPIC_API_KEY=...
    routines run flows/ask.py --param prompt="What is in the workspace?"

The next steps:

1. `flows/docs_sync.py` is a whole routine: its repositories, what it may push, the check that must pass. Make it yours, then run it
   with `routines run flows/docs_sync.py`; `--rehearsal` shows what it would push without pushing.
2. Logins are Prefect blocks: `python blocks/save_anthropic.py`, `python blocks/save_github.py`.
3. `routines up` keeps Prefect's server, a worker and the gateway running; it says which PREFECT_API_URL other terminals need.
4. `routines deploy deployments/docs-sync.yaml` puts it to work on its schedule; `routines doctor` says what is missing.
5. `routines token create --scope steer --scope approve --name YOU`, then sign in at http://127.0.0.1:4280/sessions: watch, approve,
   step in.

`routines sessions` lists what ran, `routines waiting` what waits for you, `routines watch SESSION` shows one live.
"""
IGNORED = "__pycache__/\n.venv/\n.env\n"


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there.")],
    force: Annotated[bool, typer.Option("--force", help="Also where files are; none that differs is overwritten.")] = False,
) -> None:
    """Make a project with the routines we ship, ready to run."""
    if directory.exists() and not directory.is_dir():
        raise SettingsError(f"{directory} is a file; name a directory")
    if not force and directory.is_dir() and any(entry.name != ".git" for entry in directory.iterdir()):
        raise SettingsError(f"{directory} is not empty; name another directory, or use --force, which overwrites nothing that differs")
    wanted = {Path("README.md"): README.encode(), Path(".gitignore"): IGNORED.encode()}
    for part in PARTS:
        wanted.update(_files(_project() / part, Path(part)))
    kept = [path for path, content in wanted.items() if _differs(directory / path, content)]
    try:
        for path, content in wanted.items():
            if path not in kept:
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).write_bytes(content)
    except OSError as error:
        raise SettingsError(f"{error.filename or directory} cannot be written: {error.strerror}") from None
    out = console()
    out.print(text(("✓", "green"), f" {directory}: {', '.join(f'{part}/' for part in PARTS)} README.md"))
    for path in kept:
        out.print(text(("  kept ", "yellow"), f"{path}: it is there already and differs"))
    there = "" if directory.resolve() == Path.cwd() else f"cd {directory} && "
    out.print(text(("  next: ", "dim"), f'{there}routines run flows/ask.py --param prompt="What is in the workspace?"'))


def _project() -> Traversable:
    """The reference project: in the wheel inside the package, in a checkout at its root."""
    packaged = files("prefect_routines") / "project"
    if packaged.is_dir():
        return packaged
    root = Path(__file__).resolve().parents[3]
    if (root / "pyproject.toml").is_file() and (root / "flows").is_dir():
        return root
    raise RoutinesError("this installation lacks the reference project; install prefect-routines anew")


def _files(folder: Traversable, path: Path) -> Iterator[tuple[Path, bytes]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(SKIPPED):
            continue
        if entry.is_dir():
            yield from _files(entry, path / entry.name)
        else:
            yield path / entry.name, entry.read_bytes()


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() != content
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
