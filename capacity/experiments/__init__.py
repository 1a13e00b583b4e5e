"""Everything that starts processes: fleets, Locust, plan verification, stress tests."""
