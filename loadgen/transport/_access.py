"""Credentials for a target: TLS, a client certificate, a bearer token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc

from loadgen.transport.http2 import Security


@dataclass(frozen=True)
class Access:
    """Without `security` there is no TLS. The token is never in a repr, a log or a report."""

    security: Security | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What grpcio sends with every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel(self, address: str, options: tuple[tuple[str, Any], ...]) -> Any:
        """A grpcio channel of this access."""
        if self.security is None:
            return grpc.insecure_channel(address, options=options)
        security = self.security
        if security.server_name:
            options = (*options, ("grpc.ssl_target_name_override", security.server_name))
        credentials = grpc.ssl_channel_credentials(security.root_ca, security.client_key, security.client_cert)
        return grpc.secure_channel(address, credentials, options=options)
