"""The system under load: one TorchScript model on one accelerator ordinal behind gRPC. Never imports Locust or gevent."""
