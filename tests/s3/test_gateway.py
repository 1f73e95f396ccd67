"""Nothing reaches storage without a good signature; and what every answer carries."""

import hashlib
import random

import pytest
import trio

from cluster.errors import (
    NotFoundError,
    QuorumError,
    StaleBucketError,
    StorageFullError,
    SupersededError,
)
from s3.gateway import Answered, Failure, Gateway, GatewaySettings
from s3.messages import Headers, RequestHead, Response
from s3.ops import HANDLERS
from s3.policy import EVERYTHING
from s3.request import Context, Credential, Identity
from s3.server import HttpServer, bound_port, open_listeners
from s3.sigv4 import EMPTY_SHA256, sign_request
from tests.s3.fake_objects import FakeObjects

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


class OneKey:
    def __init__(self, credential):
        self.credential = credential

    async def find(self, access_key):
        return self.credential if access_key == ACCESS else None


def gateway(objects, events, operations=HANDLERS, grants=EVERYTHING):
    async def ready():
        return True, "ready"

    identity = Identity(access_key=ACCESS, owner="root", grants=grants)
    return Gateway(
        Context(objects=objects, region="us-east-1", now=lambda: NOW),
        settings=GatewaySettings(base_domains=("s3.test",)),
        credentials=OneKey(Credential(identity=identity, secret=SECRET)),
        ready=ready, rng=random.Random(1), emit=events.append, operations=operations,
    )  # fmt: skip


def request(method, target, kind="good", host="h", more=(), payload=EMPTY_SHA256):
    path, _, query = target.partition("?")
    items = [(b"host", host.encode()), *more]
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
        payload=payload,
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


class Upload(Empty):
    """A body that says whether it was asked for."""

    length = 5

    def __init__(self):
        self.asked = False

    async def readinto(self, buffer):
        first, self.asked = not self.asked, True
        buffer[:5] = b"hello"
        return 5 if first else 0


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        (b"if-none-match", b"*", 412),
        (b"if-match", b'"another"', 412),
        (b"if-match", b'"5d41402abc4b2a76b9719d911017c592"', 200),
        (b"if-match", b"*", 200),
    ],
)
async def test_a_doomed_upload_is_refused_before_its_body_is_asked_for(header, value, status):
    objects = FakeObjects()
    subject = gateway(objects, [])
    await subject.handle(request("PUT", "/bucket"), Empty())
    length = (b"content-length", b"5")
    for condition, wanted in (((), 200), (((header, value),), status)):
        body = Upload()
        head = request("PUT", "/bucket/key", more=[length, *condition], payload="UNSIGNED-PAYLOAD")
        answer = await subject.handle(head, body)
        assert answer.status == wanted, answer.body
        assert body.asked == (wanted == 200)
    if status == 412:
        assert b"<Condition>%s</Condition>" % header.title() in answer.body


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/bucket/key"),
        ("GET", "/bucket/key"),
        ("PUT", "/bucket/key?uploadId=x&partNumber=1"),
    ],
)
@pytest.mark.parametrize("source", ["", "copy-source-"])
async def test_a_key_for_encryption_is_never_ignored(method, target, source):
    name = f"x-amz-{source}server-side-encryption-customer-algorithm".encode()
    head = request(method, target, more=[(name, b"AES256")])
    answer = await gateway(Untouchable(), []).handle(head, Empty())
    assert answer.status == 501
    assert b"<Header>%s</Header>" % name in answer.body


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (NotFoundError("part", "7"), (b"<Code>InvalidPart<", b"<PartNumber>7<", b"<UploadId>up<")),
        (NotFoundError("upload"), (b"<Code>NoSuchUpload<", b"<UploadId>up<")),
        (NotFoundError("key"), (b"<Code>NoSuchKey<", b"<Key>key<")),
        (NotFoundError("bucket"), (b"<Code>NoSuchBucket<", b"<BucketName>bucket<")),
        (StaleBucketError(), (b"<Code>ServiceUnavailable<",)),  # the bucket may stand
    ],
)
async def test_errors_name_what_they_are_about(error, facts):
    async def operation(context, asked):
        raise error

    subject = gateway(None, [], dict.fromkeys(HANDLERS, operation))
    answer = await subject.handle(request("POST", "/bucket/key?uploadId=up"), Empty())
    assert all(fact in answer.body for fact in facts), answer.body


@pytest.mark.parametrize(("times", "status"), [(0, 200), (2, 200), (3, 503)])
async def test_an_object_that_is_replaced_between_look_and_read_is_looked_up_again(times, status):
    class Changing(FakeObjects):
        left = times

        async def get(self, bucket, key, version_id=None):
            found = await super().get(bucket, key, version_id)
            if self.left:
                self.left -= 1
                return Superseded(found.version)
            return found

    class Superseded:
        def __init__(self, version):
            self.version = version

        async def open(self, start, stop):
            raise SupersededError("its data was collected")

    subject = gateway(Changing(), [])
    await subject.handle(request("PUT", "/bucket"), Empty())
    length = (b"content-length", b"5")
    put = request("PUT", "/bucket/key", more=[length], payload="UNSIGNED-PAYLOAD")
    await subject.handle(put, Upload())
    answer = await subject.handle(request("GET", "/bucket/key"), Empty())
    assert answer.status == status
    assert (answer.body == b"hello") == (status == 200)
