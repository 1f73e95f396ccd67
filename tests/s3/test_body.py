"""Bodies: AWS's published chunked upload, every form damaged, and what was announced against what arrived."""

import base64
import datetime as dt
import hashlib

import pytest
from hypothesis import given, strategies as st

from s3.body import SignedBody
from s3.errors import S3Error
from s3.messages import Headers, RequestHead
from s3.sigv4 import Verified, signing_key

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
DAY = dt.datetime(2013, 5, 24, tzinfo=dt.UTC)


class Raw:
    """A RequestBody over bytes, in pieces."""

    def __init__(self, data, piece=1 << 20, *, length=True):
        self.data, self.piece, self.at = data, piece, 0
        self.length = len(data) if length else None

    async def readinto(self, buffer):
        count = min(len(buffer), len(self.data) - self.at, self.piece)
        buffer[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count


def verified(payload, signature="4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"):
    return Verified(
        access_key="AKIAIOSFODNN7EXAMPLE", payload=payload, presigned=False, signature=signature, amz_date="20130524T000000Z",
        scope="20130524/us-east-1/s3/aws4_request", signing_key=signing_key(SECRET, "20130524", "us-east-1"),
    )  # fmt: skip


def head_with(**headers):
    items = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return RequestHead(method="PUT", path=b"/b/k", query=b"", headers=Headers(items), remote="")


async def drain(body):
    data = b""
    buffer = memoryview(bytearray(30_000))
    while count := await body.readinto(buffer):
        data += bytes(buffer[:count])
    for digest in body.digests:
        digest.update(data)
    return data, body.seal(len(data))


# "Example Calculations: Transferring a payload in multiple chunks", S3 API reference
CHUNKS = (
    (65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    (1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
PUBLISHED = b"".join(
    b"%x;chunk-signature=%s\r\n%s\r\n" % (size, signature.encode(), b"a" * size)
    for size, signature in CHUNKS
)


@pytest.mark.parametrize("piece", [1 << 20, 1000, 7])
async def test_the_published_chunked_upload_is_accepted(piece):
    head = head_with(x_amz_decoded_content_length="66560")
    body = SignedBody(head, Raw(PUBLISHED, piece), verified("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))
    data, sealed = await drain(body)
    assert data == b"a" * 66560
    assert sealed.md5 == hashlib.md5(data).digest()


@pytest.mark.parametrize("at", [3, 30, 100, 40_000, 65_630, 66_000, len(PUBLISHED) - 10])
async def test_a_changed_byte_of_a_signed_upload_is_refused(at):
    damaged = bytearray(PUBLISHED)
    damaged[at] ^= 1
    head = head_with(x_amz_decoded_content_length="66560")
    with pytest.raises(S3Error):
        await drain(
            SignedBody(head, Raw(bytes(damaged)), verified("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))
        )


@pytest.mark.parametrize("keep", [0, 10, 66_000, len(PUBLISHED) - 90])
async def test_a_signed_upload_that_is_cut_off_is_refused(keep):
    head = head_with(x_amz_decoded_content_length="66560")
    with pytest.raises(S3Error):
        await drain(
            SignedBody(head, Raw(PUBLISHED[:keep]), verified("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"))
        )


CRC = base64.b64encode((0x3610A686).to_bytes(4, "big")).decode()  # CRC32 of b"hello"
TRAILED = {"x_amz_decoded_content_length": "5", "x_amz_trailer": "x-amz-checksum-crc32"}


@pytest.mark.parametrize("end", ["\r\n\r\n", "\r\n", "\n\r\n\r\n"])  # the last is minio-go's
async def test_an_unsigned_trailer_is_checked(end):
    raw = f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{CRC}{end}".encode()
    data, sealed = await drain(
        SignedBody(
            head_with(**TRAILED), Raw(raw, 3), verified("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        )
    )
    assert data == b"hello"
    assert sealed.checksum[0].name == "CRC32"


@pytest.mark.parametrize(
    "raw",
    [
        b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
        f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{CRC}\nx-amz-meta-a:b\r\n\r\n".encode(),
        b"5\r\nhello\r\n0\r\nx-amz-trailer-signature:00\r\n\r\n",
        f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{CRC}\r\nx-amz-checksum-sha1:x\r\n\r\n".encode(),
        f"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:{CRC}\r\nx-amz-meta-a:b\r\n\r\n".encode(),
        b"4\r\nhell\r\n0\r\n\r\n",
        b"6\r\nhello!\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\nmore",
    ],
)
async def test_a_malformed_unsigned_upload_is_refused(raw):
    with pytest.raises(S3Error):
        await drain(
            SignedBody(
                head_with(**TRAILED), Raw(raw), verified("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
            )
        )


async def test_a_trailer_that_was_not_announced_is_not_ignored():
    head = head_with(x_amz_decoded_content_length="5")
    for trailer, fits in (("", True), (f"x-amz-checksum-crc32:{CRC}\r\n", False)):
        raw = f"5\r\nhello\r\n0\r\n{trailer}\r\n".encode()
        body = SignedBody(head, Raw(raw), verified("STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
        if fits:
            assert (await drain(body))[0] == b"hello"
        else:
            with pytest.raises(S3Error, match="MalformedTrailerError"):
                await drain(body)


SHA = hashlib.sha256(b"hello").hexdigest()
MD5 = base64.b64encode(hashlib.md5(b"hello").digest()).decode()


@pytest.mark.parametrize(
    ("payload", "headers", "code"),
    [
        (SHA, {}, None),
        ("UNSIGNED-PAYLOAD", {"content_md5": MD5, "x_amz_checksum_crc32": CRC}, None),
        (hashlib.sha256(b"other").hexdigest(), {}, "XAmzContentSHA256Mismatch"),
        (SHA, {"content_md5": base64.b64encode(bytes(16)).decode()}, "BadDigest"),
        (SHA, {"content_md5": "not base64"}, "InvalidDigest"),
        (SHA, {"x_amz_checksum_crc32": "AAAAAA=="}, "BadDigest"),
        (SHA, {"x_amz_checksum_crc32": "AAAA"}, "InvalidRequest"),
        (SHA, {"x_amz_checksum_crc32": CRC, "x_amz_checksum_sha1": CRC}, "InvalidRequest"),
        (SHA, {"x_amz_trailer": "x-amz-checksum-crc32"}, "MalformedTrailerError"),
        ("nonsense", {}, "InvalidArgument"),
        ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", {}, "NotImplemented"),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", {}, "MissingContentLength"),
    ],
)
async def test_what_was_announced_and_what_arrived_must_agree(payload, headers, code):
    refused = None
    try:
        data, _ = await drain(SignedBody(head_with(**headers), Raw(b"hello"), verified(payload)))
    except S3Error as error:
        refused = error.code
    else:
        assert data == b"hello"
    assert refused == code


async def test_a_small_body_is_read_whole_and_bounded():
    assert await SignedBody(head_with(), Raw(b"hello"), verified(SHA)).read_all(5) == b"hello"
    with pytest.raises(S3Error, match="MaxMessageLengthExceeded"):
        await SignedBody(head_with(), Raw(b"hello"), verified(SHA)).read_all(4)
    with pytest.raises(S3Error, match="MaxMessageLengthExceeded"):
        await SignedBody(
            head_with(), Raw(b"hello", length=False), verified("UNSIGNED-PAYLOAD")
        ).read_all(4)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_chunked_body_or_a_named_error(junk):
    import trio

    async def main():
        with pytest.raises(S3Error):
            await drain(
                SignedBody(
                    head_with(**TRAILED), Raw(junk), verified("STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                )
            )

    trio.run(main)
