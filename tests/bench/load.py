"""The load generator: processes with raw sockets, keep-alive, requests signed in advance, so that the server is what is measured."""

import datetime as dt
import hashlib
import multiprocessing
import selectors
import socket
import time
import urllib.parse

import attrs

from s3.messages import Headers, RequestHead
from s3.sigv4 import sign_request

GRACE_SECONDS = 60.0  # for the answers that are under way when the time is over


@attrs.frozen
class Result:
    """Of one run: operations, seconds, sorted latencies in seconds, bytes received."""

    operations: int
    seconds: float
    latencies: list
    errors: int

    @property
    def rate(self):
        return self.operations / self.seconds

    def quantile(self, q):
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * q))]


def signed(endpoint, keys, method, path, body=b"", query="", headers=(), digest=None):
    """One signed request: its head and its body, which many requests may share. `digest`: the body's, where it is known."""
    host = urllib.parse.urlsplit(endpoint).netloc
    items = [(b"host", host.encode()), *headers]
    head = RequestHead(
        method=method, path=path.encode(), query=query.encode(), headers=Headers(items), remote=""
    )
    date = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    added = sign_request(
        head,
        access_key=keys[0],
        secret=keys[1],
        region="us-east-1",
        amz_date=date,
        payload=digest if digest is not None else hashlib.sha256(body).hexdigest(),
    )
    target = path + (f"?{query}" if query else "")
    lines = [f"{method} {target} HTTP/1.1".encode()] + [n + b": " + v for n, v in [*items, *added]]
    if body or method in {"PUT", "POST"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n", body


class _Client:
    """One connection, one request at a time."""

    def __init__(self, address, requests, is_head):
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.requests, self.is_head = requests, is_head
        self.buffer = bytearray()
        self.scratch = memoryview(bytearray(1 << 18))
        self.left = -1

    def send(self):
        self.out = [memoryview(buffer) for buffer in next(self.requests) if buffer]
        self.began = time.perf_counter()
        self.left = -1
        self.buffer.clear()

    def flush(self):
        """Whether the request is out."""
        try:
            sent = self.sock.sendmsg(self.out)
        except BlockingIOError:
            return False
        while self.out and sent >= len(self.out[0]):
            sent -= len(self.out.pop(0))
        if sent:
            self.out[0] = self.out[0][sent:]
        return not self.out

    def receive(self):
        """The status when the answer is complete, else 0."""
        count = self.sock.recv_into(self.scratch)
        if not count:
            raise ConnectionError("the server hung up")
        if self.left >= 0:
            self.left -= count
            return self.status if self.left <= 0 else 0
        self.buffer += self.scratch[:count]
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return 0
        head = bytes(self.buffer[:end]).lower()
        self.status = int(head[9:12])
        at = head.find(b"content-length:")
        length = 0 if at < 0 or self.is_head else int(head[at + 15 :].split(b"\r\n")[0])
        self.left = length - (len(self.buffer) - end - 4)
        return self.status if self.left <= 0 else 0


def _worker(address, batches, is_head, seconds, pipe):
    pipe.recv()
    clients = [_Client(address, iter(batch), is_head) for batch in batches]
    selector = selectors.DefaultSelector()
    latencies, errors = [], 0
    deadline = time.perf_counter() + seconds

    def start(client):
        try:
            client.send()
        except StopIteration:
            return False
        done = client.flush()
        events = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
        try:
            selector.modify(client.sock, events, client)
        except KeyError:
            selector.register(client.sock, events, client)
        return True

    active = sum(start(client) for client in clients)
    while active:
        if time.perf_counter() > deadline + GRACE_SECONDS:
            raise TimeoutError("the server does not answer any more")
        for key, events in selector.select(1.0):
            client = key.data
            if events & selectors.EVENT_WRITE and client.flush():
                selector.modify(client.sock, selectors.EVENT_READ, client)
            if events & selectors.EVENT_READ and (status := client.receive()):
                latencies.append(time.perf_counter() - client.began)
                errors += status >= 300
                if time.perf_counter() > deadline or not start(client):
                    selector.unregister(client.sock)
                    active -= 1
    for client in clients:
        client.sock.close()
    pipe.send((latencies, errors))


def run_load(endpoint, batches, *, seconds, is_head=False, processes=1):
    """Each batch is one client's requests, sent one after the other for at most `seconds`.

    Raises EOFError where a worker died: the server hung up, or fell silent.
    """
    url = urllib.parse.urlsplit(endpoint)
    address = (url.hostname, url.port)
    workers = []
    for number in range(processes):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(
            target=_worker,
            args=(address, batches[number::processes], is_head, seconds, theirs),
            daemon=True,
        )  # fmt: skip
        process.start()
        theirs.close()  # so that a worker that dies is heard of
        workers.append((process, ours))
    began = time.perf_counter()
    for _, pipe in workers:
        pipe.send("go")
    latencies, errors = [], 0
    for process, pipe in workers:
        some, bad = pipe.recv()
        latencies += some
        errors += bad
        process.join()
    return Result(len(latencies), time.perf_counter() - began, sorted(latencies), errors)
