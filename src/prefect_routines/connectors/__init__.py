"""Connectors: Prefect blocks that give a session tools for outside services."""
