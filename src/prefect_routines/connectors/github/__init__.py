"""GitHub: repositories, issues, pull requests, releases and workflows; with writes that a rule must allow."""

from prefect_routines.connectors.github.block import GitHub

__all__ = ["GitHub"]
