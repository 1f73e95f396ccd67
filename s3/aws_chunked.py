"""The aws-chunked coding, as a decoder without I/O ("Signature calculations: transfer payload in multiple chunks", S3 API reference).

    hex-size[;chunk-signature=<64 hex>] CRLF  data  CRLF      … until size 0, then trailers, then an empty line

Signed chunks form a chain: each signature covers the one before it, so none can be dropped, reordered or changed. The decoder is told
of lines and of data; who reads them from the connection is body.py.
"""

import hmac
import re
from hashlib import sha256

from s3.errors import S3Error
from s3.sigv4 import EMPTY_SHA256, Verified

SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
FORMS = frozenset({SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER})
MAX_LINE_BYTES = 4096
_SIGNED_LINE = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_PLAIN_LINE = re.compile(rb"([0-9a-fA-F]{1,16})(?:;[!-~]*)?")


class ChunkDecoder:
    """Checks one body's framing and signatures."""

    def __init__(
        self, form: str, verified: Verified, decoded_length: int, trailer: bytes | None
    ) -> None:
        assert form in FORMS
        self._signed = form != UNSIGNED_TRAILER
        self._has_trailer = form != SIGNED
        # What is not announced would not be checked, so it must not be there.
        self._known = {trailer, b"x-amz-trailer-signature"}
        self._verified = verified
        self._previous = verified.signature
        self._chunk_signature = ""
        self._hash = sha256()
        self._expected, self._seen = decoded_length, 0
        self.left = 0  # bytes of data until the chunk ends
        self.trailers: dict[bytes, bytes] = {}

    def chunk_line(self, line: bytes) -> int:
        """Take the line before a chunk; its size. 0: the last chunk, trailers follow. Raises S3Error."""
        found = (_SIGNED_LINE if self._signed else _PLAIN_LINE).fullmatch(line)
        if found is None:
            raise S3Error("IncompleteBody" if not line else "InvalidChunkSizeError")
        size = int(found[1], 16)
        if self._seen + size > self._expected:
            raise S3Error("IncompleteBody", "The body is longer than x-amz-decoded-content-length.")
        if self._signed:
            self._chunk_signature = found[2].decode()
            self._hash = sha256()
        if size == 0:
            if self._seen != self._expected:
                raise S3Error(
                    "IncompleteBody", "The body is shorter than x-amz-decoded-content-length."
                )
            self._check_chunk()
        self.left = size
        return size

    def data(self, piece: memoryview) -> None:
        """Take data of the running chunk, at most `left` bytes."""
        self.left -= len(piece)
        self._seen += len(piece)
        assert self.left >= 0
        if self._signed:
            self._hash.update(piece)

    def chunk_end(self, line: bytes) -> None:
        """Take the (empty) rest of the line behind a chunk's data. Raises S3Error."""
        if line:
            raise S3Error("InvalidChunkSizeError")
        self._check_chunk()

    def _check_chunk(self) -> None:
        if self._signed:
            text = (
                f"AWS4-HMAC-SHA256-PAYLOAD\n{self._verified.amz_date}\n{self._verified.scope}\n"
                f"{self._previous}\n{EMPTY_SHA256}\n{self._hash.hexdigest()}"
            )
            self._check(text, self._chunk_signature)

    def _check(self, text: str, signature: str) -> None:
        expected = hmac.new(self._verified.signing_key, text.encode(), sha256).hexdigest()
        if not hmac.compare_digest(expected, signature):
            raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=self._verified.access_key)
        self._previous = signature

    def trailer_line(self, line: bytes) -> bool:
        """Take a line behind the last chunk; False: it was the empty one, the body is over. Raises S3Error."""
        if not line:
            self._check_trailers()
            return False
        name, colon, value = line.partition(b":")
        name = name.strip().lower()
        if not (self._has_trailer and colon) or name not in self._known or name in self.trailers:
            raise S3Error("MalformedTrailerError")
        self.trailers[name] = value.strip()
        return True

    def _check_trailers(self) -> None:
        signature = self.trailers.pop(b"x-amz-trailer-signature", None)
        if not self._signed:
            if signature is not None:
                raise S3Error("MalformedTrailerError")
            return
        if not self._has_trailer:
            return
        if signature is None or len(signature) != 64:
            raise S3Error("MalformedTrailerError")
        text = b"".join(name + b":" + value + b"\n" for name, value in self.trailers.items())
        self._check(
            f"AWS4-HMAC-SHA256-TRAILER\n{self._verified.amz_date}\n{self._verified.scope}\n"
            f"{self._previous}\n{sha256(text).hexdigest()}",
            signature.decode("latin-1"),
        )
