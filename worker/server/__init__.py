"""The gRPC server: HTTP/2 connections, streams, limits."""

from worker.server.request_headers import Metadata
from worker.server.server import GrpcServer
from worker.server.stream import Stream

__all__ = ["GrpcServer", "Metadata", "Stream"]
