"""Price catalogue, cost per 100,000 inferences, and the choice of hardware."""
