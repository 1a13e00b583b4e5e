"""A TCP proxy between generator and worker that misbehaves as networks do: delays, splits, holds back, resets.

What TCP promises it keeps: bytes of one connection stay in order. What it does not promise is played with: when they
come, in what pieces, which of two connections is ahead, and whether the connection lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

#: Pieces of at most so many bytes, where they are split: within frames, within their heads.
PIECE = 7


@dataclass
class Chaos:
    """How the proxy treats what passes from now on. `delay_s`: each read waits for up to so long, at random."""

    delay_s: float = 0.0
    split: bool = False


@dataclass
class Proxy:
    """Between a port of its own and the address of a worker. `connections` counts those it has taken."""

    to: str
    chaos: Chaos = field(default_factory=Chaos)
    address: str = ""
    connections: int = 0
    _pairs: list[_Pair] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def reset(self) -> None:
        """Ends every connection with RST on both sides."""
        self._in_loop(lambda: [pair.reset() for pair in self._pairs])

    def hold(self) -> None:
        """Passes nothing more on the connections there are, and keeps them open; new ones work."""
        self._in_loop(lambda: [pair.held.set() for pair in self._pairs])

    def _in_loop(self, act: object) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (act(), done.set()))  # type: ignore[operator]
        assert done.wait(10)

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, _, port = self.to.rpartition(":")
        try:
            there = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, there[1])
        self._pairs.append(pair)
        await asyncio.gather(self._pass(pair, reader, there[1]), self._pass(pair, there[0], writer))
        self._pairs.remove(pair)
        for end in (writer, there[1]):
            end.transport.abort()

    async def _pass(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if pair.held.is_set():
                    await pair.over.wait()
                    return
                if self.chaos.delay_s:
                    await asyncio.sleep(random.uniform(0, self.chaos.delay_s))
                step = PIECE if self.chaos.split else len(data)
                for at in range(0, len(data), step):
                    writer.write(data[at : at + step])
                    if self.chaos.split:
                        await asyncio.sleep(0)
                await writer.drain()
        # Each side may end its half; where one has, the other is told, and ends too.
        pair.over.set()
        with contextlib.suppress(OSError):
            writer.write_eof()


@dataclass
class _Pair:
    """The two ends of one connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    held: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def reset(self) -> None:
        for end in (self.client, self.server):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        self.over.set()


@contextlib.contextmanager
def proxy(to: str) -> Iterator[Proxy]:
    """A proxy to this address, in a thread of its own, for the time of the block."""
    made = Proxy(to)
    loop = made._loop

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(made._taken, "127.0.0.1", 0)

    server = loop.run_until_complete(listen())
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:

        async def close() -> None:
            server.close()
            for pair in list(made._pairs):
                pair.reset()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
