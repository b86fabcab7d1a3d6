"""Putting routines to work: prefect files are checked, deployed through Prefect, their triggers gated; fire times, one-off runs, pauses."""
