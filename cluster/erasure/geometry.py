"""Where the bytes of a body lie: byte range -> chunks -> stripes -> blocks.

A stripe is k blocks of `block` bytes of plaintext; shard p holds block p of every stripe, in order. The last stripe is
cut: its k blocks have the equal length ceil(rest / k), the plaintext zero-padded to that. A chunk is as many whole stripes as
fit the chunk size (at least one): the unit of pipelining and of a read.
"""

from collections.abc import Iterator

import attrs


@attrs.frozen(kw_only=True)
class Geometry:
    """The shape of one body of `size` bytes."""

    size: int
    k: int
    block: int
    chunk: int

    @property
    def stripe_bytes(self) -> int:
        """Plaintext bytes of a whole stripe."""
        return self.k * self.block

    @property
    def stripes(self) -> int:
        """Stripes of the body; 0 for an empty one."""
        return -(-self.size // self.stripe_bytes)

    @property
    def stripes_per_chunk(self) -> int:
        """Whole stripes in a chunk."""
        return max(1, self.chunk // self.stripe_bytes)

    @property
    def shard_bytes(self) -> int:
        """Payload bytes of every shard: all n are equally long."""
        if not self.size:
            return 0
        return (self.stripes - 1) * self.block + self.block_bytes(self.stripes - 1)

    def stripe_range(self, stripe: int) -> tuple[int, int]:
        """Plaintext bytes start..stop-1 of a stripe."""
        start = stripe * self.stripe_bytes
        return start, min(start + self.stripe_bytes, self.size)

    def block_bytes(self, stripe: int) -> int:
        """Bytes of each block of a stripe."""
        start, stop = self.stripe_range(stripe)
        return block_bytes(stop - start, self.k)

    def block_lengths(self, first: int, stop: int) -> list[int]:
        """Block lengths of stripes first..stop-1."""
        return [self.block_bytes(stripe) for stripe in range(first, stop)]

    def stripes_for(self, start: int, stop: int) -> range:
        """The stripes that hold bytes start..stop-1, 0 <= start < stop <= size."""
        assert 0 <= start < stop <= self.size
        return range(start // self.stripe_bytes, (stop - 1) // self.stripe_bytes + 1)

    def chunks_for(self, start: int, stop: int) -> Iterator[range]:
        """The stripes that hold the bytes, in runs of at most one chunk, cut at chunk borders."""
        wanted = self.stripes_for(start, stop)
        per = self.stripes_per_chunk
        first = wanted.start
        while first < wanted.stop:
            end = min((first // per + 1) * per, wanted.stop)
            yield range(first, end)
            first = end


def block_bytes(stripe_bytes: int, k: int) -> int:
    """Bytes of each of the k blocks of a stripe with that much plaintext."""
    return -(-stripe_bytes // k)
