"""The web service that takes webhooks and API calls in and turns them into Prefect events and runs."""
