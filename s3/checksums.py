"""Content-MD5 and x-amz-checksum-*: parsing, computing, combining ("Checking object integrity", S3 User Guide).

CRC64NVME is FULL_OBJECT only; CRC32 and CRC32C come either way; SHA1 and SHA256 of a multipart object are COMPOSITE: the hash of the
parts' hashes, written with -N behind it.
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import anycrc
import attrs
import crc32c

from s3.errors import S3Error
from s3.messages import Headers

COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"
_PREFIX = b"x-amz-checksum-"
_NOT_VALUES = {b"x-amz-checksum-algorithm", b"x-amz-checksum-mode", b"x-amz-checksum-type"}


class Hasher(Protocol):
    """What hashlib's objects and ours have in common."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take more bytes."""
        ...

    def digest(self) -> bytes:
        """The value over all bytes so far."""
        ...


class _Crc:
    def __init__(
        self, step: Callable[[bytes | bytearray | memoryview, int], int], size: int
    ) -> None:
        self._step, self._size, self._value = step, size, 0

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


_NVME = anycrc.Model("CRC64-NVME")


def _crc64(data: bytes | bytearray | memoryview, value: int) -> int:
    return int(_NVME.calc(data, value)) if value else int(_NVME.calc(data))


@attrs.frozen(kw_only=True)
class Algorithm:
    """One of S3's checksum algorithms."""

    name: str  # as in XML and headers' values: "CRC32"
    size: int  # bytes
    new: Callable[[], Hasher]
    crc_model: str | None  # where values of parts can be combined
    types: tuple[str, ...]  # what a multipart object may have; the first is the default

    @property
    def header(self) -> bytes:
        """The header that carries a value."""
        return _PREFIX + self.name.lower().encode()


ALGORITHMS: Mapping[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        Algorithm(
            name="CRC32", size=4, new=lambda: _Crc(zlib.crc32, 4), crc_model="CRC32", types=(COMPOSITE, FULL_OBJECT)
        ),
        Algorithm(
            name="CRC32C", size=4, new=lambda: _Crc(crc32c.crc32c, 4), crc_model="CRC32-ISCSI", types=(COMPOSITE, FULL_OBJECT)
        ),
        Algorithm(name="CRC64NVME", size=8, new=lambda: _Crc(_crc64, 8), crc_model="CRC64-NVME", types=(FULL_OBJECT,)),
        Algorithm(name="SHA1", size=20, new=lambda: hashlib.sha1(usedforsecurity=False), crc_model=None, types=(COMPOSITE,)),
        Algorithm(name="SHA256", size=32, new=hashlib.sha256, crc_model=None, types=(COMPOSITE,)),
    )
}  # fmt: skip
_BY_HEADER = {algorithm.header: algorithm for algorithm in ALGORITHMS.values()}


@attrs.frozen
class Wanted:
    """A checksum that the client announced: a value in a header, or a name in x-amz-trailer (value None)."""

    algorithm: Algorithm
    value: bytes | None


def algorithm_named(name: str) -> Algorithm:
    """The algorithm of that name. Raises S3Error."""
    found = ALGORITHMS.get(name.upper())
    if found is None:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types.",
        )
    return found


def wanted_checksum(headers: Headers) -> Wanted | None:
    """The one checksum of a body. Raises S3Error InvalidRequest for several, or for one that is malformed."""
    names = [
        name for name, _ in headers.items if name.startswith(_PREFIX) and name not in _NOT_VALUES
    ]
    trailer = (headers.get(b"x-amz-trailer") or "").strip().lower().encode()
    if len(names) + bool(trailer) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    if trailer:
        if trailer not in _BY_HEADER:
            raise S3Error(
                "InvalidRequest", "The value specified in the x-amz-trailer header is not supported"
            )
        return Wanted(_BY_HEADER[trailer], None)
    if not names:
        return None
    algorithm = _BY_HEADER.get(names[0])
    if algorithm is None:
        raise S3Error("InvalidRequest", f"Value for {names[0].decode()} header is not supported.")
    return Wanted(algorithm, parse_value(algorithm, headers.get(names[0]) or ""))


def parse_value(algorithm: Algorithm, text: str) -> bytes:
    """A checksum's bytes from its base64 form. Raises S3Error."""
    value = _base64(text)
    if value is None or len(value) != algorithm.size:
        raise S3Error("InvalidRequest", f"Value for {algorithm.header.decode()} header is invalid.")
    return value


def content_md5(headers: Headers) -> bytes | None:
    """The Content-MD5. Raises S3Error InvalidDigest."""
    text = headers.get(b"content-md5")
    if text is None:
        return None
    value = _base64(text)
    if value is None or len(value) != 16:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return value


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def encode_value(value: bytes) -> str:
    """The base64 form, as in headers and XML."""
    return base64.b64encode(value).decode()


def combine(algorithm: Algorithm, kind: str, parts: Sequence[tuple[bytes, int]]) -> str:
    """The checksum of a multipart object from its parts' (value, size), as it stands in headers."""
    if kind == COMPOSITE:
        hasher = algorithm.new()
        for value, _ in parts:
            hasher.update(value)
        return f"{encode_value(hasher.digest())}-{len(parts)}"
    assert algorithm.crc_model is not None
    model = anycrc.Model(algorithm.crc_model)
    total = int.from_bytes(parts[0][0], "big")
    for value, size in parts[1:]:
        total = int(model.combine(total, int.from_bytes(value, "big"), size))
    return encode_value(total.to_bytes(algorithm.size, "big"))


def multipart_type(algorithm: Algorithm, wish: str | None) -> str:
    """The checksum type of an upload. Raises S3Error for one that the algorithm does not have."""
    if wish is None:
        return algorithm.types[0]
    if wish.upper() not in algorithm.types:
        raise S3Error(
            "InvalidRequest",
            f"The {wish} checksum type cannot be used with the {algorithm.name.lower()} checksum algorithm.",
        )
    return wish.upper()
