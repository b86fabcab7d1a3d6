"""The Prefect worker type `routines`: takes runs by push and forks each from a process that has everything imported."""
