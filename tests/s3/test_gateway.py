"""Nothing reaches storage without a good signature; and what every answer carries."""

import hashlib
import random

import pytest
import trio

from cluster.errors import QuorumError, StorageFullError
from s3.gateway import Answered, Failure, Gateway, GatewaySettings
from s3.messages import Headers, RequestHead, Response
from s3.ops import HANDLERS
from s3.request import Context, Identity
from s3.server import HttpServer, bound_port, open_listeners
from s3.sigv4 import EMPTY_SHA256, sign_request

ACCESS, SECRET, NOW, DATE = "AKTEST", "a-secret-for-tests", 1369353600.0, "20130524T000000Z"
TARGETS = [
    ("GET", "/"), ("PUT", "/bucket"), ("GET", "/bucket"), ("HEAD", "/bucket"), ("DELETE", "/bucket"), ("GET", "/bucket?list-type=2"),
    ("GET", "/bucket?location"), ("GET", "/bucket?versions"), ("GET", "/bucket?versioning"), ("GET", "/bucket?uploads"),
    ("POST", "/bucket?delete"), ("GET", "/bucket?policy"), ("GET", "/bucket?cors"), ("PUT", "/bucket?acl"), ("PUT", "/bucket/key"),
    ("GET", "/bucket/key"), ("HEAD", "/bucket/key"), ("DELETE", "/bucket/key"), ("GET", "/bucket/key?attributes"),
    ("GET", "/bucket/key?tagging"), ("POST", "/bucket/key?uploads"), ("PUT", "/bucket/key?uploadId=x&partNumber=1"),
    ("POST", "/bucket/key?uploadId=x"), ("DELETE", "/bucket/key?uploadId=x"), ("GET", "/bucket/key?uploadId=x"),
]  # fmt: skip


class Untouchable:
    """Storage that must not be reached."""

    def __getattr__(self, name):
        raise AssertionError(f"storage was reached: {name}")


class Empty:
    length = 0

    async def readinto(self, buffer):
        return 0


def gateway(objects, events, operations=HANDLERS):
    async def ready():
        return True, "ready"

    root = Identity(access_key=ACCESS, owner="root")
    return Gateway(
        Context(objects=objects, region="us-east-1", now=lambda: NOW),
        settings=GatewaySettings(base_domains=("s3.test",)),
        identities=lambda key: (root, SECRET) if key == ACCESS else None,
        ready=ready, rng=random.Random(1), emit=events.append, operations=operations,
    )  # fmt: skip


def request(method, target, kind="good", host="h"):
    path, _, query = target.partition("?")
    items = [(b"host", host.encode())]
    head = RequestHead(
        method=method,
        path=path.encode(),
        query=query.encode(),
        headers=Headers(items),
        remote="peer",
    )
    if kind == "none":
        return head
    access, secret = (ACCESS, SECRET) if kind != "unknown key" else ("AKOTHER", SECRET)
    if kind == "wrong secret":
        secret = "another"
    added = sign_request(
        head,
        access_key=access,
        secret=secret,
        region="us-east-1",
        amz_date=DATE,
        payload=EMPTY_SHA256,
    )
    items += added
    if kind == "header and query":
        query += "&X-Amz-Signature=00"
    return RequestHead(
        method=method,
        path=path.encode(),
        query=query.encode(),
        headers=Headers(items),
        remote="peer",
    )


@pytest.mark.parametrize("kind", ["none", "unknown key", "wrong secret", "header and query"])
@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_storage_is_not_reached_without_a_good_signature(method, target, kind):
    events = []
    answer = await gateway(Untouchable(), events).handle(request(method, target, kind), Empty())
    assert answer.status in {400, 403}
    assert not [event for event in events if isinstance(event, Failure)]
    assert SECRET not in repr(events)


@pytest.mark.parametrize(("method", "target"), TARGETS)
async def test_a_good_signature_is_let_through(method, target):
    reached = []

    async def operation(context, asked):
        reached.append(asked.route.operation)
        return Response(status=200)

    answer = await gateway(None, [], dict.fromkeys(HANDLERS, operation)).handle(
        request(method, target), Empty()
    )
    assert answer.status == 200
    assert len(reached) == 1


async def one(error, method="GET"):
    async def operation(context, asked):
        raise error

    events = []
    answer = await gateway(None, events, dict.fromkeys(HANDLERS, operation)).handle(
        request(method, "/bucket/key"), Empty()
    )
    return answer, events


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QuorumError(4, 3), 503, b"ServiceUnavailable"),
        (StorageFullError("full"), 507, b"StorageFull"),
        (ZeroDivisionError("bug"), 500, b"InternalError"),
    ],
)
async def test_errors_become_s3_errors_with_an_id(error, status, code):
    answer, events = await one(error)
    headers = dict(answer.headers)
    assert answer.status == status
    assert b"<Code>" + code + b"</Code>" in answer.body
    assert headers[b"x-amz-request-id"] in answer.body
    assert (b"Retry-After" in headers) == (status == 503)
    assert any(isinstance(event, Failure) for event in events) == (status == 500)
    assert next(event for event in events if isinstance(event, Answered)).status == status


async def test_a_head_error_has_no_body():
    answer, _ = await one(QuorumError(4, 3), "HEAD")
    assert (answer.status, answer.body) == (503, b"")


async def test_a_head_that_is_refused_is_answered_with_an_id_and_logged():
    events = []
    server = HttpServer(gateway(Untouchable(), events))
    listeners = await open_listeners("127.0.0.1", 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        stream = await trio.open_tcp_stream("127.0.0.1", bound_port(listeners))
        await stream.send_all(b"GET /bucket/<key> HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n")
        async with stream:
            with trio.fail_after(5):
                head, _, body = b"".join([part async for part in stream]).partition(b"\r\n\r\n")
        nursery.cancel_scope.cancel()
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 400 Bad Request"
    headers = dict(line.split(b": ", 1) for line in lines[1:])
    assert {b"x-amz-id-2", b"Date", b"Server"} <= set(headers)
    assert b"<RequestId>" + headers[b"x-amz-request-id"] + b"</RequestId>" in body
    assert headers[b"Connection"] == b"close"
    assert int(headers[b"Content-Length"]) == len(body)
    (event,) = events
    assert (event.status, event.code, event.remote) == (400, "InvalidRequest", "127.0.0.1")
    assert event.request_id.encode() == headers[b"x-amz-request-id"]


async def test_health_needs_no_signature_and_is_no_bucket():
    for target, status in (("/-/live", 200), ("/-/ready", 200), ("/-/other", 404)):
        assert (
            await gateway(Untouchable(), []).handle(request("GET", target, "none"), Empty())
        ).status == status
    # Where the host names a bucket, the same path is a key.
    answer = await gateway(Untouchable(), []).handle(
        request("GET", "/-/live", "none", host="bucket.s3.test"), Empty()
    )
    assert answer.status == 403
    assert hashlib.sha256(b"").hexdigest() == EMPTY_SHA256
