"""Counters, histograms, metrics page, telemetry, logging, TLS and tokens."""
