"""Servicers written for grpc.aio, run in tasks, with as much of its ServicerContext as is used here."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import grpc

from worker.server.request_headers import Metadata, Method
from worker.server.stream import Stream
from worker.wire import StatusCode

_LOGGER = logging.getLogger("inferload.worker")

# Bytes of one stream's messages that may wait before `write` waits.
UNSENT_BYTES = 65536
# Memory that a message costs beside its bytes.
MESSAGE_OVERHEAD = 128


class CallAborted(Exception):
    """Raised by `abort`, so that the servicer ends there."""


class ServicerContext:
    """One call's context, the receiver of its messages, and the task that its servicer runs in."""

    def __init__(self, stream: Stream, handler: Any, tasks: set[asyncio.Task[None]]) -> None:
        self._stream = stream
        self._handler = handler
        self._code = int(StatusCode.OK)
        self._details = ""
        self._trailing: Metadata = ()
        self._messages: deque[bytes] = deque()
        self._ended = False  # no message follows
        self._changed = asyncio.Event()
        self._callbacks: list[Callable[[Any], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._tasks = tasks

    def start(self) -> None:
        """Runs the servicer in a task."""
        stream = self._stream
        stream.on_cancel = self._cancel
        stream.on_writable = self._changed.set
        self._task = task = asyncio.get_running_loop().create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    # Called by servicers.

    async def abort(
        self, code: StatusCode | grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """Ends the call with this status; what has been sent stays sent."""
        self._code, self._details = _number(code) or StatusCode.UNKNOWN, details
        self._trailing = tuple(trailing_metadata) or self._trailing
        raise CallAborted(details)

    def set_code(self, code: StatusCode | grpc.StatusCode) -> None:
        self._code = _number(code)

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailing = tuple(metadata)

    def invocation_metadata(self) -> Metadata:
        return self._stream.request.metadata

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
        self._stream.send_head(tuple(metadata))

    async def read(self) -> Any:
        """The next message; grpc.aio.EOF after the last."""
        while not self._messages:
            if self._ended:
                return grpc.aio.EOF
            self._changed.clear()
            await self._changed.wait()
        data = self._messages.popleft()
        stream = self._stream
        stream.owner.buffer(-len(data) - MESSAGE_OVERHEAD)
        if not self._messages:
            stream.owner.refill(stream)
        return self._parsed(data)

    async def write(self, message: Any) -> None:
        """Sends one message; waits while too much of what was sent before has not gone out."""
        stream = self._stream
        stream.send(self._handler.response_serializer(message) if self._handler.response_serializer else message)
        while stream.unsent_bytes > UNSENT_BYTES and not stream.ended:
            self._changed.clear()
            await self._changed.wait()

    # Called by the stream: it is a Receiver.

    @property
    def waiting(self) -> bool:
        return bool(self._messages)

    def message(self, data: bytes) -> None:
        if not self._ended:
            self._messages.append(data)
            self._stream.owner.buffer(len(data) + MESSAGE_OVERHEAD)
            self._changed.set()

    def half_closed(self) -> None:
        self._ended = True
        self._changed.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # The task.

    def _parsed(self, data: bytes) -> Any:
        if self._handler.request_deserializer is None:
            return data
        try:
            return self._handler.request_deserializer(data)
        except Exception:  # whatever the protobuf runtime raises
            self._code = StatusCode.INVALID_ARGUMENT
            self._details = f"the message cannot be parsed as the request of {self._stream.request.path}"
            raise CallAborted(self._details) from None

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
                response = await running
                if not handler.response_streaming and self._code == StatusCode.OK:
                    await self.write(response)
            stream.finish(self._code, self._details, self._trailing)
        except CallAborted:
            stream.finish(self._code, self._details, self._trailing)
        except asyncio.CancelledError:
            stream.fail(StatusCode.CANCELLED, "the call was cancelled")
            raise
        except Exception as error:
            # A bug of ours: the client gets one line, the log its traceback.
            _LOGGER.exception("the method of %s raised an exception", stream.request.path)
            stream.finish(StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}", self._trailing)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._stream.owner.buffer(-sum(len(data) + MESSAGE_OVERHEAD for data in self._messages))
        self._messages.clear()
        self._ended = True
        for callback in self._callbacks:
            callback(self)
        self._task = None  # its coroutine refers to this context
        self._callbacks.clear()


def _number(code: StatusCode | grpc.StatusCode) -> int:
    """A status of our table, or of grpc's own for servicers that come with grpcio, as a number."""
    return code.value if isinstance(code, StatusCode) else int(code.value[0])


def servicer_method(handler: Any, tasks: set[asyncio.Task[None]]) -> Method:
    """The Method of a grpc.RpcMethodHandler whose behaviours are coroutines or asynchronous generators. `tasks` holds
    the task of each call while it runs."""

    def begin(stream: Stream, data: bytes) -> None:
        context = ServicerContext(stream, handler, tasks)
        if handler.request_streaming:
            stream.receiver = context
        else:
            context.message(data)
            context.half_closed()
        context.start()

    return Method(begin, handler.request_streaming, handler.response_streaming)
