"""Run directories: run.json, run.hlog, generators' logs, telemetry, merge and recovery."""
