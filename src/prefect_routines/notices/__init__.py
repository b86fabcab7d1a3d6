"""What is told outside a session: webhooks that we send, and asking people where they are - in Slack, by e-mail."""
