"""Where a key's register lives, and where its data goes. Pure.

The register's set is fixed for the life of its bucket, so that adding sets never moves a register. The data of each body may be in any
set: new sets are used at once, without anything being moved.
"""

from collections.abc import Sequence
from hashlib import blake2b

import attrs

from cluster.ids import BucketId


def home_set(bucket: BucketId, key: bytes, generation: Sequence[int]) -> int:
    """The set id that holds the register of (bucket, key), of the ordered set list in the bucket's record."""
    digest = blake2b(bucket + key, digest_size=8).digest()
    return generation[int.from_bytes(digest, "big") % len(generation)]


@attrs.frozen
class SetRoom:
    """What a set could take. `free`: bytes on its fullest drive that takes shards, as last measured."""

    set_id: int
    staging: int  # drives that take shards now
    free: int


def other_set(rooms: Sequence[SetRoom], needed: int, roll: float) -> int | None:
    """A set with at least `needed` drives that take shards, by chance in proportion to what is free; 0 <= roll < 1.

    None: there is none. A set of which nothing is known yet gets a small share.
    """
    able = [room for room in rooms if room.staging >= needed]
    left = roll * sum(room.free + 1 for room in able)
    for room in able:
        left -= room.free + 1
        if left < 0:
            return room.set_id
    return able[-1].set_id if able else None
