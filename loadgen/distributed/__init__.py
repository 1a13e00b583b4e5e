"""Snapshots to the master, validation and signing of messages, clock sync, local logs."""
