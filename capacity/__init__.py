"""What was measured, and what to buy: reads and writes run directories, offline. Knows neither torch nor Locust."""
