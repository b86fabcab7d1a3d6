"""The events that GitHub sends, with their actions, and the labels they have here. Pure data.

https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

_PULL_REQUEST = (
    "assigned auto_merge_disabled auto_merge_enabled closed converted_to_draft demilestoned dequeued edited enqueued labeled locked "
    "milestoned opened ready_for_review reopened review_request_removed review_requested synchronize unassigned unlabeled unlocked"
)
_ISSUES = (
    "assigned closed deleted demilestoned edited labeled locked milestoned opened pinned reopened transferred typed unassigned unlabeled "
    "unlocked unpinned untyped"
)

ACTIONS: dict[str, tuple[str, ...]] = {
    name: tuple(actions.split())
    for name, actions in {
        "branch_protection_configuration": "disabled enabled",
        "branch_protection_rule": "created deleted edited",
        "check_run": "completed created requested_action rerequested",
        "check_suite": "completed requested rerequested",
        "code_scanning_alert": "appeared_in_branch closed_by_user created fixed reopened reopened_by_user updated_assignment",
        "commit_comment": "created",
        "create": "",
        "custom_property": "created deleted promote_to_enterprise updated",
        "custom_property_values": "updated",
        "delete": "",
        "dependabot_alert": "assignees_changed auto_dismissed auto_reopened created dismissed fixed reintroduced reopened",
        "deploy_key": "created deleted",
        "deployment": "created",
        "deployment_protection_rule": "requested",
        "deployment_review": "approved rejected requested",
        "deployment_status": "created",
        "discussion": "answered category_changed closed created deleted edited labeled locked pinned reopened transferred unanswered "
        "unlabeled unlocked unpinned",
        "discussion_comment": "created deleted edited",
        "fork": "",
        "github_app_authorization": "revoked",
        "gollum": "",
        "installation": "created deleted new_permissions_accepted suspend unsuspend",
        "installation_repositories": "added removed",
        "installation_target": "renamed",
        "issue_comment": "created deleted edited pinned unpinned",
        "issue_dependencies": "blocked_by_added blocked_by_removed blocking_added blocking_removed",
        "issues": _ISSUES,
        "label": "created deleted edited",
        "marketplace_purchase": "cancelled changed pending_change pending_change_cancelled purchased",
        "member": "added edited removed",
        "membership": "added removed",
        "merge_group": "checks_requested destroyed",
        "meta": "deleted",
        "milestone": "closed created deleted edited opened",
        "org_block": "blocked unblocked",
        "organization": "deleted member_added member_invited member_removed renamed",
        "package": "published updated",
        "page_build": "",
        "personal_access_token_request": "approved cancelled created denied",
        "ping": "",
        "projects_v2": "closed created deleted edited reopened",
        "projects_v2_item": "archived converted created deleted edited reordered restored",
        "projects_v2_status_update": "created deleted edited",
        "public": "",
        "pull_request": _PULL_REQUEST,
        "pull_request_review": "dismissed edited submitted",
        "pull_request_review_comment": "created deleted edited",
        "pull_request_review_thread": "resolved unresolved",
        "push": "",
        "registry_package": "published updated",
        "release": "created deleted edited prereleased published released unpublished",
        "repository": "archived created deleted edited privatized publicized renamed transferred unarchived",
        "repository_advisory": "published reported",
        "repository_dispatch": "",  # its action is whatever the sender chose
        "repository_import": "",
        "repository_ruleset": "created deleted edited",
        "repository_vulnerability_alert": "create dismiss reopen resolve",
        "secret_scanning_alert": "assigned created publicly_leaked reopened resolved unassigned validated",
        "secret_scanning_alert_location": "created",
        "secret_scanning_scan": "completed",
        "security_advisory": "published updated withdrawn",
        "security_and_analysis": "",
        "sponsorship": "cancelled created edited pending_cancellation pending_tier_change tier_changed",
        "star": "created deleted",
        "status": "",
        "sub_issues": "parent_issue_added parent_issue_removed sub_issue_added sub_issue_removed",
        "team": "added_to_repository created deleted edited removed_from_repository",
        "team_add": "",
        "watch": "started",
        "workflow_dispatch": "",
        "workflow_job": "completed in_progress queued waiting",
        "workflow_run": "completed in_progress requested",
    }.items()
}
"""The actions of each event; an event without actions is called `github.push` and the like."""

FREE_ACTIONS = ("repository_dispatch",)

LABELS = (
    "prefect.resource.id", "prefect.resource.name",
    *(
        f"github.{name}"
        for name in (
            "event", "action", "repository", "owner", "actor", "actor_type", "author", "association", "base", "head", "draft", "merged",
            "fork", "ref", "tag", "number", "sha", "state",
        )
    ),
)  # fmt: skip
"""What `match` may name on an event of GitHub's."""

RELATED = ("prefect.resource.id", "prefect.resource.role", "prefect.resource.name", "github.label", "github.login")
"""What `match_related` may name."""

ROLES = ("label", "actor", "author")
"""Roles of related resources: the labels of an issue or pull request, who did it, who wrote the issue or pull request."""

FLAGS = ("github.draft", "github.merged", "github.fork")
"""Labels that are 'true' or 'false'."""

HINTS = {
    "github.title": "text of strangers is no label; use `settings.when` on the payload, e.g. issue.title",
    "github.body": "text of strangers is no label; use `settings.when` on the payload, e.g. issue.body",
    "github.label": "labels are related resources: put it under `match_related`",
    "github.labels": "labels are related resources: `match_related: {prefect.resource.role: label, github.label: NAME}`",
    "github.login": "people are related resources: put it under `match_related`, or match `github.actor` or `github.author`",
}
"""Labels that people try, and what to write instead."""


def events() -> list[str]:
    """All names: `github.push`, `github.issues.opened`, ..."""
    return [f"github.{name}{f'.{action}' if action else ''}" for name, actions in ACTIONS.items() for action in actions or ("",)]
