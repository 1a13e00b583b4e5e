"""`never_reads.py ADDRESS`: keeps many requests in flight for a test that kills it; prints a line once they are sent.

Runs in the tests' own environment.
"""

import sys
import threading

import grpc

from worker.wire import open_inference_pb2 as oip
from worker.wire import open_inference_pb2_grpc as oip_grpc

request = oip.ModelInferRequest(model_name="sim", raw_input_contents=[bytes(64)])
request.inputs.add(name="INPUT", datatype="FP32", shape=[1, 16])
stub = oip_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(sys.argv[1]))
calls = [stub.ModelInfer.future(request) for _ in range(50)]
stream = stub.ModelStreamInfer(iter([request] * 50))
next(stream)
print("in flight", flush=True)
threading.Event().wait()
