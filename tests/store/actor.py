"""A process with a session store that does what it is told, one JSON line in, one JSON line out; tests kill and stop it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import traceback
from typing import Any

from prefect_routines.errors import RoutinesError
from prefect_routines.store import Lease, Store


class Actor:
    store: Store
    lease: Lease

    async def open(self, url: str) -> str:
        self.store = await Store.open(url)
        return "opened"

    async def acquire(self, session_id: str, seconds: float) -> int:
        self.lease = await self.store.acquire(session_id, lease_seconds=seconds)
        return self.lease.fence

    async def append(self, count: int) -> list[int]:
        return await self.store.append(self.lease, [("test.entry", {"place": place}) for place in range(count)])

    async def append_many(self, session_id: str, batches: int) -> int:
        lease = await self.store.acquire(session_id)
        for batch in range(batches):
            await self.store.append(lease, [("test.entry", {"batch": batch, "place": place}) for place in range(3)])
        await self.store.release(lease)
        return batches

    async def append_for_ever(self, size: int) -> None:
        batch = 0
        while True:
            await self.store.append(self.lease, [("test.entry", {"batch": batch, "place": place, "of": size}) for place in range(size)])
            batch += 1
            print(json.dumps(batch), flush=True)

    async def limit_file_size(self, size: int) -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return "limited"

    async def read_in_fork(self) -> str:
        """What a child process hears that uses the store of its parent."""
        said_read, said_write = os.pipe()
        if os.fork() == 0:
            try:
                asyncio.run(self.store.sessions())
                text = "no error"
            except RoutinesError as error:
                text = str(error)
            os.write(said_write, text.encode())
            os._exit(0)
        os.close(said_write)
        with os.fdopen(said_read) as said:
            return said.read()

    async def open_in_forks(self, url: str, count: int) -> list[str]:
        """Fork after the import, open in all children at the same moment, collect what each says."""
        gate_read, gate_write = os.pipe()
        said_read, said_write = os.pipe()
        for _ in range(count):
            if os.fork() == 0:
                os.close(gate_write)
                os.read(gate_read, 1)  # returns at once for all when the parent closes its end
                try:
                    text = asyncio.run(_open_and_close(url))  # the parent's loop does not count in a forked process
                except BaseException as error:
                    text = f"{type(error).__name__}: {error}"
                os.write(said_write, (text.replace("\n", " ")[:400] + "\n").encode())
                os._exit(0)
        os.close(gate_write)
        os.close(said_write)
        with os.fdopen(said_read) as said:
            return said.read().splitlines()


async def _open_and_close(url: str) -> str:
    async with await Store.open(url) as store:
        await store.sessions()
    return "opened"


async def main() -> None:
    actor, loop = Actor(), asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps("ready"), flush=True)
    while line := await reader.readline():
        verb, *arguments = json.loads(line)
        try:
            reply: Any = await getattr(actor, verb)(*arguments)
        except RoutinesError as error:
            reply = {"error": type(error).__name__, "text": str(error)}
        except Exception:
            reply = {"error": "unexpected", "text": traceback.format_exc()}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
