"""The routines whose runs are killed while they send a message."""

from __future__ import annotations

from prefect_routines import Policy, routine


@routine(policy=Policy(allow=["slack_*"]))
def tell_slack() -> str:
    """Say it in Slack."""
    return "Say it."


@routine(policy=Policy(allow=["email_send"]))
def send_mail() -> str:
    """Say it in a mail."""
    return "Say it."


@routine(policy=Policy(allow=["twilio_send_sms"]))
def send_sms() -> str:
    """Say it in an SMS."""
    return "Say it."


@routine(policy=Policy(allow=["grafana_annotate"]))
def annotate_grafana() -> str:
    """Say it on a dashboard."""
    return "Say it."
