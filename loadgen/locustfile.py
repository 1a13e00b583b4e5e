"""The one file that Locust loads: `locust -f loadgen/`. One user class; the folders beside it do the work."""

import sys

from loadgen._errors import LocustVersionError

try:
    from loadgen import InferenceUser
except LocustVersionError as error:
    print(f"inferload: error: {error}", file=sys.stderr)
    raise SystemExit(2) from None


class Inference(InferenceUser):
    """Sends the model's own request, built from the target's metadata or from --input."""
