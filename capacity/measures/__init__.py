"""What is counted: series, tallies, and their encoding."""
