"""uvicorn as this server needs it: heads of requests have an end, and a signal ends it well."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD_BYTES = 65_536


class Protocol(HttpToolsProtocol):
    """Keeps no more of a request's head than it needs: by itself it would keep all that comes."""

    head = 0

    def data_received(self, data: bytes) -> None:
        """Counts what belongs to a head, and closes the connection where that has no end."""
        self.head += len(data)
        super().data_received(data)
        if self.head > _HEAD_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self.head = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What came was no head."""
        self.head = 0
        super().on_body(body)


class Server(uvicorn.Server):
    """Ends well when it is told to: uvicorn's own would then kill itself with the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Has both signals end it, as long as the process lives."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends it once it has read what was sent until then: closing resets connections that still wait in line."""
        for _ in range(4):  # to take them, to listen to them, to read; and once more
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
