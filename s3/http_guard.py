"""Request heads, checked as raw bytes before a parser sees them: what two parsers could read differently is refused.

h11 accepts a bare LF, obs-fold, Content-Length beside Transfer-Encoding, repeated equal Content-Lengths and any number of
headers. Each of these has been used to smuggle a request past a proxy (RFC 9112 sections 2.2, 5.2 and 6.3), so none passes here.
"""

import re

MAX_HEAD_BYTES = 16 * 1024
MAX_TARGET_BYTES = 8 * 1024
MAX_HEADERS = 100

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]*|\*) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DIGITS = re.compile(rb"[0-9]{1,19}")


class HeadError(Exception):
    """The head is refused; the connection cannot be used any more."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def check_head(head: bytes) -> None:
    """Raises HeadError unless `head` (up to and with the empty line) is one that all parsers read alike."""
    if len(head) > MAX_HEAD_BYTES:
        raise HeadError(400, "RequestHeaderSectionTooLarge", "the request head is too large")
    lines = head.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    request_line = lines[0]
    if _REQUEST_LINE.fullmatch(request_line) is None:
        raise HeadError(400, "InvalidURI", "the request line is malformed")
    if len(request_line) > MAX_TARGET_BYTES:
        raise HeadError(414, "InvalidURI", "the request target is too long")
    if len(lines) - 3 > MAX_HEADERS:
        raise HeadError(400, "RequestHeaderSectionTooLarge", "too many headers")
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    hosts = 0
    for line in lines[1:-2]:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise HeadError(400, "InvalidRequest", "a header line is malformed")
        name = found[1].lower()
        if name == b"content-length":
            lengths.append(found[2].rstrip(b" \t"))
        elif name == b"transfer-encoding":
            encodings.append(found[2].rstrip(b" \t").lower())
        elif name == b"host":
            hosts += 1
    _check_framing(lengths, encodings)
    if hosts > 1 or (hosts == 0 and request_line.endswith(b"1.1")):
        raise HeadError(400, "InvalidRequest", "exactly one Host header is needed")


def _check_framing(lengths: list[bytes], encodings: list[bytes]) -> None:
    if len(lengths) > 1:
        raise HeadError(400, "InvalidRequest", "Content-Length is given more than once")
    if lengths and _DIGITS.fullmatch(lengths[0]) is None:
        raise HeadError(400, "InvalidRequest", "Content-Length is not a number")
    if encodings and lengths:
        raise HeadError(
            400, "InvalidRequest", "Content-Length and Transfer-Encoding exclude each other"
        )
    if encodings and encodings != [b"chunked"]:
        raise HeadError(501, "NotImplemented", "the only transfer encoding is chunked")
