"""The system under load: one TorchScript model on one ordinal behind gRPC. Never imports Locust or gevent."""
