"""What deployments need and find on the Prefect server and on this machine: blocks, work pools, webhook sources, the kind of store."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prefect_routines.deploying.problems import Problem, meant
from prefect_routines.errors import RoutinesError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import WorkPool

    from prefect_routines.deploying.checks import Checked
    from prefect_routines.tools.tool import Tool

POOL = "routines"
"""The work pool that is made when it is missing."""

ELSEWHERE = ("docker", "kubernetes", "ecs", "cloud-run", "cloud-run-v2", "vertex-ai", "azure-container-instance", "modal")
"""Types of work pools whose runs see another disk than this machine's."""


class Surroundings:
    """What the Prefect server has; read once, kept while files are checked.

    Args:
        client: Of Prefect's API.
        kindless: The webhook sources whose block does not say where a delivery names its kind: their events have one name.
    """

    def __init__(self, client: PrefectClient, pools: dict[str, WorkPool], blocks: Sequence[str], kindless: Collection[str] = ()) -> None:
        self._client, self.pools, self.blocks, self.kindless = client, pools, list(blocks), kindless
        self.sources = sorted(name for slug, _, name in (block.partition("/") for block in blocks) if slug == "webhook-source")
        self._opened: dict[str, list[Tool] | Exception] = {}

    @classmethod
    async def read(cls, client: PrefectClient) -> Surroundings:
        """Ask the server."""
        pools = {pool.name: pool for pool in await client.read_work_pools(limit=200)}
        documents = [document async for document in _blocks(client)]
        blocks = [f"{slug}/{name}" for slug, name, _ in documents]
        kindless = [name for slug, name, data in documents if slug == "webhook-source" and _is_kindless(data)]
        return cls(client, pools, blocks, kindless)

    async def problems(self, checked: Checked) -> list[Problem]:
        """What a deployment names and does not find, and a store that its runs could not share."""
        return [*self._pool_problems(checked), *await self._block_problems(checked), *await self._store_problems(checked)]

    def pool_of(self, checked: Checked) -> str | None:
        """Name of its work pool; Prefect's default when it names none."""
        written = checked.stanza.data.get("work_pool")
        name = written.get("name") if isinstance(written, dict) else None
        return str(name) if name else os.environ.get("PREFECT_DEFAULT_WORK_POOL_NAME")

    def _pool_problems(self, checked: Checked) -> list[Problem]:
        name, stanza = self.pool_of(checked), checked.stanza
        if name is None:
            return [stanza.problem(f"it has no work pool; write work_pool: {{name: {POOL}}}")]
        if name in self.pools or "{{" in name:
            return []
        if name == POOL:
            return [stanza.problem(f"the work pool {POOL!r} is not there yet; it is made", "work_pool", "name", weight="note")]
        there = meant(name, self.pools, otherwise=f"make it with: prefect work-pool create {one_line(name)} --type process")
        return [stanza.problem(f"there is no work pool {one_line(name)!r}{there}", "work_pool", "name")]

    async def _block_problems(self, checked: Checked) -> list[Problem]:
        """Connectors, credentials of repositories, Claude's login: named and missing."""
        settings = checked.settings
        if settings is None:
            return []
        named: dict[str, str] = dict.fromkeys(settings.connectors, "connectors")
        named |= {one.credentials: f"repositories: {one.name}: credentials" for one in settings.repositories if one.credentials}
        if settings.claude:
            named[settings.claude] = "claude"
        found: list[Problem] = []
        for reference, use in named.items():
            if reference not in self.blocks:
                slug = reference.partition("/")[0]
                mine = [block for block in self.blocks if block.startswith(f"{slug}/")]
                there = meant(reference, mine, otherwise=f"there is {', '.join(mine)}" if mine else "make it: see blocks/")
                text = f"settings: {use}: there is no block {reference!r} on this server{there}"
                found.append(checked.stanza.problem(text, "parameters", "settings", use.partition(":")[0]))
            elif use == "connectors" and isinstance(error := await self._open(reference), Exception):
                found.append(checked.stanza.problem(f"settings: {one_line(str(error), 300)}", "parameters", "settings", use))
        return found

    async def _open(self, reference: str) -> list[Tool] | Exception:
        """The tools of a connector's block, without logging in."""
        from prefect_routines.connectors.connector import load_connectors

        if reference not in self._opened:
            try:
                [(_, block)] = await load_connectors([reference])
                self._opened[reference] = block.open(reference.partition("/")[2]).tools
            except RoutinesError as error:
                self._opened[reference] = error
        return self._opened[reference]

    async def tools(self, checked: Checked) -> list[Tool] | None:
        """The tools of a deployment's connectors; None when one cannot be had."""
        if checked.settings is None or any(reference not in self.blocks for reference in checked.settings.connectors):
            return None
        opened = [await self._open(reference) for reference in checked.settings.connectors]
        return (
            None if any(isinstance(one, Exception) for one in opened) else [tool for one in opened if isinstance(one, list) for tool in one]
        )

    async def _store_problems(self, checked: Checked) -> list[Problem]:
        """SQLite is one machine's: runs on another would start from nothing, or see none of the deliveries."""
        from prefect_routines.store.database import database_url

        name = self.pool_of(checked)
        pool = self.pools.get(name) if name else None
        if pool is None or not str(database_url(None)).startswith("sqlite"):
            return []
        elsewhere = f"the work pool {pool.name!r} is of type {pool.type}: its runs are" if pool.type in ELSEWHERE else None
        if elsewhere is None and (hosts := await self._other_hosts(pool.name)):
            elsewhere = f"the work pool {pool.name!r} has workers on {', '.join(hosts)}: their runs are"
        if elsewhere is None:
            return []
        remedy = "give all machines one PostgreSQL with ROUTINES_DATABASE_URL"
        return [
            checked.stanza.problem(f"{elsewhere} on another machine, and the session store is SQLite on this one; {remedy}", "work_pool")
        ]

    async def _other_hosts(self, pool: str) -> list[str]:
        """Hosts of workers that are at work elsewhere, as far as their names tell: our own are called after their host."""
        from prefect.client.schemas.filters import WorkerFilter

        workers: list[Any] = []
        with suppress(Exception):
            workers = await self._client.read_workers_for_work_pool(pool, worker_filter=WorkerFilter(status={"any_": ["ONLINE"]}))
        hosts = {worker.name.partition("@")[2] for worker in workers if "@" in worker.name}
        return sorted(hosts - {socket.gethostname()})

    async def make_pool(self) -> str:
        """Make the work pool `routines`; says of which type it is."""
        from prefect.client.schemas.actions import WorkPoolCreate
        from prefect.workers.base import BaseWorker

        worker = BaseWorker.get_worker_class_from_type(POOL) or BaseWorker.get_worker_class_from_type("process")
        assert worker is not None
        made = WorkPoolCreate(name=POOL, type=worker.type, base_job_template=worker.get_default_base_job_template())
        self.pools[POOL] = await self._client.create_work_pool(made)
        return worker.type


def _is_kindless(source: Mapping[str, Any]) -> bool:
    """Whether all deliveries of a webhook source become events of one name. GitHub's are named otherwise."""
    shape = source.get("shape") or {}
    return source.get("signature") != "github" and not any(shape.get(name) for name in ("preset", "kind", "kind_header"))


async def _blocks(client: PrefectClient) -> AsyncIterator[tuple[str, str, Mapping[str, Any]]]:
    """All named blocks: type, name, data."""
    offset, size = 0, 200
    while True:
        found = await client.read_block_documents(limit=size, offset=offset, include_secrets=False)
        for document in found:
            if document.name and document.block_type is not None:
                yield document.block_type.slug, document.name, document.data
        if len(found) < size:
            return
        offset += size
