"""Where a key's register lives: fixed for the life of its bucket, so that adding sets never moves a register."""

from collections.abc import Sequence
from hashlib import blake2b

from cluster.ids import BucketId


def home_set(bucket: BucketId, key: bytes, generation: Sequence[int]) -> int:
    """The set id that holds the register of (bucket, key), of the ordered set list in the bucket's record."""
    digest = blake2b(bucket + key, digest_size=8).digest()
    return generation[int.from_bytes(digest, "big") % len(generation)]
