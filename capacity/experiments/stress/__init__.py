"""Stress tests of whole machines, one scenario per file."""
