"""Probes of the highest rate within an SLO."""
