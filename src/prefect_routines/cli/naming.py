"""The routine that a person names, and parameters as a person types them for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_routines.errors import SettingsError
from prefect_routines.visible import one_line

if TYPE_CHECKING:
    import typer
    from prefect.client.orchestration import PrefectClient

    from prefect_routines.deploying.deployed import Deployed

T = TypeVar("T")


def with_prefect(context: typer.Context, work: Callable[[PrefectClient], Awaitable[T]]) -> T:
    """Do something with Prefect's API; what goes wrong there becomes one line."""
    import asyncio

    from prefect_routines.cli.run import prepare_prefect

    prepare_prefect(context.obj)
    from prefect import get_client

    from prefect_routines.cli.server import prefect_errors

    async def with_client() -> T:
        async with get_client() as client:
            return await work(client)

    with prefect_errors():
        return asyncio.run(with_client())


async def named(client: PrefectClient, name: str) -> Deployed:
    """The deployment that a name means.

    Raises:
        SettingsError: None, or several.
    """
    from prefect_routines.deploying.deployed import find, read_deployed

    return find(name, await read_deployed(client))


def typed_parameters(deployed: Deployed, texts: Sequence[str]) -> dict[str, Any]:
    """Parameters from `NAME=VALUE`, typed as the deployment's form has them.

    Raises:
        SettingsError: One is not of that form, is unknown, missing, or does not fit.
    """
    from prefect_routines.cli.parameters import check_text, read_value
    from prefect_routines.deploying.starting import check_parameters

    schema = deployed.data.get("parameter_openapi_schema") or {}
    values: dict[str, Any] = {}
    for said in texts:
        name, equals, raw = said.partition("=")
        if not equals:
            raise SettingsError(f"--param {one_line(said)}: write it as NAME=VALUE")
        if name in values:
            raise SettingsError(f"the parameter {one_line(name)!r} is given twice")
        values[name] = read_value(raw, (schema.get("properties") or {}).get(name, {}), schema.get("definitions") or {})
        check_text(values[name], f"parameter {name!r}")
    check_parameters(deployed, values)
    return values
