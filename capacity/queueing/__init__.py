"""Queues of single-threaded ordinals, which `capacity.simulate` plays pools with."""
