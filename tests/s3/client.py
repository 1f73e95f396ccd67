"""Calls S3 operations as the gateway does once a request is authenticated: routed, unsigned payload, one owner."""

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from urllib.parse import quote

import attrs

from cluster.errors import ClusterError
from s3.errors import S3Error
from s3.messages import Headers, RequestHead, Response
from s3.ops import HANDLERS
from s3.policy import EVERYTHING, Grants
from s3.request import Context, Identity, S3Request
from s3.router import route
from s3.sigv4 import UNSIGNED_PAYLOAD, Verified
from s3.translate import subject_of, translate
from tests.s3.fake_objects import START_MS, FakeObjects

XMLNS = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@attrs.define
class Raw:
    """A request body in memory."""

    data: bytes
    at: int = 0

    @property
    def length(self) -> int | None:
        return len(self.data)

    async def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.data) - self.at)
        buffer[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count


@attrs.frozen
class Answer:
    """A response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    length: int | None

    @property
    def xml(self) -> ET.Element:
        return ET.fromstring(self.body.decode().replace(f' xmlns="{XMLNS[1:-1]}"', ""))

    def texts(self, path: str) -> list[str]:
        return [node.text or "" for node in self.xml.findall(path)]

    def text(self, path: str) -> str | None:
        return self.xml.findtext(path)


@attrs.define
class Client:
    """One bucket-and-key world."""

    objects: FakeObjects = attrs.field(factory=FakeObjects)
    region: str = "us-east-1"
    grants: Grants = EVERYTHING
    context: Context = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.context = Context(
            objects=self.objects, region=self.region, now=lambda: START_MS / 1000 + 500
        )

    async def __call__(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Raises S3Error as the gateway would turn it into a response."""
        items = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        if method in {"PUT", "POST"}:
            items.append((b"content-length", str(len(body)).encode()))
        items.append((b"host", b"localhost"))
        head = RequestHead(
            method=method, path=quote(path).encode(), query=query.encode(), headers=Headers(items), remote="test",
        )  # fmt: skip
        found = route(head, ())
        verified = Verified(
            access_key="AK", payload=UNSIGNED_PAYLOAD, presigned=False, signature="", amz_date="", scope="",
            signing_key=b"",
        )  # fmt: skip
        request = S3Request(
            head=head, route=found, raw_body=Raw(body), verified=verified,
            identity=Identity(access_key="AK", owner="root", grants=self.grants), request_id="0",
        )  # fmt: skip
        try:
            response = await HANDLERS[found.operation](self.context, request)
        except ClusterError as error:
            raise translate(error, subject_of(found, head.headers)) from error
        return await _read(response)

    async def refused(self, *args: str, **kwargs: object) -> S3Error:
        """The error of a call that must fail."""
        try:
            answer = await self(*args, **kwargs)  # type: ignore[arg-type]
        except S3Error as error:
            return error
        raise AssertionError(f"answered {answer.status}")

    async def put(self, path: str, body: bytes = b"", **headers: str) -> Answer:
        return await self(
            "PUT", path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


async def _read(response: Response) -> Answer:
    names = {name.decode().lower(): value.decode() for name, value in response.headers}
    body = response.body
    if isinstance(body, bytes):
        return Answer(response.status, names, body, response.length)
    data = bytearray()
    while (pieces := await body.next()) is not None:
        for piece in pieces:
            data += piece
    await body.aclose()
    assert len(data) == response.length
    return Answer(response.status, names, bytes(data), response.length)


def md5_header(body: bytes) -> dict[str, str]:
    return {"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()}


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'
