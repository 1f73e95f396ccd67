"""What an operation gets: the request, authenticated and routed, and what it may reach."""

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from cluster.objects.model import Objects
from s3.body import SignedBody
from s3.errors import S3Error
from s3.messages import Headers, RequestBody, RequestHead
from s3.policy import Grants
from s3.router import Query, Route
from s3.sigv4 import Verified


@attrs.frozen(kw_only=True)
class Identity:
    """Who made a request: made from a verified signature only."""

    access_key: str
    owner: str  # the account that owns what this identity creates
    grants: Grants


@attrs.frozen(kw_only=True)
class Credential:
    """What an access key stands for, as long as no signature has been verified with it."""

    identity: Identity
    secret: str = attrs.field(repr=False)


class Credentials(Protocol):
    """Where access keys are looked up."""

    async def find(self, access_key: str) -> Credential | None:
        """None: unknown, or not to be used. Raises UnavailableError where that cannot be said."""
        ...


LARGE_COPIES, SMALL_COPIES = 4, 16


def _slots(count: int) -> Callable[[], trio.CapacityLimiter]:
    return lambda: trio.CapacityLimiter(count)


@attrs.frozen(kw_only=True)
class Context:
    """What every operation may reach.

    A copy reads from one buffer of the store while it waits for another to write into: so few at a time that they can
    never hold all buffers while each of them waits for one more.
    """

    objects: Objects
    region: str
    now: Callable[[], float]  # seconds since 1970
    large_copies: trio.CapacityLimiter = attrs.field(factory=_slots(LARGE_COPIES))
    small_copies: trio.CapacityLimiter = attrs.field(factory=_slots(SMALL_COPIES))


@attrs.frozen(kw_only=True)
class S3Request:
    """One authenticated request."""

    head: RequestHead
    route: Route
    raw_body: RequestBody
    verified: Verified
    identity: Identity
    request_id: str

    @property
    def headers(self) -> Headers:
        """The request headers."""
        return self.head.headers

    @property
    def query(self) -> Query:
        """The query, decoded."""
        return self.route.query

    @property
    def bucket(self) -> str:
        """The bucket's name; only for operations on buckets and objects."""
        assert self.route.bucket is not None
        return self.route.bucket

    @property
    def key(self) -> bytes:
        """The object key; only for operations on objects."""
        assert self.route.key is not None
        return self.route.key

    def body(self, *, with_checksum: bool = True) -> SignedBody:
        """The body to store or parse; checks what the head says of it.

        Without `with_checksum`, x-amz-checksum-* are not of this body (a Complete's speak of the object).
        """
        if self.raw_body.length is None and not self.verified.payload.startswith("STREAMING-"):
            raise S3Error("MissingContentLength")
        if (
            self.raw_body.length == 0
            and b"content-length" not in self.headers
            and self.head.method == "PUT"
        ):
            raise S3Error("MissingContentLength")
        return SignedBody(self.head, self.raw_body, self.verified, with_checksum=with_checksum)
