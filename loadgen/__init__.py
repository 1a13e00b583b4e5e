"""The load: `locust -f loadgen/` drives targets and records what they did. Never imports torch."""
