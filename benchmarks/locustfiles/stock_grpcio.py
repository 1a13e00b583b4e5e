"""What Locust's documentation makes of gRPC: a user that calls grpcio.experimental.gevent and fires `request`.

At its best, as tried: the request is serialized once, the reply is not parsed, and one channel serves all users. With
more native threads for gevent than its ten it is slower; with a channel for each user too. STOCK_RATE in the
environment is requests a second of each user, kept by Locust's own constant_throughput; without it a user asks as fast
as it is answered.
"""

import os
import time

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import User, constant_throughput, task
from null_server import infer_request

grpc_gevent.init_gevent()

RATE = float(os.environ.get("STOCK_RATE", "0"))
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class StockUser(User):
    if RATE:
        wait_time = constant_throughput(RATE)

    def on_start(self):
        if not hasattr(StockUser, "infer"):
            StockUser.infer = staticmethod(grpc.insecure_channel(self.host).unary_unary(METHOD))
        self.message = infer_request()

    @task
    def ask(self):
        start = time.perf_counter()
        exception, size = None, 0
        try:
            size = len(self.infer(self.message, timeout=10))
        except grpc.RpcError as error:
            exception = error
        self.environment.events.request.fire(
            request_type="grpc",
            name="ModelInfer",
            response_time=(time.perf_counter() - start) * 1000,
            response_length=size,
            exception=exception,
            context={},
        )
