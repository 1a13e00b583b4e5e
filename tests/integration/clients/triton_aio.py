"""tritonclient.grpc.aio against two workers: `triton_aio.py ADDING SLOW`, served as `triton_grpc.py` says."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from checks import check, refusal, run_all
from triton_requests import MODEL, OUTPUTS, asked, inputs, is_right, slow_inputs, values
from tritonclient.utils import InferenceServerException, shared_memory

WAIT_S = 30


@dataclass
class Subject:
    """Runs a promise's coroutine on the one event loop that both clients belong to."""

    adding: triton.InferenceServerClient
    slow: triton.InferenceServerClient
    loop: asyncio.AbstractEventLoop

    def run(self, awaitable: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, WAIT_S))

    def refused(self, call: Callable[[], Awaitable[Any]]) -> str:
        return refusal(lambda: self.run(call()))[0]


@check
def the_server_is_live_and_ready(subject: Subject) -> None:
    client = subject.adding
    assert subject.run(client.is_server_live())
    assert subject.run(client.is_server_ready())
    assert subject.run(client.is_model_ready(MODEL))
    assert not subject.run(client.is_model_ready("other"))


@check
def metadata_configuration_and_statistics_are_told(subject: Subject) -> None:
    client = subject.adding
    assert subject.run(client.get_server_metadata()).name == "inferload"
    model = subject.run(client.get_model_metadata(MODEL, as_json=True))
    assert [tensor["name"] for tensor in model["inputs"]] == ["INPUT0", "INPUT1"]
    assert subject.run(client.get_model_config(MODEL)).config.max_batch_size == 8
    before = subject.run(client.get_inference_statistics(MODEL)).model_stats[0].inference_count
    subject.run(client.infer(MODEL, inputs(*values(3))))
    after = subject.run(client.get_inference_statistics()).model_stats[0].inference_count
    assert after == before + 3


@check
def many_requests_at_once_are_each_answered(subject: Subject) -> None:
    pairs = [values(1 + number % 4) for number in range(60)]

    async def all_of_them() -> list[Any]:
        calls = (
            subject.adding.infer(MODEL, inputs(*pair), request_id=str(number), outputs=asked(*OUTPUTS))
            for number, pair in enumerate(pairs)
        )
        return await asyncio.gather(*calls)

    for number, (result, pair) in enumerate(zip(subject.run(all_of_them()), pairs, strict=True)):
        assert result.get_response().id == str(number)
        assert is_right(result, *pair)


@check
def everything_a_request_may_carry_is_taken(subject: Subject) -> None:
    pair = values()
    call = subject.adding.infer(
        MODEL,
        inputs(*pair),
        priority=2,
        timeout=10_000_000,
        client_timeout=WAIT_S,
        headers={"x-trace": "1"},
        compression_algorithm="gzip",
        parameters={"text": "t"},
    )
    assert is_right(subject.run(call), *pair)


@check
def a_stream_answers_each_and_goes_on_after_an_error(subject: Subject) -> None:
    pair = values()

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            name = "other" if number == 7 else MODEL
            yield {"model_name": name, "inputs": inputs(*pair), "request_id": str(number)}

    async def answers() -> list[Any]:
        return [answer async for answer in subject.adding.stream_infer(requests())]

    got = subject.run(answers())
    errors = [error for _, error in got if error is not None]
    results = [result for result, error in got if error is None]
    assert len(errors) == 1
    assert "other" in errors[0].message()
    assert {result.get_response().id for result in results} == {str(number) for number in range(20) if number != 7}
    assert all(is_right(result, *pair) for result in results)


@check
def a_stream_can_be_cancelled(subject: Subject) -> None:
    async def cancelled() -> bool:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for _ in range(3):
                yield {"model_name": "sim", "inputs": slow_inputs()}

        stream = subject.slow.stream_infer(requests())
        result, error = await stream.__anext__()
        assert error is None
        assert result.as_numpy("OUTPUT").shape == (1, 16)
        return bool(stream.cancel())

    assert subject.run(cancelled())
    assert subject.run(subject.slow.infer("sim", slow_inputs())).as_numpy("OUTPUT").shape == (1, 16)


@check
def a_call_can_time_out_and_be_cancelled(subject: Subject) -> None:
    assert subject.refused(lambda: subject.slow.infer("sim", slow_inputs(), client_timeout=0.05)) == "DEADLINE_EXCEEDED"

    async def cancelled() -> str:
        # The first keeps the worker busy, so that the second is cancelled where it waits.
        running = asyncio.ensure_future(subject.slow.infer("sim", slow_inputs()))
        waiting = asyncio.ensure_future(subject.slow.infer("sim", slow_inputs()))
        await asyncio.wait({running, waiting}, timeout=0)
        waiting.cancel()
        try:
            await waiting
        except (asyncio.CancelledError, InferenceServerException):
            await running
            return "cancelled"
        return "answered"

    assert subject.run(cancelled()) == "cancelled"


@check
def shared_memory_carries_inputs_and_outputs(subject: Subject) -> None:
    client = subject.adding
    one, other = values(2)
    key = f"/inferload_aio_{os.getpid()}"
    handle = shared_memory.create_shared_memory_region("both", key, 4 * one.nbytes)
    try:
        shared_memory.set_shared_memory_region(handle, [one, other])
        subject.run(client.register_system_shared_memory("both", key, 4 * one.nbytes))
        assert list(subject.run(client.get_system_shared_memory_status()).regions) == ["both"]
        tensors = [triton.InferInput(name, [2, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        outputs = [triton.InferRequestedOutput(name) for name in OUTPUTS]
        for place in (0, 1):
            tensors[place].set_shared_memory("both", one.nbytes, offset=place * one.nbytes)
            outputs[place].set_shared_memory("both", one.nbytes, offset=(2 + place) * one.nbytes)
        subject.run(client.infer(MODEL, tensors, outputs=outputs))
        for place, expected in ((2, one + other), (3, one - other)):
            found = shared_memory.get_contents_as_numpy(handle, np.int32, [2, 16], offset=place * one.nbytes)
            assert np.array_equal(found, expected)
        subject.run(client.unregister_system_shared_memory("both"))
        assert not subject.run(client.get_system_shared_memory_status()).regions
    finally:
        shared_memory.destroy_shared_memory_region(handle)
    assert not subject.run(client.get_cuda_shared_memory_status()).regions
    subject.run(client.unregister_cuda_shared_memory())
    assert subject.refused(lambda: client.register_cuda_shared_memory("c", b"aGFuZGxl", 0, 64)) == "UNIMPLEMENTED"


@check
def a_wrong_request_is_refused(subject: Subject) -> None:
    client = subject.adding
    pair = values()
    assert subject.refused(lambda: client.infer("other", inputs(*pair))) == "NOT_FOUND"
    assert subject.refused(lambda: client.infer(MODEL, inputs(*pair), model_version="7")) == "NOT_FOUND"
    assert subject.refused(lambda: client.infer(MODEL, inputs(*pair)[1:])) == "INVALID_ARGUMENT"
    assert subject.refused(lambda: client.infer(MODEL, inputs(*values(9)))) == "INVALID_ARGUMENT"
    assert subject.refused(lambda: client.infer(MODEL, inputs(*pair), outputs=asked("none"))) == "INVALID_ARGUMENT"
    assert subject.refused(client.get_model_repository_index) == "UNIMPLEMENTED"


if __name__ == "__main__":
    loop = asyncio.new_event_loop()

    async def connect(address: str) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(address)

    clients = [loop.run_until_complete(connect(address)) for address in sys.argv[1:3]]
    try:
        run_all(Subject(*clients, loop))
    finally:
        for client in clients:
            loop.run_until_complete(client.close())
        loop.close()
