"""tritonclient.grpc against two workers: `triton_grpc.py ADDING SLOW`.

ADDING serves (INPUT0, INPUT1) INT32 [-1, 16] -> (sum, difference), batched up to 8; SLOW is simulated and takes
300 ms a request.
"""

import os
import queue
import sys
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from checks import check, refusal, run_all
from triton_requests import MODEL, OUTPUTS, asked, inputs, is_right, slow_inputs, values
from tritonclient.utils import shared_memory

WAIT_S = 30


@dataclass
class Clients:
    adding: triton.InferenceServerClient
    slow: triton.InferenceServerClient


def executions(client: triton.InferenceServerClient, model: str) -> int:
    return client.get_inference_statistics(model).model_stats[0].execution_count


@check
def the_server_is_live_and_ready(clients: Clients) -> None:
    assert clients.adding.is_server_live()
    assert clients.adding.is_server_ready()
    assert clients.adding.is_model_ready(MODEL)
    assert clients.adding.is_model_ready(MODEL, "1")
    assert not clients.adding.is_model_ready(MODEL, "2")
    assert not clients.adding.is_model_ready("other")


@check
def metadata_tells_names_types_and_shapes(clients: Clients) -> None:
    server = clients.adding.get_server_metadata(as_json=True)
    assert server["name"] == "inferload"
    assert {"statistics", "model_configuration", "system_shared_memory"} <= set(server["extensions"])
    model = clients.adding.get_model_metadata(MODEL)
    assert [(t.name, t.datatype, list(t.shape)) for t in model.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert [(t.name, t.datatype, list(t.shape)) for t in model.outputs] == [(n, "INT32", [-1, 16]) for n in OUTPUTS]
    assert list(model.versions) == ["1"]
    assert refusal(lambda: clients.adding.get_model_metadata("other"))[0] == "NOT_FOUND"


@check
def the_configuration_has_no_batch_dimension(clients: Clients) -> None:
    config = clients.adding.get_model_config(MODEL).config
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert [(t.name, list(t.dims)) for t in config.input] == [("INPUT0", [16]), ("INPUT1", [16])]
    assert [(t.name, list(t.dims)) for t in config.output] == [(name, [16]) for name in OUTPUTS]
    as_json = clients.adding.get_model_config(MODEL, as_json=True)["config"]
    assert as_json["input"][0]["data_type"] == "TYPE_INT32"
    assert as_json["instance_group"][0]["kind"] == "KIND_CPU"
    assert refusal(lambda: clients.adding.get_model_config("other"))[0] == "NOT_FOUND"


@check
def a_request_is_answered(clients: Clients) -> None:
    for rows in (1, 3, 8):
        pair = values(rows)
        result = clients.adding.infer(MODEL, inputs(*pair), request_id=f"request {rows}", model_version="1")
        assert is_right(result, *pair)
        response = result.get_response()
        assert (response.id, response.model_name, response.model_version) == (f"request {rows}", MODEL, "1")
        assert result.get_output("output_0").datatype == "INT32"
        assert result.get_output("no such output") is None


@check
def outputs_come_as_they_are_asked_for(clients: Clients) -> None:
    one, other = values()
    result = clients.adding.infer(MODEL, inputs(one, other), outputs=asked("output_1"))
    assert [output.name for output in result.get_response().outputs] == ["output_1"]
    assert np.array_equal(result.as_numpy("output_1"), one - other)
    result = clients.adding.infer(MODEL, inputs(one, other), outputs=asked("output_1", "output_0"))
    assert [output.name for output in result.get_response().outputs] == ["output_1", "output_0"]
    assert is_right(result, one, other)


@check
def inputs_come_in_any_order(clients: Clients) -> None:
    pair = values(2)
    assert is_right(clients.adding.infer(MODEL, inputs(*pair)[::-1]), *pair)


@check
def everything_a_request_may_carry_is_taken(clients: Clients) -> None:
    pair = values()
    result = clients.adding.infer(
        MODEL,
        inputs(*pair),
        priority=1,
        timeout=10_000_000,
        client_timeout=WAIT_S,
        headers={"x-trace": "1"},
        parameters={"text": "t", "number": 1, "truth": True},
    )
    assert is_right(result, *pair)


@check
def a_compressed_request_is_answered(clients: Clients) -> None:
    for algorithm in ("gzip", "deflate"):
        pair = values(4)
        assert is_right(clients.adding.infer(MODEL, inputs(*pair), compression_algorithm=algorithm), *pair)


@check
def callbacks_are_called_once_each(clients: Clients) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    pair = values(2)
    for number in range(50):
        clients.adding.async_infer(
            MODEL,
            inputs(*pair),
            callback=lambda result, error: answers.put((result, error)),
            request_id=str(number),
        )
    got = [answers.get(timeout=WAIT_S) for _ in range(50)]
    assert all(error is None and is_right(result, *pair) for result, error in got)
    assert {result.get_response().id for result, _ in got} == {str(number) for number in range(50)}
    clients.adding.async_infer("other", inputs(*pair), callback=lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=WAIT_S)
    assert result is None
    assert "other" in error.message()
    assert answers.empty()


@check
def a_stream_answers_each_under_its_id(clients: Clients) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    pair = values()
    clients.adding.start_stream(lambda result, error: answers.put((result, error)))
    for number in range(30):
        clients.adding.async_stream_infer(MODEL, inputs(*pair), request_id=str(number), outputs=asked(*OUTPUTS))
    clients.adding.stop_stream()
    got = [answers.get(timeout=WAIT_S) for _ in range(30)]
    assert all(error is None and is_right(result, *pair) for result, error in got)
    assert {result.get_response().id for result, _ in got} == {str(number) for number in range(30)}
    assert answers.empty()


@check
def a_stream_goes_on_after_an_error(clients: Clients) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    pair = values()
    clients.adding.start_stream(lambda result, error: answers.put((result, error)))
    clients.adding.async_stream_infer("other", inputs(*pair), request_id="bad")
    result, error = answers.get(timeout=WAIT_S)
    assert "other" in error.message()
    clients.adding.async_stream_infer(MODEL, inputs(*pair), request_id="good")
    result, error = answers.get(timeout=WAIT_S)
    assert error is None
    assert result.get_response().id == "good"
    clients.adding.stop_stream()


@check
def a_stream_can_be_cancelled_and_timed_out(clients: Clients) -> None:
    for how, code in (({}, "CANCELLED"), ({"stream_timeout": 0.1}, "DEADLINE_EXCEEDED")):
        answers: queue.Queue[Any] = queue.Queue()
        clients.slow.start_stream(lambda result, error, into=answers: into.put((result, error)), **how)
        for _ in range(3):
            clients.slow.async_stream_infer("sim", slow_inputs())
        if not how:
            clients.slow.stop_stream(cancel_requests=True)
        result, error = answers.get(timeout=WAIT_S)
        assert result is None
        assert code in str(error.status()), error
        clients.slow.stop_stream()
    assert clients.slow.infer("sim", slow_inputs()).as_numpy("OUTPUT").shape == (1, 16)


@check
def a_call_that_times_out_says_so(clients: Clients) -> None:
    code, _ = refusal(lambda: clients.slow.infer("sim", slow_inputs(), client_timeout=0.05))
    assert code == "DEADLINE_EXCEEDED"
    answers: queue.Queue[Any] = queue.Queue()
    clients.slow.async_infer(
        "sim", slow_inputs(), callback=lambda result, error: answers.put(error), client_timeout=0.05
    )
    assert "DEADLINE_EXCEEDED" in str(answers.get(timeout=WAIT_S).status())


@check
def a_request_whose_timeout_passes_in_the_queue_is_refused(clients: Clients) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    clients.slow.async_infer("sim", slow_inputs(), callback=lambda result, error: answers.put(error))
    # One channel keeps the order of its calls only as they are sent; what waits is what comes second.
    clients.slow.async_infer("sim", slow_inputs(), callback=lambda result, error: answers.put(error), timeout=20_000)
    errors = [answers.get(timeout=WAIT_S), answers.get(timeout=WAIT_S)]
    refused = [error for error in errors if error is not None]
    assert [str(error.status()) for error in refused] == ["StatusCode.UNAVAILABLE"], errors


@check
def a_cancelled_call_is_never_run(clients: Clients) -> None:
    clients.slow.infer("sim", slow_inputs())
    before = executions(clients.slow, "sim")
    answers: queue.Queue[Any] = queue.Queue()
    running = threading.Event()
    clients.slow.async_infer("sim", slow_inputs(), callback=lambda result, error: running.set())
    waiting = [
        clients.slow.async_infer("sim", slow_inputs(), callback=lambda result, error: answers.put(error))
        for _ in range(3)
    ]
    for call in waiting:
        call.cancel()
    for _ in waiting:
        assert "CANCELLED" in str(answers.get(timeout=WAIT_S).status())
    assert running.wait(WAIT_S)
    clients.slow.infer("sim", slow_inputs())
    assert executions(clients.slow, "sim") == before + 2


@check
def statistics_count_what_was_served(clients: Clients) -> None:
    def read() -> Any:
        (told,) = clients.adding.get_inference_statistics(MODEL).model_stats
        return told

    before = read()
    for rows in (1, 2, 5):
        clients.adding.infer(MODEL, inputs(*values(rows)))
    refusal(lambda: clients.adding.infer(MODEL, inputs(*values(9))))
    after = read()
    assert after.inference_count == before.inference_count + 8
    assert after.execution_count == before.execution_count + 3
    was, now = before.inference_stats, after.inference_stats
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(now, name).count == getattr(was, name).count + 3, name
    assert now.fail.count == was.fail.count + 1
    sizes = {size.batch_size: size.compute_infer.count for size in after.batch_stats}
    assert {1, 2, 5} <= set(sizes)
    assert sum(sizes.values()) == after.execution_count
    assert sum(size * count for size, count in sizes.items()) == after.inference_count
    as_json = clients.adding.get_inference_statistics(as_json=True)["model_stats"]
    assert [stats["name"] for stats in as_json] == [MODEL]
    assert refusal(lambda: clients.adding.get_inference_statistics("other"))[0] == "NOT_FOUND"


@check
def shared_memory_carries_inputs_and_outputs(clients: Clients) -> None:
    client = clients.adding
    one, other = values(4)
    size = one.nbytes
    key = f"/inferload_{os.getpid()}"
    taken = shared_memory.create_shared_memory_region("taken", f"{key}_in", 2 * size)
    given = shared_memory.create_shared_memory_region("given", f"{key}_out", 2 * size + 64)
    try:
        shared_memory.set_shared_memory_region(taken, [one, other])
        client.register_system_shared_memory("taken", f"{key}_in", 2 * size)
        client.register_system_shared_memory("given", f"{key}_out", 2 * size, offset=64)
        regions = client.get_system_shared_memory_status().regions
        assert {name: (r.key, r.offset, r.byte_size) for name, r in regions.items()} == {
            "taken": (f"{key}_in", 0, 2 * size),
            "given": (f"{key}_out", 64, 2 * size),
        }
        assert list(client.get_system_shared_memory_status("given", as_json=True)["regions"]) == ["given"]
        tensors = [triton.InferInput(name, [4, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        outputs = asked(*OUTPUTS)
        for place in (0, 1):
            tensors[place].set_shared_memory("taken", size, offset=place * size)
            outputs[place].set_shared_memory("given", size, offset=place * size)
        result = client.infer(MODEL, tensors, outputs=outputs)
        assert [len(raw) for raw in result.get_response().raw_output_contents] == [0, 0]
        for place, expected in ((0, one + other), (1, one - other)):
            found = shared_memory.get_contents_as_numpy(given, np.int32, [4, 16], offset=64 + place * size)
            assert np.array_equal(found, expected)
        # One tensor each way may lie in shared memory and the other travel.
        tensors[1] = inputs(one, other)[1]
        result = client.infer(MODEL, tensors, outputs=[outputs[0], *asked("output_1")])
        assert np.array_equal(result.as_numpy("output_1"), one - other)

        again = refusal(lambda: client.register_system_shared_memory("taken", f"{key}_in", 2 * size))
        assert again[0] == "ALREADY_EXISTS"
        beyond = refusal(lambda: client.register_system_shared_memory("beyond", f"{key}_in", 2**30))
        assert beyond[0] == "INVALID_ARGUMENT"
        nowhere = refusal(lambda: client.register_system_shared_memory("nowhere", f"{key}_none", 64))
        assert nowhere[0] == "INVALID_ARGUMENT"
        assert refusal(lambda: client.get_system_shared_memory_status("nowhere"))[0] == "NOT_FOUND"
        outputs[0].set_shared_memory("given", size - 4)
        assert refusal(lambda: client.infer(MODEL, tensors, outputs=outputs))[0] == "INVALID_ARGUMENT"

        client.unregister_system_shared_memory("taken")
        assert list(client.get_system_shared_memory_status().regions) == ["given"]
        assert refusal(lambda: client.infer(MODEL, tensors))[0] == "INVALID_ARGUMENT"
        client.unregister_system_shared_memory()
        assert not client.get_system_shared_memory_status().regions
    finally:
        shared_memory.destroy_shared_memory_region(taken)
        shared_memory.destroy_shared_memory_region(given)


@check
def cuda_shared_memory_is_refused_where_there_is_none(clients: Clients) -> None:
    assert not clients.adding.get_cuda_shared_memory_status().regions
    clients.adding.unregister_cuda_shared_memory()
    code, _ = refusal(lambda: clients.adding.register_cuda_shared_memory("c", b"aGFuZGxl", 0, 64))
    assert code == "UNIMPLEMENTED"


@check
def a_wrong_request_is_refused_and_says_why(clients: Clients) -> None:
    client = clients.adding
    pair = values()

    def refused_with(word: str, given: list[triton.InferInput], model: str = MODEL, **more: Any) -> str:
        code, message = refusal(lambda: client.infer(model, given, **more))
        assert word in message, message
        return code

    assert refused_with("other", inputs(*pair), "other") == "NOT_FOUND"
    assert refused_with("2", inputs(*pair), model_version="2") == "NOT_FOUND"
    renamed = [triton.InferInput("INPUT9", [1, 16], "INT32"), inputs(*pair)[1]]
    renamed[0].set_data_from_numpy(pair[0])
    wide = [triton.InferInput("INPUT0", [1, 17], "INT32"), inputs(*pair)[1]]
    wide[0].set_data_from_numpy(np.zeros((1, 17), np.int32))
    floats = [triton.InferInput("INPUT0", [1, 16], "FP32"), inputs(*pair)[1]]
    floats[0].set_data_from_numpy(np.zeros((1, 16), np.float32))
    words = [triton.InferInput("INPUT0", [1, 16], "BYTES"), inputs(*pair)[1]]
    words[0].set_data_from_numpy(np.full((1, 16), b"x", np.object_))
    for word, given in {
        "INPUT9": renamed,
        "[1, 17]": wide,
        "FP32": floats,
        "BYTES": words,
        "1 inputs": inputs(*pair)[:1],
        "different numbers of rows": [inputs(*values(2))[0], inputs(*pair)[1]],
        "a batch of 9": inputs(*values(9)),
    }.items():
        assert refused_with(word, given) == "INVALID_ARGUMENT", word
    assert refused_with("no such", inputs(*pair), outputs=asked("no such")) == "INVALID_ARGUMENT"
    classes = [triton.InferRequestedOutput("output_0", class_count=3)]
    assert refused_with("classification", inputs(*pair), outputs=classes) == "INVALID_ARGUMENT"
    assert is_right(client.infer(MODEL, inputs(*pair)), *pair)


@check
def what_a_worker_does_not_offer_is_unimplemented(clients: Clients) -> None:
    client = clients.adding
    for call in (
        client.get_model_repository_index,
        lambda: client.load_model(MODEL),
        lambda: client.unload_model(MODEL),
        client.get_trace_settings,
        client.get_log_settings,
    ):
        assert refusal(call)[0] == "UNIMPLEMENTED"


if __name__ == "__main__":
    with triton.InferenceServerClient(sys.argv[1]) as adding, triton.InferenceServerClient(sys.argv[2]) as slow:
        run_all(Clients(adding, slow))
