"""A pool of workers as a queue: profiles, arrivals, engines."""
