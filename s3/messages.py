"""HTTP as the S3 front end sees it: a request head, a body to read, a response. No parser and no socket here."""

import functools
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from typing import Protocol

import attrs


class Headers:
    """Request headers: names in lower case, order kept, duplicates kept."""

    __slots__ = ("_index", "items")

    def __init__(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        self.items: tuple[tuple[bytes, bytes], ...] = tuple(items)
        self._index: dict[bytes, bytes] = {}
        for name, value in self.items:
            self._index.setdefault(name, value)

    def get(self, name: bytes) -> str | None:
        """The first value of a header, decoded as UTF-8 where it is (else Latin-1); None: not sent."""
        value = self._index.get(name)
        return None if value is None else decode_header(value)

    def raw(self, name: bytes) -> bytes | None:
        """The first value as it was sent."""
        return self._index.get(name)

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a header."""
        return [value for known, value in self.items if known == name]

    def __contains__(self, name: bytes) -> bool:
        return name in self._index


@functools.lru_cache(maxsize=4096)
def http_date(seconds: int) -> bytes:
    """An IMF-fixdate (RFC 9110 5.6.7)."""
    return formatdate(seconds, usegmt=True).encode()


def decode_header(value: bytes) -> str:
    """Header bytes as text: UTF-8 where they are, else Latin-1, which never fails."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


@attrs.frozen(kw_only=True)
class RequestHead:
    """A request before its body. `path` and `query` are raw, as received: signatures are made over them."""

    method: str
    path: bytes  # percent-encoded, begins with "/"
    query: bytes  # without "?"
    headers: Headers
    remote: str  # peer address
    http_version: str = "1.1"


class RequestBody(Protocol):
    """The bytes that follow a request head, HTTP framing removed."""

    @property
    def length(self) -> int | None:
        """Content-Length; None: chunked. 0: there is no body."""
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """At least one byte; 0: the end. The first call sends "100 Continue" where the client waits for it.

        Raises BodyError for a broken or too slow body.
        """
        ...


class BodyError(Exception):
    """The client broke off, framed the body badly, or was too slow. The connection is not to be used again."""


class ResponseBody(Protocol):
    """A body that is produced while it is sent (cluster.objects.model.Reader is one)."""

    async def next(self) -> Sequence[memoryview] | None:
        """The next buffers, valid until the next call; None: the end. An exception breaks off the connection."""
        ...

    async def aclose(self) -> None:
        """Give everything back. Called in every case."""
        ...


@attrs.define(kw_only=True)
class Response:
    """An answer. With a streamed `body`, `length` is its size and is sent as Content-Length."""

    status: int
    headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    body: bytes | ResponseBody = b""
    length: int | None = None  # of a streamed body; or the Content-Length that a HEAD answers
    close: bool = False  # end the connection after this response


class Handler(Protocol):
    """What the HTTP server calls for every request; the gateway is one. It never raises but Cancelled."""

    async def handle(self, head: RequestHead, body: RequestBody) -> Response:
        """Answer one request."""
        ...

    def refuse(self, remote: str, status: int, code: str, message: str) -> Response:
        """Answer what cannot be read as a request."""
        ...
