"""Which server: discovery, router, health checks, payloads, output checks."""
