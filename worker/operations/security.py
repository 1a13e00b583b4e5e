"""TLS, mutual TLS, and the bearer token of calls."""

import hmac
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker.errors import InputError
from worker.server import Metadata

# Health checks need no token: an orchestrator's probe has none, and learns only whether the worker is well.
_PUBLIC_PREFIX = "/grpc.health."


@dataclass(frozen=True)
class Security:
    """File names, None where the feature is off. A client CA makes TLS mutual."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    token_file: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """Returns the TLS context of an HTTP/2 server, or None without TLS. Raises InputError for unusable files."""
        if self.certificate is None and self.key is None:
            if self.client_ca is not None:
                raise InputError("--tls-client-ca needs --tls-cert and --tls-key")
            return None
        if self.certificate is None or self.key is None:
            raise InputError("--tls-cert needs --tls-key, and the other way round: give both")
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["h2"])
            context.load_cert_chain(
                self.certificate, self.key, password=lambda: b""
            )  # an encrypted key: fails instead of asking
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ValueError) as error:
            raise InputError(f"the TLS files cannot be used: {error}") from None
        return context

    def authorized(self) -> Callable[[str, Metadata], bool]:
        """Returns the predicate of a method's path and the call's metadata that is True where the call may be made.

        Without a token all calls may; else health checks, and calls with the token. Raises InputError where the token's
        file cannot be read.
        """
        if self.token_file is None:
            return lambda path, metadata: True
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--token-file {self.token_file} cannot be read: {error}") from None
        if not token:
            raise InputError(f"--token-file {self.token_file} is empty")
        expected = f"Bearer {token}".encode()

        def has_token(path: str, metadata: Metadata) -> bool:
            if path.startswith(_PUBLIC_PREFIX):
                return True
            values = [value for name, value in metadata if name == "authorization" and isinstance(value, str)]
            return any(hmac.compare_digest(value.encode("utf-8", "replace"), expected) for value in values)

        return has_token
