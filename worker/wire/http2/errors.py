"""What can be wrong with the bytes of a peer: with its HTTP/2, or with one gRPC message."""


class ProtocolError(Exception):
    """The peer violated HTTP/2. `code` is the error code for GOAWAY, or for RST_STREAM where one stream is affected."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class MessageError(ValueError):
    """A gRPC message that cannot be read: a wrong compressed flag, or compressed data that is damaged or incomplete."""


class MessageTooLargeError(MessageError):
    """A gRPC message above the size limit of its receiver, compressed or not."""
