"""Results into histograms per hardware combination; the generator's own health."""
