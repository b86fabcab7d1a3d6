"""Slack: read channels, threads and people; post, reply, update, react, upload and write to a person."""

from prefect_routines.connectors.slack.block import Slack

__all__ = ["Slack"]
