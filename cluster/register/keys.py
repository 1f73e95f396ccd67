"""Register names as bytes, so that a drive stores and scans them in order.

    object   bucket_id(16) ‖ b"o" ‖ key
    part     bucket_id(16) ‖ b"p" ‖ upload_id(16) ‖ part_number(2, big-endian) ‖ key of the upload
    system   sixteen zero bytes ‖ b"s" ‖ name        (b"layout", b"bucket/NAME", b"root-key", b"access/user/NAME")

Byte order of object rows within a bucket is the byte order of keys, which is the order that S3 lists in.
"""

from cluster.ids import SYSTEM_BUCKET, BucketId, RowKey, UploadId

BUCKET_ID_BYTES = 16
_OBJECT, _PART, _SYSTEM = b"o", b"p", b"s"


def object_row(bucket: BucketId, key: bytes) -> RowKey:
    """The register of one object key."""
    assert len(bucket) == BUCKET_ID_BYTES
    return RowKey(bucket + _OBJECT + key)


def object_key(row: RowKey) -> bytes:
    """The object key of an object register's name."""
    assert row[16:17] == _OBJECT
    return row[17:]


def part_row(bucket: BucketId, upload: UploadId, number: int, key: bytes = b"") -> RowKey:
    """The register of one part of a multipart upload; it lives in the home set of the upload's key.

    Without the key: where the part's rows begin in a scan.
    """
    return RowKey(bucket + _PART + upload + number.to_bytes(2, "big") + key)


def parts_span(bucket: BucketId) -> tuple[RowKey, RowKey]:
    """Where the registers of all parts of a bucket begin, and what is above them all."""
    return RowKey(bucket + _PART), RowKey(bucket + bytes([_PART[0] + 1]))


def part_upload(row: RowKey) -> UploadId:
    """The upload of a part register's name."""
    assert row[16:17] == _PART
    return UploadId(row[17:33])


def part_number(row: RowKey) -> int:
    """The part number of a part register's name."""
    assert row[16:17] == _PART
    return int.from_bytes(row[33:35], "big")


def owner_row(row: RowKey) -> RowKey:
    """The register whose key the data belongs to that this register names: an upload's key for a part, else itself."""
    return object_row(bucket_of(row), row[35:]) if is_part(row) else row


def system_row(name: bytes) -> RowKey:
    """A register of the cluster itself; it lives on the system set."""
    return RowKey(SYSTEM_BUCKET + _SYSTEM + name)


def bucket_of(row: RowKey) -> BucketId:
    """The namespace that a register belongs to."""
    return BucketId(row[:BUCKET_ID_BYTES])


def is_object(row: RowKey) -> bool:
    """Whether the register holds an object's KeyState (and not a part or a system document)."""
    return row[16:17] == _OBJECT


def is_part(row: RowKey) -> bool:
    """Whether the register holds one part of a multipart upload."""
    return row[16:17] == _PART


def successor(prefix: bytes) -> bytes | None:
    """The smallest byte string above all strings that start with prefix; None: there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None
