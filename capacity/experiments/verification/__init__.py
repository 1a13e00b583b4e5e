"""Verifying a plan by running its fleet, or the part of it that this machine can run."""

from capacity.experiments.verification.local_capacity import LocalCapacity
from capacity.experiments.verification.verify import verify_plan

__all__ = ["LocalCapacity", "verify_plan"]
