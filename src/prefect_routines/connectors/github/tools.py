"""All tools of the connector."""

from __future__ import annotations

from prefect_routines.connectors.github.actions import ActionReads
from prefect_routines.connectors.github.code import CodeReads
from prefect_routines.connectors.github.conversation import ConversationWrites
from prefect_routines.connectors.github.delivery import CheckWrites, DeliveryWrites
from prefect_routines.connectors.github.discussions import DiscussionReads
from prefect_routines.connectors.github.state import StateWrites


class GitHubTools(CodeReads, DiscussionReads, ActionReads, ConversationWrites, StateWrites, DeliveryWrites):
    """What anybody with a token may do."""


class GitHubAppTools(GitHubTools, CheckWrites):
    """And what only Apps may."""
