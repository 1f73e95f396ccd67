"""The bytes of a shard file (docs/formats/shard-file.md), and the digests over plaintext.

    header   128 bytes   magic, version, geometry, data id, cluster, owner's hash, CRC
    blocks   per block   payload (64 KiB, the last one shorter) ‖ CRC32C(4, little-endian), seeded with identity
    footer   digests     16 bytes per stripe ‖ trailer (40 bytes): magic, payload bytes, stripes, CRC

A block's CRC covers data id, position and block number before the payload: a block that was written to, or read from, the wrong
place does not check. Digests are XXH3-128 of each stripe's plaintext; they find what shard CRCs cannot, a mixture of
generations or a decoder's mistake.
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b

import attrs
import crc32c
import xxhash

from cluster.ids import ClusterId, DataId, RowKey

MAGIC = b"STCTLSHD"
FOOTER_MAGIC = b"STCTLEND"
VERSION = 1
HEADER_BYTES = 128
CRC_BYTES = 4
DIGEST_BYTES = 16
_HEADER = struct.Struct(
    "<8sHBBHHI24s16s16s16s"
)  # magic version k m position codec-length block codec data cluster owner
_TRAILER = struct.Struct("<8sQI16s")
TRAILER_BYTES = _TRAILER.size + CRC_BYTES
_CRC = struct.Struct("<I")


class ShardFormatError(Exception):
    """The bytes are not a shard of that identity."""


@attrs.frozen(kw_only=True)
class ShardHeader:
    """Identity and geometry of one shard, written in its header and seeded into every block's CRC.

    `owner` of a multipart part is the upload's key too, before and after the upload is completed: shards are never
    rewritten, and heal rows, which name the same owner, stay valid.
    """

    data_id: DataId
    owner: RowKey  # the object register whose key the data belongs to (register.keys.owner_row)
    position: int
    k: int
    m: int
    block: int
    codec: str
    # Set of the owner's register, where the body lies in another: the drive has to ask there. Told when a shard is written.
    home: int | None = None


def pack_header(header: ShardHeader, cluster: ClusterId) -> bytes:
    """The 128 bytes in front of a shard file."""
    codec = header.codec.encode()
    owner = blake2b(header.owner, digest_size=16).digest()
    packed = _HEADER.pack(
        MAGIC, VERSION, header.k, header.m, header.position, len(codec), header.block, codec, header.data_id, cluster, owner,
    )  # fmt: skip
    padded = packed.ljust(HEADER_BYTES - CRC_BYTES, b"\0")
    return padded + _CRC.pack(crc32c.crc32c(padded))


def check_header(data: bytes, header: ShardHeader, cluster: ClusterId) -> None:
    """Raises ShardFormatError unless the bytes are the header of this shard."""
    if data != pack_header(header, cluster):
        raise ShardFormatError("the shard's header is damaged or another shard's")


def header_data_id(data: bytes) -> bytes | None:
    """The data id in a header's bytes; None: no valid header of a version that we know."""
    if len(data) != HEADER_BYTES or data[:8] != MAGIC:
        return None
    if crc32c.crc32c(data[:-CRC_BYTES]) != _CRC.unpack(data[-CRC_BYTES:])[0]:
        return None
    fields = _HEADER.unpack_from(data)
    return bytes(fields[8]) if fields[1] == VERSION else None


def seed(data_id: bytes, position: int, block_number: int) -> int:
    """The CRC that a block's CRC continues from."""
    return crc32c.crc32c(
        data_id + position.to_bytes(2, "little") + block_number.to_bytes(4, "little")
    )


def block_crc(
    data_id: bytes, position: int, block_number: int, payload: bytes | bytearray | memoryview
) -> bytes:
    """The 4 bytes behind a block."""
    return _CRC.pack(crc32c.crc32c(payload, seed(data_id, position, block_number)))


def block_offset(block_number: int, block: int) -> int:
    """Where in the file a block begins; all blocks but the last are whole."""
    return HEADER_BYTES + block_number * (block + CRC_BYTES)


def pack_footer(header: ShardHeader, payload_bytes: int, digests: bytes) -> bytes:
    """Digests and trailer."""
    assert len(digests) % DIGEST_BYTES == 0
    trailer = _TRAILER.pack(
        FOOTER_MAGIC, payload_bytes, len(digests) // DIGEST_BYTES, header.data_id
    )
    crc = crc32c.crc32c(trailer, crc32c.crc32c(digests))
    return digests + trailer + _CRC.pack(crc)


@attrs.frozen
class Footer:
    """What a footer says."""

    payload_bytes: int
    digests: bytes


def unpack_footer(data: bytes, data_id: bytes) -> Footer:
    """The footer at the end of a file (or of its tail). Raises ShardFormatError."""
    if len(data) < TRAILER_BYTES:
        raise ShardFormatError("the shard has no footer")
    trailer = data[-TRAILER_BYTES:]
    magic, payload_bytes, stripes, footer_id = _TRAILER.unpack(trailer[:-CRC_BYTES])
    digests = data[-TRAILER_BYTES - stripes * DIGEST_BYTES : -TRAILER_BYTES] if stripes else b""
    if magic != FOOTER_MAGIC or len(digests) != stripes * DIGEST_BYTES or footer_id != data_id:
        raise ShardFormatError("the shard's footer is damaged or another shard's")
    if (
        crc32c.crc32c(trailer[:-CRC_BYTES], crc32c.crc32c(digests))
        != _CRC.unpack(trailer[-CRC_BYTES:])[0]
    ):
        raise ShardFormatError("the shard's footer fails its checksum")
    return Footer(payload_bytes, digests)


def stripe_digest(plaintext: bytes | bytearray | memoryview) -> bytes:
    """XXH3-128 of a stripe's plaintext, padding excluded."""
    return xxhash.xxh3_128_digest(plaintext)


def digest_root(digests: bytes | Sequence[bytes]) -> bytes:
    """XXH3-128 over the list of stripe digests: it stands in the record."""
    joined = digests if isinstance(digests, bytes) else b"".join(digests)
    return xxhash.xxh3_128_digest(joined)
