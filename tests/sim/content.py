"""Bodies that name their writer: a value is (number, size), and every byte of it follows from the number and the offset."""

import hashlib
from functools import lru_cache

import trio

from cluster.objects.model import PutRequest, Seal


class Bytes:
    """A Source over bytes, in pieces as a network would give them."""

    def __init__(self, data, rng):
        self.data, self.at, self.rng = data, 0, rng
        self.size_hint = len(data)

    async def readinto(self, buffer):
        await trio.lowlevel.checkpoint()
        count = min(len(buffer), len(self.data) - self.at, self.rng.choice([1000, 60_000, 1 << 20]))
        buffer[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count


@lru_cache(maxsize=32)
def content(value):
    """No two stripes of it are alike, so that any mixture of generations or places shows."""
    number, size = value
    return hashlib.shake_128(b"%d" % number).digest(size)


def tag_of(value):
    """The validator under which a value is stored."""
    return f"{value[0]}-{value[1]}"


def value_of(validator):
    """Inverse of tag_of."""
    number, _, size = validator.partition("-")
    return int(number), int(size)


def put_request(value, rng, expect=(), source=None):
    """A PUT of a value."""
    md5 = hashlib.md5(usedforsecurity=False)
    return PutRequest(
        source=Bytes(content(value), rng) if source is None else source,
        digests=[md5],
        seal=lambda size: Seal(validator=tag_of(value), attributes=b""),
        expect=expect,
    )


def part_request(data, rng):
    """A part of an upload; its validator is the hash of its bytes."""
    validator = hashlib.sha256(data).hexdigest()
    return PutRequest(
        source=Bytes(data, rng), seal=lambda _: Seal(validator=validator, attributes=b"")
    )


def border_sizes(k, block, chunk):
    """Sizes around every border that the code knows: empty, inline, a block, a stripe, a chunk, several chunks."""
    stripe = k * block
    chunk = max(1, chunk // stripe) * stripe
    borders = (4096, block, stripe, chunk)
    around = {border + step for border in borders for step in (-1, 0, 1)}
    return (0, 1, 100, *sorted(around), 3 * chunk + stripe // 2 + 1)
