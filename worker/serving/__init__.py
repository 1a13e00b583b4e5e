"""Batch queue, executor thread, request decoding, Open Inference Protocol services, shared memory."""
