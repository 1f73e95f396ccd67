"""What a simulated drive holds that survives a crash, and how it rots."""

from random import Random

import attrs

from cluster.drives.memory_index import MemoryIndex
from cluster.ids import DataId


@attrs.define
class StoredShard:
    """A shard's file: blocks with their CRCs, and the digests."""

    blocks: list[tuple[bytes, bytes]]
    digests: bytes


@attrs.define
class Platter:
    """The index and the shard files. As on a real drive, a file counts once its row is in the index."""

    index: MemoryIndex = attrs.field(factory=MemoryIndex)
    shards: dict[tuple[DataId, int], StoredShard] = attrs.field(factory=dict)
    unsynced: set[tuple[DataId, int]] = attrs.field(factory=set)  # acknowledged by a lying fsync

    def holds(self, data_id: DataId, position: int) -> bool:
        """Whether a durable shard is here, sound or not."""
        key = (data_id, position)
        return key in self.index.shards and key in self.shards

    def _readable(self) -> list[StoredShard]:
        return [
            shard
            for key, shard in sorted(self.shards.items(), key=lambda item: item[0])
            if shard.blocks and key in self.index.shards
        ]

    def tear(self, rng: Random) -> None:
        """The power is gone: of what was never synced, some blocks made it."""
        for key in sorted(self.unsynced):
            shard = self.shards.get(key)
            if shard is not None:
                del shard.blocks[rng.randrange(len(shard.blocks) + 1) :]
        self.unsynced.clear()

    def rot(self, rng: Random) -> bool:
        """Flip a bit of some shard's block; False: there is none."""
        shards = [shard for shard in self._readable() if shard.blocks[0][0]]
        if not shards:
            return False
        shard = rng.choice(shards)
        number = rng.randrange(len(shard.blocks))
        payload, crc = shard.blocks[number]
        damaged = bytearray(payload)
        damaged[rng.randrange(len(damaged))] ^= 1
        shard.blocks[number] = (bytes(damaged), crc)
        return True

    def misdirect(self, rng: Random) -> bool:
        """A write went to another block's place: one block of a shard is found where another belongs."""
        shards = self._readable()
        if len(shards) < 2:
            return False
        here, there = rng.sample(shards, 2)
        here.blocks[0] = there.blocks[0]
        return True

    def corrupt_row(self, rng: Random) -> bool:
        """A row fails its checksum when it is read again; False: there is none."""
        rows = sorted(self.index.rows)
        if rows:
            self.index.corrupt.add(rng.choice(rows))
        return bool(rows)
