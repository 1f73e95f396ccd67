"""One HTTP/1.1 connection: heads through h11, bodies around it, responses written by hand.

h11 parses every request head (after http_guard has seen its bytes) and every chunked body. A body with Content-Length is received
straight into the caller's buffer, and responses are built in one piece: h11's own writer costs more than the rest of a small GET. Because
of that each request gets a parser of its own.
"""

from collections.abc import Sequence
from http import HTTPStatus

import h11
import trio

from s3.http_guard import MAX_HEAD_BYTES, HeadError, check_head
from s3.messages import BodyError, Handler, Headers, RequestHead, Response

_RECEIVE_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES = {s.value: b"HTTP/1.1 %d %s\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
_IOV = 64


class Connection:
    """A client. `serve` runs until either side is through; `busy` and the progress counters are for the sweeper."""

    def __init__(self, sock: trio.socket.SocketType, handler: Handler, remote: str) -> None:
        self._sock, self._handler, self._remote = sock, handler, remote
        self._pending = bytearray()  # received, not consumed
        self.scope = trio.CancelScope()
        self.requests = 0
        self.busy = False  # a request is being read or answered
        self.closing = False  # answer what is under way, then close
        self.progress = 0  # bytes moved in either direction
        self.since = trio.current_time()  # when the current phase began
        self.handling = False  # the handler works: the client is not to blame for the time it takes
        self.reading_head = False

    async def serve(self, max_requests: int) -> None:
        """Answer requests until the client goes, breaks a rule, or has had its share."""
        with self.scope:
            while not self.closing and self.requests < max_requests:
                try:
                    if not await self._serve_one():
                        return
                except HeadError as error:
                    await self._refuse(error)
                    return
                except (trio.BrokenResourceError, OSError, BodyError):
                    return

    async def _serve_one(self) -> bool:
        """One request; False: the connection is not to be used again."""
        raw = await self._receive_head()
        if raw is None:
            return False
        self.requests += 1
        head, parser = _parse(raw, self._remote)
        body = ConnectionBody(self, head, parser)
        self._phase(busy=True, handling=True)
        response = await self._handler.handle(head, body)
        self._phase(busy=True, handling=False)
        keep = not (response.close or self.closing) and body.is_through and _keeps_alive(head)
        await self._respond(head, response, keep=keep)
        self._phase(busy=False, handling=False)
        return keep

    def _phase(self, *, busy: bool, handling: bool) -> None:
        self.busy, self.handling, self.reading_head = busy, handling, False
        self.since = trio.current_time()
        self.progress = 0

    async def _receive_head(self) -> bytes | None:
        searched = 0
        while True:
            end = self._pending.find(b"\r\n\r\n", max(0, searched - 3))
            if end >= 0:
                head = bytes(self._pending[: end + 4])
                del self._pending[: end + 4]
                check_head(head)
                return head
            searched = len(self._pending)
            if searched > MAX_HEAD_BYTES or (b"\n\n" in self._pending):
                raise HeadError(
                    400,
                    "RequestHeaderSectionTooLarge",
                    "the request head is too large or malformed",
                )
            data = await self._sock.recv(_RECEIVE_BYTES)
            if not data:
                return None
            if not self.busy:
                self._phase(busy=True, handling=False)
                self.reading_head = True
            self._pending += data
            if self._pending[:2] == b"\r\n":
                del self._pending[:2]  # RFC 9112 2.2: ignore an empty line before the request line

    # -- for the body

    def take(self, buffer: memoryview) -> int:
        """Bytes that came along with the head."""
        count = min(len(buffer), len(self._pending))
        if count:
            buffer[:count] = self._pending[:count]
            del self._pending[:count]
        return count

    async def receive_into(self, buffer: memoryview) -> int:
        """Bytes from the socket, straight into the buffer; 0: the client has ended."""
        self.handling = False
        try:
            count = await self._sock.recv_into(buffer)
        finally:
            self.handling = True
        self.progress += count
        return count

    async def send_continue(self) -> None:
        """Ask for the body that the client holds back."""
        await self._send([_CONTINUE])

    def give_back(self, data: bytes) -> None:
        """Bytes of the next request that the parser had received."""
        self._pending[:0] = data

    # -- responses

    async def _respond(self, head: RequestHead, response: Response, *, keep: bool) -> None:
        body = response.body
        if isinstance(body, bytes):
            start = _head_bytes(head.http_version, response, len(body), keep=keep)
            await self._send([start] if head.method == "HEAD" or not body else [start + body])
            return
        try:
            assert response.length is not None
            start = _head_bytes(head.http_version, response, response.length, keep=keep)
            if head.method == "HEAD":
                await self._send([start])
                return
            pending: list[bytes | memoryview] = [start]
            sent = 0
            while (buffers := await body.next()) is not None:
                sent += sum(map(len, buffers))
                await self._send([*pending, *buffers])
                pending = []
            if sent != response.length:
                raise BodyError("the body is not as long as it was announced")
            if pending:
                await self._send(pending)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await body.aclose()

    async def _refuse(self, error: HeadError) -> None:
        response = self._handler.refuse(self._remote, error.status, error.code, str(error))
        assert isinstance(response.body, bytes)
        start = _head_bytes("1.1", response, len(response.body), keep=False)
        await self._send([start + response.body])

    async def _send(self, buffers: Sequence[bytes | memoryview]) -> None:
        pending = list(buffers)
        while pending:
            count = await self._sock.sendmsg(pending[:_IOV])
            self.progress += count
            while pending and count >= len(pending[0]):
                count -= len(pending.pop(0))
            if count:
                pending[0] = memoryview(pending[0])[count:]


class ConnectionBody:
    """The body of one request; see s3.messages.RequestBody."""

    def __init__(self, connection: Connection, head: RequestHead, parser: h11.Connection) -> None:
        self._connection, self._parser = connection, parser
        length = head.headers.raw(b"content-length")
        self._chunked = b"transfer-encoding" in head.headers
        self._left = 0 if length is None else int(length)
        self.length: int | None = None if self._chunked else self._left
        self._ended = not self._chunked and self._left == 0
        self._wants_continue = (head.headers.raw(b"expect") or b"").lower() == b"100-continue"
        self._chunk = memoryview(b"")

    @property
    def is_through(self) -> bool:
        """Whether nothing of it is left on the connection."""
        return self._ended

    async def readinto(self, buffer: memoryview) -> int:
        """See RequestBody."""
        if self._ended or not buffer:
            return 0
        if self._wants_continue:
            self._wants_continue = False
            await self._connection.send_continue()
        if self._chunked:
            return await self._read_chunked(buffer)
        part = buffer[: self._left]
        count = self._connection.take(part) or await self._connection.receive_into(part)
        if not count:
            raise BodyError("the client ended before its body did")
        self._left -= count
        self._ended = self._left == 0
        return count

    async def _read_chunked(self, buffer: memoryview) -> int:
        while not self._chunk:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                raise BodyError(str(error)) from error
            if event is h11.NEED_DATA:
                scratch = bytearray(_RECEIVE_BYTES)
                view = memoryview(scratch)
                count = self._connection.take(view) or await self._connection.receive_into(view)
                if not count:
                    raise BodyError("the client ended before its body did")
                self._parser.receive_data(bytes(view[:count]))
            elif isinstance(event, h11.Data):
                self._chunk = memoryview(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._ended = True
                self._connection.give_back(self._parser.trailing_data[0])
                return 0
            else:
                raise BodyError("the body is malformed")
        count = min(len(buffer), len(self._chunk))
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count


def _parse(raw: bytes, remote: str) -> tuple[RequestHead, h11.Connection]:
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    parser.receive_data(raw)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise HeadError(400, "InvalidRequest", str(error)) from error
    if not isinstance(request, h11.Request):
        raise HeadError(400, "InvalidRequest", "a request was expected")
    path, _, query = request.target.partition(b"?")
    head = RequestHead(
        method=request.method.decode(),
        path=path,
        query=query,
        headers=Headers(request.headers),
        remote=remote,
        http_version=request.http_version.decode(),
    )
    return head, parser


def _keeps_alive(head: RequestHead) -> bool:
    wish = (head.headers.raw(b"connection") or b"").lower()
    return wish != b"close" if head.http_version == "1.1" else wish == b"keep-alive"


def _head_bytes(version: str, response: Response, length: int, *, keep: bool) -> bytes:
    lines = [_STATUS_LINES.get(response.status) or b"HTTP/1.1 %d Unknown\r\n" % response.status]
    for name, value in response.headers:
        if b"\r" in value or b"\n" in value or b"\0" in value:
            raise BodyError("a header value of the response would split it")
        lines.append(b"%s: %s\r\n" % (name, value))
    if response.length is not None:
        length = response.length
    if response.status not in {204, 304}:
        lines.append(b"Content-Length: %d\r\n" % length)
    if not keep:
        lines.append(b"Connection: close\r\n")
    elif version == "1.0":
        lines.append(b"Connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
