"""Ballots and the hybrid logical clock that draws them (Kulkarni et al., 2014).

The clock is max(wall, last, seen) + 1: it never goes back, and merges what it sees in every message, so a node
whose wall clock is behind catches up at the first refusal. No safety argument rests on the wall clock.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

_PACKED = struct.Struct(">QQ")
MAX_LOGICAL = (1 << 16) - 1
MAX_PROPOSER = (1 << 64) - 1


class Ballot(NamedTuple):
    """Totally ordered and unique: `proposer` is random per process start."""

    hlc: int  # ms since 1970, 48 bits
    logical: int  # 16 bits
    proposer: int  # 64 bits

    def pack(self) -> bytes:
        """16 bytes whose byte order is the ballots' order: hlc48 ‖ logical16 ‖ proposer64."""
        return _PACKED.pack(self.hlc << 16 | self.logical, self.proposer)

    @classmethod
    def unpack(cls, packed: bytes) -> "Ballot":
        """The ballot of 16 packed bytes."""
        stamp, proposer = _PACKED.unpack(packed)
        return cls(stamp >> 16, stamp & MAX_LOGICAL, proposer)


BALLOT_ZERO = Ballot(0, 0, 0)


def floor_at(hlc_ms: int) -> Ballot:
    """The highest ballot of that millisecond: a fence that refuses it and everything older."""
    return Ballot(hlc_ms, MAX_LOGICAL, MAX_PROPOSER)


class HybridClock:
    """Draws ballots that rise strictly, whatever the wall clock does."""

    def __init__(self, wall_ms: Callable[[], int], proposer: int) -> None:
        self._wall_ms = wall_ms
        self.proposer = proposer
        self._hlc = 0
        self._logical = 0

    def tick(self) -> Ballot:
        """A ballot above every one drawn or seen before."""
        wall = self._wall_ms()
        if wall > self._hlc:
            self._hlc, self._logical = wall, 0
        elif self._logical < MAX_LOGICAL:
            self._logical += 1
        else:
            self._hlc, self._logical = self._hlc + 1, 0
        return Ballot(self._hlc, self._logical, self.proposer)

    def see(self, ballot: Ballot) -> None:
        """Merge a ballot from a message: the next tick is above it."""
        self._hlc, self._logical = max((self._hlc, self._logical), (ballot.hlc, ballot.logical))
