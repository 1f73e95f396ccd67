"""What every RPC message begins with, and the strict codec that bytes of a peer must pass. Pure (docs/formats/rpc.md).

A header says which cluster, under which layout, from whom, and how late it is there: clocks are merged from every
header, replies and refusals too, so that a node that lags catches up with whoever talks to it.
"""

import enum
from typing import Annotated, Generic, TypeVar

import msgspec

from cluster.clock import MAX_LOGICAL, Ballot, HybridClock
from cluster.ids import ClusterId, NodeId

T = TypeVar("T")

# A peer further ahead would drag the ballots of the whole cluster along (PROTOCOL 1.5).
MAX_AHEAD_MS = 60_000
MAX_TIMEOUT_MS = 48 * 3600 * 1000  # twice the longest PUT
MAX_HLC = (1 << 48) - 1

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Uint16 = Annotated[int, msgspec.Meta(ge=0, le=MAX_LOGICAL)]
Uint32 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Uint48 = Annotated[int, msgspec.Meta(ge=0, le=MAX_HLC)]
# msgspec compares bounds as signed 64-bit numbers.
Uint63 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]


class WireError(Exception):
    """Bytes of a peer that are not what the protocol allows; the call is over, the node is not."""


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what is sent: positional, frozen, nothing unknown."""


class Header(Wire, frozen=True):
    """In front of every request and every reply."""

    cluster: Bytes16
    epoch: Uint63  # of the layout that the sender goes by
    source: Uint32  # node
    hlc: Uint48  # ms
    logical: Uint16
    start: Uint63  # random per process start of the caller
    number: Uint63  # of the call, counted from that start; a reply repeats start and number
    timeout_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMEOUT_MS)]  # what the caller still waits

    @property
    def clock(self) -> Ballot:
        """The sender's hybrid clock."""
        return Ballot(self.hlc, self.logical, 0)


class Refusal(enum.Enum):
    """Why a call was not carried out; none of it was."""

    WRONG_CLUSTER = "wrong cluster"
    STRANGER = "stranger"  # the caller's node is not in our layout: the header has our epoch
    CLOCK_AHEAD = "clock ahead"
    REPEATED = "repeated"  # the call came before
    OVERLOADED = "overloaded"
    MALFORMED = "malformed"


class Refused(Wire, frozen=True, tag=0):
    """The reply to a call that was not carried out."""

    kind: Refusal
    detail: Text


def judge(header: Header, *, cluster: ClusterId, wall_ms: int) -> Refused | None:
    """Whether a call is refused for what its header says; None: it is not.

    An old epoch is none of the reasons: registers judge that themselves, and shards are what they are under any layout.
    """
    if header.cluster != cluster:
        return Refused(Refusal.WRONG_CLUSTER, "the call is meant for another cluster")
    ahead = header.hlc - wall_ms
    if ahead > MAX_AHEAD_MS:
        return Refused(
            Refusal.CLOCK_AHEAD, f"node {header.source} is {ahead} ms ahead of our wall clock"
        )
    return None


def merge(header: Header, clock: HybridClock, wall_ms: int) -> None:
    """Let the clock see a header's, unless it is so far ahead that it must be wrong."""
    if header.hlc - wall_ms <= MAX_AHEAD_MS:
        clock.see(header.clock)


def make_header(
    *,
    cluster: ClusterId,
    epoch: int,
    source: NodeId,
    now: Ballot,
    start: int,
    number: int,
    timeout_ms: int = 0,
) -> Header:
    """A header at the hybrid clock's `now`."""
    return Header(cluster, epoch, source, now.hlc, now.logical, start, number, timeout_ms)


class Codec(Generic[T]):
    """MessagePack to one type and back: strict, of bounded size, with one error."""

    def __init__(self, kind: type[T], max_bytes: int) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._encoder = msgspec.msgpack.Encoder()
        self.max_bytes = max_bytes

    def encode(self, value: T) -> bytes:
        """The bytes of a message."""
        return self._encoder.encode(value)

    def decode(self, data: bytes | memoryview) -> T:
        """The message. Raises WireError for anything else."""
        if len(data) > self.max_bytes:
            raise WireError(f"a message of {len(data)} bytes; at most {self.max_bytes} are allowed")
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, MemoryError, RecursionError) as error:
            # MemoryError: a length prefix of 4 Gi elements; RecursionError: nesting.
            raise WireError(f"a malformed message: {error}") from error
