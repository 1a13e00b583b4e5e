"""Who may call: TLS, mutual TLS, and a bearer token."""

import hmac
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.errors import UsageError
from worker.server import Metadata

# Called without a token: an orchestrator's probe has none, and learns nothing but whether the worker is well.
_OPEN_PREFIX = "/grpc.health."


@dataclass(frozen=True)
class Security:
    """File names, None where the feature is off. A client CA makes TLS mutual."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token_file: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """TLS for a server of HTTP/2, or None without it. UsageError where a file is missing or no PEM."""
        if self.certificate is None and self.key is None:
            if self.client_ca is not None:
                raise UsageError("--tls-client-ca needs --tls-cert and --tls-key")
            return None
        if self.certificate is None or self.key is None:
            raise UsageError("--tls-cert and --tls-key go together")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["h2"])
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")  # an encrypted key: no question
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise UsageError(f"the TLS files cannot be used: {error}") from None
        return context

    def authorized(self) -> Callable[[str, Metadata], bool]:
        """Whether a call may be made: all, or those that carry the token, and health checks. UsageError where the
        token's file cannot be read."""
        if self.token_file is None:
            return lambda path, metadata: True
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {self.token_file} cannot be read: {error}") from None
        if not token:
            raise UsageError(f"--token-file {self.token_file} is empty")
        expected = f"Bearer {token}".encode()

        def carries(path: str, metadata: Metadata) -> bool:
            if path.startswith(_OPEN_PREFIX):
                return True
            given = [value for name, value in metadata if name == "authorization" and isinstance(value, str)]
            return any(hmac.compare_digest(value.encode("utf-8", "replace"), expected) for value in given)

        return carries
