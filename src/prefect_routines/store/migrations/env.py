"""Alembic's entry: runs the migrations on the connection that `store/migrate.py` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from prefect_routines.store.migrate import VERSION_TABLE
from prefect_routines.store.tables import metadata


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """The database may be Prefect's own: look at no table but ours."""
    return kind != "table" or (name or "").startswith("routines_")


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=_ours,
)
context.run_migrations()
