"""The command `routines`: one module per command."""

from prefect_routines.cli.app import main

__all__ = ["main"]
