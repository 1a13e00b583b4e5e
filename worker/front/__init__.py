"""A gRPC server on asyncio, made for small unary calls: HTTP/2 and gRPC's framing, and nothing of the worker's own."""
