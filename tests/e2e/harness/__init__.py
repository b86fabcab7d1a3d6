"""A whole session in a process that can be killed at any moment, and the oracle that says what must hold afterwards."""
