"""A network between two parties that can be cut and frozen: a TCP proxy in a thread of the test."""

import asyncio
import socket
import threading


class Link:
    """Forwards connections of its own port to another port of this machine.

    cut    every connection is reset, new ones are refused
    freeze nothing is forwarded any more, and nobody is told
    mend   new connections are forwarded again, and what was frozen goes on
    """

    def __init__(self, target):
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._writers = set()
        self._open = True
        self._flows = None
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self._loop)
        self._flows = asyncio.Event()
        self._flows.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()

    async def _serve(self, reader, writer):
        if not self._open:
            return self._reset(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return self._reset(writer)
        pair = {writer, far_writer}
        self._writers |= pair
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= pair
        for one in pair:
            one.close()

    async def _pump(self, reader, writer):
        try:
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            self._reset(writer)

    def _reset(self, writer):
        """Ends a connection as a broken one ends: with a reset, not with a farewell."""
        opened = writer.get_extra_info("socket")
        if opened is not None and opened.fileno() >= 0:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    def cut(self):
        def now():
            self._open = False
            for writer in list(self._writers):
                self._reset(writer)

        self._loop.call_soon_threadsafe(now)

    def freeze(self):
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self):
        def now():
            self._open = True
            self._flows.set()

        self._loop.call_soon_threadsafe(now)
