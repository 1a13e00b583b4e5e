"""The one file that Locust loads: `locust -f loadgen/`. One user class; everything else is in the rooms beside it."""

from loadgen import InferenceUser


class Inference(InferenceUser):
    """Sends the model's own request, built from the target's metadata or from --input."""
