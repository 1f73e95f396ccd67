"""What S3 knows of an object and the cluster does not: stored with the record as opaque bytes.

Format: docs/formats/records.md. Positional msgspec, so that a small object's attributes stay small.
"""

import functools

import msgspec

from s3.checksums import ALGORITHMS, Algorithm, encode_value
from s3.errors import S3Error
from s3.messages import Headers, decode_header

DEFAULT_CONTENT_TYPE = "binary/octet-stream"
MAX_USER_METADATA_BYTES = 2048
_STORED = (
    b"cache-control",
    b"content-disposition",
    b"content-encoding",
    b"content-language",
    b"expires",
)
_META_PREFIX = b"x-amz-meta-"
STANDARD = "STANDARD"
# Names for one and the same service here. The archive classes are refused: their objects must not be readable at once.
STORAGE_CLASSES = frozenset({
    STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
})  # fmt: skip
_UNSUPPORTED = (
    b"x-amz-server-side-encryption", b"x-amz-object-lock-", b"x-amz-website-redirect-location", b"x-amz-write-offset-bytes",
)  # fmt: skip


class ObjectMeta(msgspec.Struct, frozen=True, array_like=True):
    """The attributes of a version, or of an upload on its way to become one."""

    content_type: str = DEFAULT_CONTENT_TYPE
    headers: dict[
        str, str
    ] = {}  # stored and given back: Cache-Control and its like, names in lower case
    user: dict[str, str] = {}  # x-amz-meta-*, without the prefix
    checksum: str = ""  # algorithm, "" for none
    checksum_type: str = ""
    checksum_value: str = ""  # base64, with -N for a composite one; "" while an upload is open
    storage_class: str = ""  # "" is STANDARD


class PartMeta(msgspec.Struct, frozen=True, array_like=True):
    """The attributes of a part."""

    checksum: str = ""
    value: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ObjectMeta)
_part_decoder = msgspec.msgpack.Decoder(PartMeta)


def encode(meta: ObjectMeta | PartMeta) -> bytes:
    """The opaque bytes."""
    return _encoder.encode(meta)


@functools.lru_cache(maxsize=4096)
def decode(attributes: bytes) -> ObjectMeta:
    """Inverse of encode; many objects share their attributes, so results are kept."""
    return _decoder.decode(attributes) if attributes else ObjectMeta()


def decode_part(attributes: bytes) -> PartMeta:
    """Inverse of encode for a part."""
    return _part_decoder.decode(attributes) if attributes else PartMeta()


def from_headers(headers: Headers) -> ObjectMeta:
    """What a PUT, a copy with REPLACE or CreateMultipartUpload says of the object. Raises S3Error."""
    check_unsupported(headers)
    kept = {}
    for name in _STORED:
        value = headers.get(name)
        if value is not None and name == b"content-encoding":
            value = ", ".join(
                c for c in (c.strip() for c in value.split(",")) if c and c.lower() != "aws-chunked"
            )
        if value:
            kept[name.decode()] = value
    storage_class = headers.get(b"x-amz-storage-class") or STANDARD
    return ObjectMeta(
        content_type=headers.get(b"content-type") or DEFAULT_CONTENT_TYPE,
        headers=kept,
        user=_user_metadata(headers),
        storage_class="" if storage_class == STANDARD else storage_class,
    )


def check_unsupported(headers: Headers) -> None:
    """Refuse what would be ignored silently to the user's harm. Raises S3Error."""
    storage_class = headers.get(b"x-amz-storage-class")
    if storage_class is not None and storage_class not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=storage_class)
    for name, _ in headers.items:
        if name.startswith(_UNSUPPORTED):
            raise S3Error("NotImplemented", Header=name.decode())
    if headers.get(b"x-amz-tagging"):
        raise S3Error("NotImplemented", Header="x-amz-tagging")
    check_acl(headers)


def check_acl(headers: Headers) -> None:
    """Everything belongs to the bucket's owner: an ACL that says more is refused. Raises S3Error."""
    acl = headers.get(b"x-amz-acl")
    if acl not in {None, "private", "bucket-owner-full-control"} or any(
        name.startswith(b"x-amz-grant-") for name, _ in headers.items
    ):
        raise S3Error("AccessControlListNotSupported")


def _user_metadata(headers: Headers) -> dict[str, str]:
    user: dict[str, str] = {}
    size = 0
    for name, raw in headers.items:
        if name.startswith(_META_PREFIX):
            short = decode_header(name[len(_META_PREFIX) :])
            value = decode_header(raw)
            user[short] = f"{user[short]},{value}" if short in user else value
            size += len(name) - len(_META_PREFIX) + len(raw)
    if size > MAX_USER_METADATA_BYTES:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=MAX_USER_METADATA_BYTES)
    return user


def response_headers(meta: ObjectMeta, overrides: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Content-Type, stored headers and user metadata, with the response-* overrides of a signed GET."""
    values = {"content-type": meta.content_type} | meta.headers | overrides
    headers = [(name.title().encode(), value.encode()) for name, value in values.items()]
    headers += [
        (b"x-amz-meta-" + name.encode(), value.encode()) for name, value in meta.user.items()
    ]
    return headers


def storage_class_headers(meta: ObjectMeta) -> list[tuple[bytes, bytes]]:
    """The storage class, where it is not the standard one."""
    return [(b"x-amz-storage-class", meta.storage_class.encode())] if meta.storage_class else []


def checksum_headers(meta: ObjectMeta) -> list[tuple[bytes, bytes]]:
    """The checksum, for x-amz-checksum-mode: ENABLED."""
    if not meta.checksum_value:
        return []
    algorithm = ALGORITHMS[meta.checksum]
    return [
        (algorithm.header, meta.checksum_value.encode()),
        (b"x-amz-checksum-type", meta.checksum_type.encode()),
    ]


def with_checksum(meta: ObjectMeta, checksum: tuple[Algorithm, bytes] | None) -> ObjectMeta:
    """The attributes of a single PUT whose checksum was verified."""
    if checksum is None:
        return meta
    return msgspec.structs.replace(
        meta,
        checksum=checksum[0].name,
        checksum_type="FULL_OBJECT",
        checksum_value=encode_value(checksum[1]),
    )
