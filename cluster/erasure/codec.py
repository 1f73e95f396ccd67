"""Reed-Solomon coding by liberasurecode (PyECLib), without its fragment headers.

liberasurecode puts 80 bytes in front of every fragment; they are not part of our format, so they are stripped after
encoding and rebuilt before decoding. Decoding with another matrix gives wrong bytes without an error, so the code's identity
stands in the layout, in every record and in every shard header. The code is systematic: the first k blocks are the data, and
a read that has them all never comes here. PyECLib holds the GIL while it codes: callers hand in a stripe at a time.
"""

import functools
from collections.abc import Mapping, Sequence

from pyeclib.ec_iface import ECDriver, ECDriverError

from cluster.errors import CorruptError

CODEC = "isa_l_rs_cauchy/8"
_HEADER_BYTES = 80


class Codec:
    """Codes stripes of k blocks into n. Stateless; one per (k, m)."""

    def __init__(self, k: int, m: int, identity: str = CODEC) -> None:
        if identity != CODEC:
            raise CorruptError(f"this node cannot code {identity!r}; it knows {CODEC!r}")
        self.k, self.m, self.n = k, m, k + m
        self._driver = ECDriver(k=k, m=m, ec_type="isa_l_rs_cauchy") if m else None
        self._headers: dict[int, list[bytes]] = {}

    def parity(self, plaintext: bytes) -> list[memoryview]:
        """The m parity blocks of a stripe; `plaintext` is k blocks of equal length, padding included."""
        if self._driver is None:
            return []
        assert len(plaintext) % self.k == 0
        fragments = self._driver.encode(plaintext)
        self._remember(len(plaintext) // self.k, fragments)
        return [memoryview(fragment)[_HEADER_BYTES:] for fragment in fragments[self.k :]]

    def decode(self, blocks: Mapping[int, bytes | memoryview], length: int) -> bytes:
        """The k data blocks, joined, from any k blocks of a stripe (position -> block of `length` bytes).

        Raises CorruptError with fewer than k blocks.
        """
        if len(blocks) < self.k:
            raise CorruptError(f"{len(blocks)} of {self.k} needed blocks are readable")
        if all(position in blocks for position in range(self.k)):
            return b"".join(blocks[position] for position in range(self.k))
        assert self._driver is not None
        headers = self._headers_for(length)
        chosen = sorted(blocks)[: self.k]
        fragments = [headers[position] + bytes(blocks[position]) for position in chosen]
        try:
            plaintext: bytes = self._driver.decode(fragments)
        except ECDriverError as error:
            raise CorruptError(f"the stripe cannot be decoded: {error}") from error
        return plaintext

    def rebuild(
        self, blocks: Mapping[int, bytes | memoryview], length: int, missing: Sequence[int]
    ) -> list[bytes]:
        """The missing blocks of a stripe, from any k others."""
        data = self.decode(blocks, length)
        coded = [data[i * length : (i + 1) * length] for i in range(self.k)]
        coded += [bytes(block) for block in self.parity(data)]
        return [coded[position] for position in missing]

    def _headers_for(self, length: int) -> list[bytes]:
        known = self._headers.get(length)
        if known is None:
            assert self._driver is not None
            known = self._remember(length, self._driver.encode(bytes(length * self.k)))
        return known

    def _remember(self, length: int, fragments: Sequence[bytes]) -> list[bytes]:
        known = self._headers.get(length)
        if known is None:
            if len(self._headers) >= 64:  # the last stripes' lengths vary without end
                self._headers.clear()
            known = self._headers[length] = [
                bytes(fragment[:_HEADER_BYTES]) for fragment in fragments
            ]
        return known


@functools.lru_cache(maxsize=64)
def codec_for(k: int, m: int, identity: str = CODEC) -> Codec:
    """The codec of a profile; making one costs a few milliseconds."""
    return Codec(k, m, identity)
