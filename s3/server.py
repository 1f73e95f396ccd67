"""The HTTP server: accepts, caps, sweeps and stops. One task per connection, one sweeper for all of them."""

import socket
from collections import Counter
from collections.abc import Sequence

import attrs
import trio

from s3.http11 import Connection
from s3.messages import Handler


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Limits of the listener, against slow and many clients."""

    max_connections: int = 4096
    max_connections_per_address: int = 2048
    max_requests_per_connection: int = 100_000
    head_seconds: float = 10.0  # from the first byte of a request head to its last
    idle_seconds: float = 60.0  # between requests
    rate_seconds: float = 30.0  # a body in either direction must move at least
    rate_bytes: int = 30 * 1024  # so many bytes in each such span
    stop_seconds: float = 20.0  # requests in flight get that long when the server stops
    sweep_seconds: float = 1.0


class HttpServer:
    """Serves a handler on listeners until `stop`."""

    def __init__(self, handler: Handler, settings: ServerSettings | None = None) -> None:
        self._handler = handler
        self._settings = settings if settings is not None else ServerSettings()
        self._connections: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._accepting = trio.CancelScope()

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until `stop` is called and the requests in flight are answered or out of time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            async with trio.open_nursery() as connections:
                try:
                    with self._accepting:
                        async with trio.open_nursery() as accepting:
                            for listener in listeners:
                                accepting.start_soon(self._accept, listener, connections)
                            task_status.started()
                finally:
                    for listener in listeners:
                        listener.socket.close()
                connections.cancel_scope.deadline = (
                    trio.current_time() + self._settings.stop_seconds
                )
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Accept no more, close idle connections, let requests in flight finish."""
        self._accepting.cancel()
        for connection in self._connections:
            connection.closing = True
            if not connection.busy:
                connection.scope.cancel()

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except OSError:  # out of file descriptors: wait for some to come back
                await trio.sleep(0.1)
                continue
            sock = stream.socket
            remote = _peer(sock)
            settings = self._settings
            if (
                len(self._connections) >= settings.max_connections
                or self._addresses[remote] >= settings.max_connections_per_address
            ):
                sock.close()
                continue
            connections.start_soon(self._run, sock, remote)

    async def _run(self, sock: trio.socket.SocketType, remote: str) -> None:
        connection = Connection(sock, self._handler, remote)
        self._connections.add(connection)
        self._addresses[remote] += 1
        try:
            await connection.serve(self._settings.max_requests_per_connection)
        finally:
            self._connections.discard(connection)
            self._addresses[remote] -= 1
            if not self._addresses[remote]:
                del self._addresses[remote]
            sock.close()

    async def _sweep(self) -> None:
        settings = self._settings
        while True:
            await trio.sleep(settings.sweep_seconds)
            now = trio.current_time()
            for connection in self._connections:
                spent = now - connection.since
                if not connection.busy:
                    if spent > settings.idle_seconds:
                        connection.scope.cancel()
                elif connection.handling:
                    continue
                elif connection.reading_head:
                    if spent > settings.head_seconds:
                        connection.scope.cancel()
                elif spent > settings.rate_seconds:
                    if connection.progress < settings.rate_bytes:
                        connection.scope.cancel()
                    connection.since, connection.progress = now, 0


def _peer(sock: trio.socket.SocketType) -> str:
    if sock.family == socket.AF_UNIX:
        return "unix"
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "gone"


async def open_listeners(host: str, port: int, backlog: int = 1024) -> list[trio.SocketListener]:
    """TCP listeners; port 0 takes a free one. Raises OSError."""
    return await trio.open_tcp_listeners(port, host=host, backlog=backlog)


def bound_port(listeners: Sequence[trio.SocketListener]) -> int:
    """The port that the first listener got."""
    return int(listeners[0].socket.getsockname()[1])
