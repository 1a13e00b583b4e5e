"""Kinds of accelerators: one file per kind, discovery and registry."""
