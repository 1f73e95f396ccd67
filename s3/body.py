"""A request's body as the object store reads it: HTTP and aws-chunked framing removed, everything hashed that must be checked.

`seal` is asked after the last byte, before anything is committed: what the client announced and what arrived must agree.
"""

import hashlib
import hmac
import re

import attrs

from s3 import aws_chunked
from s3.aws_chunked import ChunkDecoder
from s3.checksums import (
    Algorithm,
    Hasher,
    Wanted,
    content_md5,
    encode_value,
    parse_value,
    wanted_checksum,
)
from s3.errors import S3Error
from s3.messages import RequestBody, RequestHead
from s3.sigv4 import UNSIGNED_PAYLOAD, Verified

MAX_BODY_BYTES = 5 << 30
_HEX = re.compile(r"[0-9a-f]{64}")
_SCRATCH_BYTES = 64 * 1024


@attrs.frozen
class Sealed:
    """A body that arrived whole and as announced."""

    size: int
    md5: bytes
    checksum: tuple[Algorithm, bytes] | None  # the one that the client announced or asked for


class SignedBody:
    """cluster.objects.model.Source over a request. Raises S3Error where the body is not what the head says."""

    def __init__(
        self,
        head: RequestHead,
        raw: RequestBody,
        verified: Verified,
        *,
        with_checksum: bool = True,
        limit: int = MAX_BODY_BYTES,
    ) -> None:
        self._raw, self._verified = raw, verified
        self._wanted = wanted_checksum(head.headers) if with_checksum else None
        self._content_md5 = content_md5(head.headers)
        self._form = verified.payload
        self._decoder: ChunkDecoder | None = None
        self.size_hint: int | None = raw.length
        if self._form in aws_chunked.FORMS:
            self.size_hint = _decoded_length(head)
            trailer = (head.headers.get(b"x-amz-trailer") or "").strip().lower().encode() or None
            self._decoder = ChunkDecoder(self._form, verified, self.size_hint, trailer)
        elif self._form.startswith("STREAMING-"):
            raise S3Error("NotImplemented", f"x-amz-content-sha256 {self._form} is not supported.")
        elif self._form != UNSIGNED_PAYLOAD and not _HEX.fullmatch(self._form):
            raise S3Error(
                "InvalidArgument",
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING form, or a valid sha256 value.",
            )
        if self._wanted is not None and self._wanted.value is None and self._form not in {
            aws_chunked.SIGNED_TRAILER, aws_chunked.UNSIGNED_TRAILER,
        }:  # fmt: skip
            raise S3Error("MalformedTrailerError")
        if self.size_hint is not None and self.size_hint > limit:
            raise S3Error("EntityTooLarge", ProposedSize=self.size_hint, MaxSizeAllowed=limit)
        self._limit = limit
        self._seen = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = (
            hashlib.sha256() if self._decoder is None and self._form != UNSIGNED_PAYLOAD else None
        )
        self._checksum: Hasher | None = None
        if self._wanted is not None:
            self._checksum = self._wanted.algorithm.new()
        self._self_made = False  # nobody announced the checksum; we compute it for ourselves
        self._pending = memoryview(b"")
        self._ended = False

    def compute(self, algorithm: Algorithm) -> None:
        """Have a checksum computed that the client did not announce (an upload's algorithm)."""
        if self._wanted is None:
            self._wanted = Wanted(algorithm, None)
            self._checksum = algorithm.new()
            self._self_made = True
        elif self._wanted.algorithm is not algorithm:
            raise S3Error(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.name.lower()}",
            )

    @property
    def digests(self) -> list[Hasher]:
        """What must see every byte of the plaintext, in order."""
        return [h for h in (self._md5, self._sha256, self._checksum) if h is not None]

    async def readinto(self, buffer: memoryview) -> int:
        """See cluster.objects.model.Source."""
        if self._ended:
            return 0
        count = await (
            self._raw.readinto(buffer)
            if self._decoder is None
            else self._read_chunked(self._decoder, buffer)
        )
        self._seen += count
        if self._seen > self._limit:
            raise S3Error("EntityTooLarge", MaxSizeAllowed=self._limit)
        self._ended = count == 0
        return count

    async def _read_chunked(self, decoder: ChunkDecoder, buffer: memoryview) -> int:
        if decoder.left == 0:
            if self._seen:
                decoder.chunk_end(await self._line())
            if decoder.chunk_line(await self._line()) == 0:
                while decoder.trailer_line(await self._trailer_line()):
                    pass
                if self._pending or await self._raw.readinto(memoryview(bytearray(1))):
                    raise S3Error("IncompleteBody", "There is data behind the last chunk.")
                return 0
        part = buffer[: decoder.left]
        if self._pending:
            count = min(len(part), len(self._pending))
            part[:count] = self._pending[:count]
            self._pending = self._pending[count:]
        else:
            count = await self._raw.readinto(part)
            if not count:
                raise S3Error("IncompleteBody")
        decoder.data(part[:count])
        return count

    async def _trailer_line(self) -> bytes:
        """The next line behind the last chunk; b"": the end, which some clients leave out.

        AWS signs a trailer with a newline behind it, and minio-go sends that newline before the line's CRLF.
        """
        line = await self._line(in_trailer=True)
        if line.endswith(b"\n"):
            if await self._line():
                raise S3Error("MalformedTrailerError")
            line = line[:-1]
        return line

    async def _line(self, *, in_trailer: bool = False) -> bytes:
        """The next line of the framing, without its CRLF; in a trailer, also one that ends in LF, with it."""
        line = b""
        while True:
            found = bytes(self._pending[: aws_chunked.MAX_LINE_BYTES]).find(b"\n")
            if found >= 0:
                line += bytes(self._pending[: found + 1])
                self._pending = self._pending[found + 1 :]
                if line.endswith(b"\r\n"):
                    return line[:-2]
                if in_trailer:
                    return line
                raise S3Error("InvalidChunkSizeError")
            line += bytes(self._pending)
            if len(line) > aws_chunked.MAX_LINE_BYTES:
                raise S3Error("InvalidChunkSizeError")
            scratch = memoryview(bytearray(_SCRATCH_BYTES))
            count = await self._raw.readinto(scratch)
            if not count:
                if in_trailer and not line:
                    return b""
                raise S3Error("IncompleteBody")
            self._pending = scratch[:count]

    def seal(self, size: int) -> Sealed:
        """Judge the body after its last byte. Raises S3Error; nothing may become visible then."""
        if self._decoder is None and self.size_hint is not None and size != self.size_hint:
            raise S3Error("IncompleteBody")
        md5 = self._md5.digest()
        if self._sha256 is not None and not hmac.compare_digest(
            self._sha256.hexdigest(), self._form
        ):
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self._form, S3ComputedContentSHA256=self._sha256.hexdigest(),
            )  # fmt: skip
        if self._content_md5 is not None and self._content_md5 != md5:
            raise S3Error(
                "BadDigest", "The Content-MD5 you specified did not match what we received.",
                ExpectedDigest=self._content_md5.hex(), CalculatedDigest=encode_value(md5),
            )  # fmt: skip
        if self._wanted is None or self._checksum is None:
            return Sealed(size, md5, None)
        algorithm, computed = self._wanted.algorithm, self._checksum.digest()
        expected = self._wanted.value
        if expected is None and not self._self_made:
            sent = (
                self._decoder.trailers.get(algorithm.header) if self._decoder is not None else None
            )
            if sent is None:
                raise S3Error("MalformedTrailerError")
            expected = parse_value(algorithm, sent.decode("latin-1"))
        if expected is not None and expected != computed:
            raise S3Error(
                "BadDigest",
                f"The {algorithm.name} you specified did not match the calculated checksum.",
            )
        return Sealed(size, md5, (algorithm, computed))

    async def read_all(self, limit: int) -> bytes:
        """A small body (XML), checked. Raises S3Error MaxMessageLengthExceeded, and as `seal` does."""
        if self.size_hint is not None and self.size_hint > limit:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
        data = bytearray()
        buffer = memoryview(bytearray(_SCRATCH_BYTES))
        while count := await self.readinto(buffer):
            data += buffer[:count]
            if len(data) > limit:
                raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=limit)
        for digest in self.digests:
            digest.update(data)
        self.seal(len(data))
        return bytes(data)

    @property
    def is_protected(self) -> bool:
        """Whether the client sent a checksum or MD5 of the body (DeleteObjects insists on one)."""
        return self._content_md5 is not None or (self._wanted is not None and not self._self_made)


def _decoded_length(head: RequestHead) -> int:
    text = head.headers.get(b"x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength")
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise S3Error("InvalidArgument", "x-amz-decoded-content-length is not a number.")
    return int(text)
