"""The load generator: `locust -f loadgen/` sends requests to targets and records the results. It never imports torch.

`from loadgen import InferenceUser` is the public class for a locustfile of your own. It is imported on first use, so
that importing this package for anything else imports neither Locust nor gevent.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadgen._user import InferenceUser

__all__ = ["InferenceUser"]


def __getattr__(name: str) -> Any:
    if name == "InferenceUser":
        from loadgen._locust_version import check_locust

        check_locust()
        from loadgen._user import InferenceUser

        return InferenceUser
    raise AttributeError(f"module 'loadgen' has no attribute {name!r}")
