"""AWS's published upload with a signed trailer, head and body, and what is refused of it."""

import base64
import hashlib
import hmac

import pytest

from s3.body import SignedBody
from s3.errors import S3Error
from s3.messages import Headers, RequestHead
from s3.sigv4 import parse, query_pairs, verify
from tests.s3.test_body import Raw, drain
from tests.s3.test_sigv4 import ACCESS, DAY, SECRET

# "Signature calculations for the Authorization Header: Including trailing headers", S3 API reference
FORM = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
SCOPE = "20130524/us-east-1/s3/aws4_request"
SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
CHUNKS = (
    (65536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
    (1024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    (0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
)
CHECKSUM = "sOO8/Q=="
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
HEADERS = {
    "content-encoding": "aws-chunked",
    "host": "s3.amazonaws.com",
    "x-amz-content-sha256": FORM,
    "x-amz-date": "20130524T000000Z",
    "x-amz-decoded-content-length": "66560",
    "x-amz-storage-class": "REDUCED_REDUNDANCY",
    "x-amz-trailer": "x-amz-checksum-crc32c",
}
DATA = b"".join(
    b"%x;chunk-signature=%s\r\n%s" % (size, sign.encode(), b"a" * size + b"\r\n" * bool(size))
    for size, sign in CHUNKS
)
TRAILER = f"x-amz-checksum-crc32c:{CHECKSUM}\r\nx-amz-trailer-signature:{TRAILER_SIGNATURE}\r\n\r\n"
# minio-go sends the newline that is signed, too, and then ends the line.
TRAILER_OF_GO = TRAILER.replace(f"{CHECKSUM}\r\n", f"{CHECKSUM}\n\r\n")


def head(**changes: str) -> RequestHead:
    """The request's head, signed as published."""
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/{SCOPE},SignedHeaders={';'.join(HEADERS)},Signature={SEED}"
    )  # fmt: skip
    sent = HEADERS | changes | {"authorization": authorization}
    return RequestHead(
        method="PUT", path=b"/examplebucket/chunkObject.txt", query=b"", remote="",
        headers=Headers((name.encode(), value.encode()) for name, value in sent.items()),
    )  # fmt: skip


def body(raw: bytes, piece: int = 1 << 20) -> SignedBody:
    request = head()
    signed = parse(request, query_pairs(b""))
    assert signed is not None
    verified = verify(request, signed, secret_of=lambda _: SECRET, region="us-east-1", now=DAY)
    return SignedBody(request, Raw(DATA + raw, piece), verified)


def test_the_published_values_are_those_of_another_implementation() -> None:
    key = f"AWS4{SECRET}".encode()
    for part in SCOPE.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()

    def sign(kind: str, *lines: str) -> str:
        text = "\n".join((kind, "20130524T000000Z", SCOPE, *lines))
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def digest(data: str) -> str:
        return hashlib.sha256(data.encode()).hexdigest()

    lines = "".join(f"{name}:{value}\n" for name, value in HEADERS.items())
    canonical = f"PUT\n/examplebucket/chunkObject.txt\n\n{lines}\n{';'.join(HEADERS)}\n{FORM}"
    assert sign("AWS4-HMAC-SHA256", digest(canonical)) == SEED
    previous = SEED
    for size, published in CHUNKS:
        wanted = sign("AWS4-HMAC-SHA256-PAYLOAD", previous, digest(""), digest("a" * size))
        assert wanted == published
        previous = published
    assert base64.b64encode(_crc32c(b"a" * 66560).to_bytes(4, "big")).decode() == CHECKSUM
    trailer = digest(f"x-amz-checksum-crc32c:{CHECKSUM}\n")
    assert sign("AWS4-HMAC-SHA256-TRAILER", previous, trailer) == TRAILER_SIGNATURE


def _crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 appendix B.4 has it: the library must not check itself."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize("piece", [1 << 20, 1000, 7])
@pytest.mark.parametrize("trailer", [TRAILER, TRAILER[:-2], TRAILER_OF_GO])
async def test_the_published_upload_with_a_trailer_is_accepted(trailer: str, piece: int) -> None:
    data, sealed = await drain(body(trailer.encode(), piece))
    assert data == b"a" * 66560
    assert sealed.checksum[0].name == "CRC32C"
    assert base64.b64encode(sealed.checksum[1]).decode() == CHECKSUM


@pytest.mark.parametrize(
    ("trailer", "code"),
    [
        (TRAILER.replace("d81f", "d81e"), "SignatureDoesNotMatch"),
        (TRAILER.replace(CHECKSUM, "AAAAAA=="), "SignatureDoesNotMatch"),
        (TRAILER.replace("crc32c", "crc32"), "MalformedTrailerError"),
        ("\r\n", "MalformedTrailerError"),
        ("", "MalformedTrailerError"),
        (TRAILER[:34] + "\r\n", "MalformedTrailerError"),
        (TRAILER[TRAILER.index("x-amz-trailer") :], "SignatureDoesNotMatch"),
        (TRAILER.replace(TRAILER_SIGNATURE, "d81f"), "MalformedTrailerError"),
        (TRAILER + "x", "IncompleteBody"),
        (TRAILER_OF_GO + "x-amz-meta-a:b\r\n", "IncompleteBody"),
        (f"x-amz-checksum-crc32c:{CHECKSUM}\r\n" + TRAILER, "MalformedTrailerError"),
    ],
)
async def test_a_trailer_that_is_not_the_signed_one_is_refused(trailer: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        await drain(body(trailer.encode()))
    assert caught.value.code == code


def test_another_trailer_may_not_be_named_behind_the_signature() -> None:
    request = head(**{"x-amz-trailer": "x-amz-checksum-crc32"})
    signed = parse(request, query_pairs(b""))
    assert signed is not None
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(request, signed, secret_of=lambda _: SECRET, region="us-east-1", now=DAY)
