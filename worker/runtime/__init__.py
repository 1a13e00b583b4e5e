"""Execution contexts, host and device copies, TorchScript files and their specifications."""
