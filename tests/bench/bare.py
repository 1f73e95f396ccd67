"""The baseline: Trio and h11, answering signed requests without looking at them. `python -m tests.bench.bare`; prints its port."""

import h11
import trio

PIECE = bytes(65536)


async def connection(stream):
    parser = h11.Connection(h11.SERVER)
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                await answer(stream, parser, request)
                parser.start_next_cycle()
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        return


async def answer(stream, parser, request):
    size = 0 if request.method == b"HEAD" else int(request.target.rpartition(b"/")[2] or 0)
    headers = [
        ("content-type", "binary/octet-stream"),
        ("etag", '"0"'),
        ("content-length", str(size)),
    ]
    head = parser.send(h11.Response(status_code=200, headers=headers))
    if size <= 65536:
        body = parser.send(h11.Data(data=PIECE[:size])) if size else b""
        await stream.send_all(head + body + parser.send(h11.EndOfMessage()))
        return
    await stream.send_all(head)
    while size:
        piece = PIECE[: min(size, 65536)]
        for buffer in parser.send_with_data_passthrough(h11.Data(data=piece)):
            await stream.send_all(buffer)
        size -= len(piece)
    parser.send(h11.EndOfMessage())


async def main():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(connection, listeners)


if __name__ == "__main__":
    trio.run(main)
