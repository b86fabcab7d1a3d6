"""Snapshots of a workspace in Prefect's result storage: packed and unpacked in the sandbox, checked by their hash on the way back.

The host only carries the bytes, in parts, through a file of its own: whatever the model has put there, no host program looks into it.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect_routines.workspace.sandbox import Sandbox

MIB = 1024 * 1024
PART = 16 * MIB
PACK = ("tar", "--create", "--file=-", "--sparse", "--one-file-system", "--ignore-failed-read", "--numeric-owner", "-I", "gzip -1", ".")
UNPACK = ("tar", "--extract", "--file=-", "--gzip", "--no-same-owner", "--preserve-permissions", "--delay-directory-restore")
SECONDS = 900.0


class Storage(Protocol):
    """The part of a Prefect file system block that snapshots need. Its methods may be coroutines or not."""

    def read_path(self, path: str) -> Any: ...
    def write_path(self, path: str, content: bytes) -> Any: ...


class NotKept(RoutinesError):
    """No snapshot was made; the reason, in one line."""


class SnapshotMissing(RoutinesError):
    """A snapshot cannot be had from where it was put; the reason, in one line."""


async def result_storage() -> Storage:
    """Where the flow run under way keeps its results; outside of one, Prefect's default.

    https://docs.prefect.io/v3/advanced/results
    """
    from prefect.context import FlowRunContext
    from prefect.results import aget_default_result_storage

    context = FlowRunContext.get()
    store = context.result_store if context is not None else None
    if store is not None and store.result_storage is not None:
        return store.result_storage
    return await aget_default_result_storage()


def place_of(storage: Storage) -> dict[str, str]:
    """How the storage is found again from another process: by its block, or by its directory."""
    block = getattr(storage, "_block_document_id", None)
    if block is not None:
        return {"block": str(block)}
    path = getattr(storage, "basepath", None)
    return {"path": str(path)} if path else {}


async def storages_of(snapshot: dict[str, Any]) -> list[Storage]:
    """Where to look for a snapshot: where it was put, then where this process keeps its results."""
    from uuid import UUID

    from prefect.filesystems import LocalFileSystem
    from prefect.results import aresolve_result_storage

    found: list[Storage] = []
    place = snapshot.get("storage", {})
    if "block" in place:
        try:
            found.append(await aresolve_result_storage(UUID(place["block"])))
        except Exception as error:  # a block that is gone, or of a kind that is not installed here
            raise SnapshotMissing(f"its storage block {place['block']} cannot be used here: {one_line(str(error), 200)}") from error
    elif "path" in place:
        found.append(LocalFileSystem(basepath=place["path"]))
    return [*found, await result_storage()]


async def take(box: Sandbox, storage: Storage, prefix: str, *, most: int, scratch: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Pack all of /workspace and put it into the storage.

    Args:
        box: The living sandbox.
        prefix: Key under which its parts are kept; a random word is added, so that nothing is ever replaced.
        most: Bytes that it may have, compressed.
        scratch: Host directory for the bytes on their way.
        seconds: How long it may take.

    Returns:
        What the journal keeps of it.

    Raises:
        NotKept: It is too large, took too long, or could not be written.
    """
    digest, size, said = hashlib.sha256(), 0, bytearray()
    key = f"{prefix}-{secrets.token_hex(4)}"
    try:
        async with asyncio.timeout(seconds):
            with tempfile.TemporaryFile(dir=scratch) as spool:

                def keep(stream: int, piece: bytes) -> None:
                    nonlocal size
                    if stream == 1:
                        size += len(piece)
                        digest.update(piece)
                        spool.write(piece)
                    elif len(said) < 4000:
                        said.extend(piece)

                done = await box.run(PACK, timeout=seconds, max_output=most + 65536, on_output=keep)
                if size > most or done.truncated:
                    raise NotKept(f"it is larger than {most // MIB:,} MB compressed; raise limits.snapshot_mb, or leave less behind")
                if done.timed_out or done.exit_code not in (0, 1):  # 1: a file changed while it was read
                    lines = said.decode("utf-8", "replace").strip().splitlines()
                    raise NotKept(f"tar failed in the sandbox: {one_line(lines[-1] if lines else 'it took too long', 200)}")
                spool.seek(0)
                parts = 0
                while piece := spool.read(PART):
                    await _done(storage.write_path(f"{key}/{parts:04}", piece))
                    parts += 1
    except TimeoutError:
        raise NotKept(f"it was not done within {seconds:g} s") from None
    except RoutinesError:
        raise
    except Exception as error:  # a disk that is full, a storage that cannot be reached: each block has errors of its own
        raise NotKept(f"it could not be stored: {type(error).__name__}: {one_line(str(error), 200)}") from error
    return {"key": key, "parts": parts, "bytes": size, "sha256": digest.hexdigest(), "storage": place_of(storage)}


async def download(snapshot: dict[str, Any], storages: Sequence[Storage], destination: Path) -> None:
    """Write a snapshot's bytes into a file, from the first storage that has them as they were.

    Raises:
        SnapshotMissing: None has.
    """
    why = "no storage is configured"
    for storage in storages:
        digest = hashlib.sha256()
        try:
            with destination.open("wb") as file:
                for number in range(snapshot["parts"]):
                    piece = await _done(storage.read_path(f"{snapshot['key']}/{number:04}"))
                    digest.update(piece)
                    file.write(piece)
        except Exception as error:  # each block has its own way to say that there is nothing
            why = f"{type(error).__name__}: {one_line(str(error), 200)}"
            continue
        if digest.hexdigest() == snapshot["sha256"]:
            return
        why = "what is stored is not what was put there (its hash is another)"
    destination.unlink(missing_ok=True)
    raise SnapshotMissing(why)


async def unpack(box: Sandbox, file: Path) -> None:
    """Unpack a downloaded snapshot into /workspace, inside the sandbox.

    Raises:
        SnapshotMissing: tar could not.
    """
    done = await box.run(UNPACK, stdin=file, timeout=SECONDS, max_output=65536)
    if done.exit_code:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SnapshotMissing(f"it cannot be unpacked: {one_line(lines[-1] if lines else 'tar ended early', 200)}")


async def restore(box: Sandbox, snapshot: dict[str, Any], scratch: Path) -> None:
    """Bring a snapshot back into /workspace.

    Raises:
        SnapshotMissing: It is not to be had, damaged, or does not fit.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix="snapshot-") as place:
        file = Path(place) / "workspace.tar.gz"
        await download(snapshot, await storages_of(snapshot), file)
        await unpack(box, file)


async def _done(made: Any) -> Any:
    return await made if inspect.isawaitable(made) else made
