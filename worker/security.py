"""Who may call: TLS, mutual TLS, and a bearer token."""

import hmac
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from worker.errors import UsageError

# Called without a token: an orchestrator's probe has none, and learns nothing but whether the worker is well.
_OPEN_PREFIX = "/grpc.health."


@dataclass(frozen=True)
class Security:
    """File names, None where the feature is off. A client CA makes TLS mutual."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token_file: Path | None = None

    def credentials(self) -> Any | None:
        """gRPC's server credentials, or None without TLS. UsageError where a file is missing or no PEM."""
        if self.certificate is None and self.key is None:
            if self.client_ca is not None:
                raise UsageError("--tls-client-ca needs --tls-cert and --tls-key")
            return None
        if self.certificate is None or self.key is None:
            raise UsageError("--tls-cert and --tls-key go together")
        try:
            # gRPC says nothing of a bad file but that the port cannot be bound; the standard library does.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
            authorities = self.client_ca.read_bytes() if self.client_ca is not None else None
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"the TLS files cannot be used: {error}") from None
        return grpc.ssl_server_credentials(
            [pair], root_certificates=authorities, require_client_auth=authorities is not None
        )

    def interceptors(self) -> list[Any]:
        if self.token_file is None:
            return []
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {self.token_file} cannot be read: {error}") from None
        if not token:
            raise UsageError(f"--token-file {self.token_file} is empty")
        return [_BearerToken(token)]


class _BearerToken(grpc.aio.ServerInterceptor):
    """Refuses every call but health checks with UNAUTHENTICATED unless it carries the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN_PREFIX):
            return handler
        for name, value in details.invocation_metadata:
            given = value if isinstance(value, bytes) else value.encode()
            if name == "authorization" and hmac.compare_digest(given, self._expected):
                return handler
        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return make(_unauthenticated)


async def _unauthenticated(request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed in the metadata: authorization")
