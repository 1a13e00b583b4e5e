"""Which rate to probe next, and what all probes say together."""
