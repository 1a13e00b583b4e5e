"""Calls: servicers written for grpc.aio, run in tasks, with as much of its ServicerContext as is used here."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import grpc

from worker.server.headers import Metadata, Method
from worker.server.status import CANCELLED, INVALID_ARGUMENT, OK, UNKNOWN
from worker.server.stream import Stream

# Bytes of one stream's answers that may wait before `write` waits.
UNSENT = 65536
# What a message that waits costs beside its bytes.
OVERHEAD = 128


class Aborted(Exception):
    """Raised by `abort`, so that the servicer ends there."""


class Call:
    """One call's context, and the task that its servicer runs in. Ends with the task."""

    def __init__(self, stream: Stream, handler: Any, tasks: set[asyncio.Task[None]]) -> None:
        self._stream = stream
        self._handler = handler
        self._code = OK
        self._details = ""
        self._trailing: Metadata = ()
        self._messages: deque[bytes] = deque()
        self._ended = False  # no message comes any more
        self._changed = asyncio.Event()
        self._callbacks: list[Callable[[Any], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._tasks = tasks

    def start(self) -> None:
        stream = self._stream
        stream.gone = self._gone
        stream.writable = self._changed.set
        self._task = task = asyncio.get_running_loop().create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    # What a servicer may call.

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self._code, self._details = code.value[0] or UNKNOWN, details
        self._trailing = tuple(trailing_metadata) or self._trailing
        raise Aborted(details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code.value[0]

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailing = tuple(metadata)

    def invocation_metadata(self) -> Metadata:
        return self._stream.route.metadata

    def time_remaining(self) -> float | None:
        return self._stream.time_remaining()

    def peer(self) -> str:
        return self._stream.peer

    def cancelled(self) -> bool:
        return self._stream.ended and self._task is not None and not self._task.done()

    def done(self) -> bool:
        return self._stream.ended

    def is_active(self) -> bool:
        return not self._stream.ended

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        self._stream.head(tuple(metadata))

    async def read(self) -> Any:
        """The next message; grpc.aio.EOF after the last."""
        while not self._messages:
            if self._ended:
                return grpc.aio.EOF
            self._changed.clear()
            await self._changed.wait()
        data = self._messages.popleft()
        stream = self._stream
        stream.sender.held.bytes -= len(data) + OVERHEAD
        if not self._messages:
            stream.sender.give_back(stream)
        return self._parsed(data)

    async def write(self, message: Any) -> None:
        """Sends one message; waits while too much of what was sent before has not gone out."""
        stream = self._stream
        stream.send(self._handler.response_serializer(message) if self._handler.response_serializer else message)
        while stream.pending_bytes > UNSENT and not stream.ended:
            self._changed.clear()
            await self._changed.wait()

    # What the stream calls.

    @property
    def waiting(self) -> bool:
        return bool(self._messages)

    def message(self, data: bytes) -> None:
        if not self._ended:
            self._messages.append(data)
            self._stream.sender.held.bytes += len(data) + OVERHEAD
            self._changed.set()

    def half_closed(self) -> None:
        self._ended = True
        self._changed.set()

    def _gone(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # How it runs.

    def _parsed(self, data: bytes) -> Any:
        if self._handler.request_deserializer is None:
            return data
        try:
            return self._handler.request_deserializer(data)
        except Exception:  # whatever the protobuf runtime raises
            self._code = INVALID_ARGUMENT
            self._details = f"the message is not what {self._stream.route.path} takes"
            raise Aborted(self._details) from None

    async def _iterator(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def _run(self) -> None:
        stream, handler = self._stream, self._handler
        try:
            request = self._iterator() if handler.request_streaming else await self.read()
            behaviour = (
                (handler.stream_stream if handler.request_streaming else handler.unary_stream)
                if handler.response_streaming
                else (handler.stream_unary if handler.request_streaming else handler.unary_unary)
            )
            running = behaviour(request, self)
            if inspect.isasyncgen(running):
                async for message in running:
                    await self.write(message)
            else:
                answer = await running
                if not handler.response_streaming and self._code == OK:
                    await self.write(answer)
            stream.finish(self._code, self._details, self._trailing)
        except Aborted:
            stream.finish(self._code, self._details, self._trailing)
        except asyncio.CancelledError:
            stream.fail(CANCELLED, "the call was cancelled")
            raise
        except Exception as error:
            stream.finish(UNKNOWN, f"Unexpected {type(error)}: {error}", self._trailing)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stream.sender.held.bytes -= sum(len(data) + OVERHEAD for data in self._messages)
        self._messages.clear()
        self._ended = True
        for callback in self._callbacks:
            callback(self)
        # Its coroutine knows us.
        self._task = None
        self._callbacks.clear()


def method(handler: Any, tasks: set[asyncio.Task[None]]) -> Method:
    """A grpc.RpcMethodHandler, whose behaviours are coroutines or asynchronous generators, as the front begins it."""

    def begin(stream: Stream, data: bytes) -> None:
        call = Call(stream, handler, tasks)
        if handler.request_streaming:
            stream.receiver = call
        else:
            call.message(data)
            call.half_closed()
        call.start()

    return Method(begin, handler.request_streaming, handler.response_streaming)
