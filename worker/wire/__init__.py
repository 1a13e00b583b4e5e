"""gRPC stubs made from `proto/` by `make stubs`, committed. All that loadgen shares with worker."""
