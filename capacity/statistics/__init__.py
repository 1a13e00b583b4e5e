"""HDR histograms and their encoding, intervals, SLO verdicts, tests of arrivals."""
