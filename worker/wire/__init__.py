"""The gRPC stubs made from `proto/` by `make stubs`, committed; HTTP/2 by hand. All that loadgen and worker share."""
