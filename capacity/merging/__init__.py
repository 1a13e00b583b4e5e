"""Several runs, or the logs of one run's generators, made into one run directory."""
