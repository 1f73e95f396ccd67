"""The HTTP border: what is refused before it is parsed, and what a connection does with bodies, pipelines and endings."""

import contextlib

import h11
import pytest
import trio
from hypothesis import given, strategies as st

from s3.http_guard import HeadError, check_head
from s3.messages import Response
from s3.server import HttpServer, ServerSettings, bound_port, open_listeners

GOOD = b"GET /b/k?x=y HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /\xc3\xbc HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: x\0y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: x\ry\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"b" * 17000 + b"\r\n\r\n",
    ],
)
def test_heads_that_two_parsers_could_read_differently_are_refused(head):
    with pytest.raises(HeadError):
        check_head(head)


def test_a_plain_head_passes():
    check_head(GOOD)


@given(st.integers(0, len(GOOD) - 5), st.binary(max_size=6))
def test_what_passes_the_guard_h11_reads_too(at, junk):
    head = GOOD[:at] + junk + GOOD[at:]
    if head.count(b"\r\n\r\n") != 1:
        return
    try:
        check_head(head)
    except HeadError:
        return
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    try:
        assert isinstance(parser.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        pass  # h11 is stricter in places; what matters is that it never reads more than we do


class Echo:
    """Answers with what it was asked; /drop leaves the body unread, /big streams."""

    def __init__(self):
        self.gate = trio.Event()
        self.gate.set()

    async def handle(self, head, body):
        await self.gate.wait()
        if head.path == b"/drop":
            return Response(status=403, body=b"no")
        if head.path == b"/big":
            return Response(status=200, body=Big(), length=1 << 20)
        if head.path == b"/broken":
            return Response(status=200, body=Big(fail=True), length=1 << 20)
        data = b""
        buffer = memoryview(bytearray(1000))
        while count := await body.readinto(buffer):
            data += bytes(buffer[:count])
        return Response(status=200, headers=[(b"X-Path", head.path)], body=data)

    def refuse(self, remote, status, code, message):
        return Response(status=status, body=code.encode())


class Big:
    def __init__(self, *, fail=False):
        self.left, self.fail, self.closed = 16, fail, False

    async def next(self):
        if not self.left:
            return None
        self.left -= 1
        if self.fail and self.left == 8:
            raise OSError("rot")
        return [memoryview(bytes(32768)), memoryview(bytes(32768))]

    async def aclose(self):
        self.closed = True


@contextlib.asynccontextmanager
async def serving(**settings):
    handler = Echo()
    server = HttpServer(handler, ServerSettings(**settings))
    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)

        opened = []

        async def connect():
            opened.append(await trio.open_tcp_stream("127.0.0.1", bound_port(listeners)))
            return opened[-1]

        yield connect, server, handler
        for stream in opened:
            stream.socket.close()
        nursery.cancel_scope.cancel()


async def until_closed(stream):
    data = b""
    with trio.fail_after(5):
        while part := await stream.receive_some(65536):
            data += part
    return data


async def ask(stream, request):
    """One request on a connection, by h11's reading of the answer."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=request.split()[0], target="/", headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    await stream.send_all(request)
    body = b""
    response = None
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return response, body


async def test_requests_on_one_connection_are_answered_in_order():
    async with serving() as (connect, _, _):
        stream = await connect()
        for n in range(3):
            response, body = await ask(
                stream, b"PUT /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" % n
            )
            assert (response.status_code, body) == (200, b"hello")
            assert (b"x-path", b"/%d" % n) in list(response.headers)


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as (connect, _, _):
        stream = await connect()
        one = b"PUT /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\naa"
        two = (
            b"PUT /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbbb\r\n0\r\n\r\n"
        )
        last = b"GET /3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        await stream.send_all(one + two + last)
        answer = await until_closed(stream)
        assert (
            answer.index(b"/1")
            < answer.index(b"aa")
            < answer.index(b"/2")
            < answer.index(b"bbb")
            < answer.index(b"/3")
        )


async def test_continue_is_sent_only_when_the_body_is_wanted():
    async with serving() as (connect, _, _):
        stream = await connect()
        await stream.send_all(
            b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await stream.receive_some(100)).startswith(b"HTTP/1.1 100")
        await stream.send_all(b"ok")
        assert b"200" in await stream.receive_some(1000)
        stream = await connect()
        await stream.send_all(
            b"PUT /drop HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = await until_closed(stream)
        assert answer.startswith(b"HTTP/1.1 403")
        assert b"Connection: close" in answer


async def test_large_bodies_are_streamed_and_a_break_is_no_clean_end():
    async with serving() as (connect, _, _):
        stream = await connect()
        _, body = await ask(stream, b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        assert len(body) == 1 << 20
        stream = await connect()
        await stream.send_all(b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n")
        assert len(await until_closed(stream)) < 1 << 20


async def test_head_has_a_length_and_no_body():
    async with serving() as (connect, _, _):
        stream = await connect()
        await stream.send_all(b"HEAD /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = await until_closed(stream)
        assert b"Content-Length: 1048576" in answer
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "rest", [b"\r\n", b"zz\r\n", b"-1\r\nx\r\n", b"5\r\nab", b"fffffffffffffffffffffff\r\n"]
)
async def test_a_malformed_chunked_body_ends_the_connection(rest):
    async with serving() as (connect, _, _):
        stream = await connect()
        await stream.send_all(
            b"PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + rest
        )
        await stream.send_eof()
        assert b"200 OK" not in await until_closed(stream)


async def test_a_bad_head_is_answered_and_ends_the_connection():
    async with serving() as (connect, _, _):
        stream = await connect()
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        answer = await until_closed(stream)
        assert answer.startswith(b"HTTP/1.1 400")
        assert answer.endswith(b"InvalidRequest")


@pytest.mark.slow
async def test_slow_and_idle_clients_are_swept():
    limits = {"head_seconds": 0.2, "idle_seconds": 0.2, "rate_seconds": 0.2, "sweep_seconds": 0.05}
    async with serving(**limits) as (connect, _, _):
        for start in (
            b"",
            b"GET / HT",
            b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\nab",
        ):
            stream = await connect()
            if start:
                await stream.send_all(start)
            assert b"200" not in await until_closed(stream)


async def test_connections_are_capped():
    async with serving(max_connections=2) as (connect, _, _):
        kept = [await connect(), await connect()]
        for stream in kept:
            await ask(stream, b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
        third = await connect()
        with contextlib.suppress(trio.BrokenResourceError):
            assert await until_closed(third) == b""
        await ask(kept[0], b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")


async def test_stop_lets_requests_in_flight_finish_and_closes_idle_connections():
    async with serving() as (connect, server, handler):
        idle, working = await connect(), await connect()
        await ask(idle, b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n")
        handler.gate = trio.Event()
        await working.send_all(b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        await trio.sleep(0.05)
        server.stop()
        assert await until_closed(idle) == b""
        handler.gate.set()
        assert b"/2" in await until_closed(working)
