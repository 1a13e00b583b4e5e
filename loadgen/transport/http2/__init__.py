"""gRPC over HTTP/2 as a client under load speaks it."""
