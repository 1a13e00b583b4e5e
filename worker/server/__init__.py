"""The gRPC server: HTTP/2 connections, streams, limits."""
