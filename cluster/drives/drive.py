"""The drive interface: an acceptor and a shelf of shards, local, remote or simulated, behind one set of verbs.

Register messages are submitted, not awaited: `submit` returns at once and the answer comes back through a callback
on the Trio thread, so that one quorum call over six drives costs one task switch and not twelve.
"""

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import attrs

from cluster.erasure.shard_format import ShardHeader
from cluster.ids import DataId, DriveId
from cluster.register.away import Note
from cluster.register.messages import Reply, Request
from cluster.wire import Uint63

Blob: TypeAlias = bytes | bytearray | memoryview


class DriveState(enum.Enum):
    """What a drive can do; only ACTIVE, SLOW, READONLY and CROWDED vote (I12)."""

    ACTIVE = "active"
    SLOW = "slow"  # votes and stages, last choice
    READONLY = "readonly"  # full: votes (metadata reserve), deletes, reads; does not stage
    CROWDED = "crowded"  # not much room for records either: nothing new, so that deletes still work
    REBUILDING = "rebuilding"  # takes accepts and shards, does not vote
    FAULTY = (
        "faulty"  # an fsync or write failed, or it hung: nothing until it is replaced or rebuilt
    )
    MISSING = "missing"  # the path is gone, empty or unmounted
    WRONG = "wrong"  # another drive's identity lies there


FULL = frozenset({DriveState.READONLY, DriveState.CROWDED})
VOTING = FULL | {DriveState.ACTIVE, DriveState.SLOW}
ANSWERING = VOTING | {DriveState.REBUILDING}  # registers: takes accepts, tells what it wants
STAGING = frozenset({DriveState.ACTIVE, DriveState.SLOW, DriveState.REBUILDING})


class DriveError(Exception):
    """The drive could not do it. The caller treats the position as lost for this request."""


class DriveFullError(DriveError):
    """No room for shards; metadata and deletes still work."""


class ShardMissingError(DriveError):
    """This drive does not hold the shard (any more)."""


class ShardCorruptError(DriveError):
    """A block of the shard failed its CRC; the drive has noted it as heal debt."""


@attrs.frozen(kw_only=True)
class DriveUsage:
    """Bytes of the file system below the drive."""

    total: int
    free: int


@attrs.frozen(kw_only=True)
class DriveStatus:
    """What `cluster status` shows of a drive."""

    drive: DriveId
    path: str
    set_id: int
    position: int
    state: DriveState
    reason: str  # why it is not ACTIVE, and what to do
    usage: DriveUsage | None
    heal_debt: int  # rows: shards known missing or bad


class CommitMark(NamedTuple):
    """What a drive says of its commits: in which life it was heard last, and the highest number of any."""

    life: Uint63  # another at every opening of the drive
    durable: Uint63  # the number of the last batch that it called durable


class Stage(Protocol):
    """A shard being written. Abandoned stages are removed; only a closed one survives a power cut."""

    async def write(self, blocks: Sequence[Blob]) -> None:
        """Append the next blocks of this position, in stripe order; each has the same length but the last one.

        Raises DriveError, after which the stage is dead.
        """
        ...

    async def close(self, digests: bytes) -> None:
        """Make the shard durable: file, directory, and index row. `digests`: the concatenated stripe digests.

        Returns after the commit that acknowledges it. Raises DriveError.
        """
        ...

    def abort(self) -> None:
        """Forget it; never blocks. A no-op after close or abort."""
        ...


class Drive(Protocol):
    """A drive anywhere."""

    @property
    def drive_id(self) -> DriveId:
        """Its identity, from format.json."""
        ...

    @property
    def state(self) -> DriveState:
        """As this process knows it now."""
        ...

    @property
    def cost(self) -> float:
        """How far away it is: 0 on this node, else about the seconds of a round trip; inf: not to be reached now."""
        ...

    def submit(self, request: Request, reply: Callable[[Reply], None]) -> None:
        """Hand a register message over.

        `reply` is called on the Trio thread, at most once, maybe before submit returns; a dead or hung drive never calls it. Bounded: a full queue answers Failed at once. Never raises.
        """
        ...

    def open_stage(self, header: ShardHeader, size_hint: int) -> Stage:
        """Begin to write a shard; no I/O yet. Raises DriveFullError or DriveError."""
        ...

    async def read_blocks(
        self, header: ShardHeader, first: int, lengths: Sequence[int]
    ) -> Sequence[memoryview]:
        """Blocks first, first+1, … of a shard, each of the given length, every CRC checked.

        Raises ShardMissingError, ShardCorruptError (the drive notes heal debt durably), DriveError.
        """
        ...

    async def read_digests(self, header: ShardHeader, stripes: int) -> bytes:
        """The concatenated 16-byte stripe digests from the footer. Raises like read_blocks."""
        ...

    async def stat_shard(self, data_id: DataId, position: int) -> int | None:
        """Payload bytes of a durable shard; None: not here."""
        ...

    async def look(self, notes: Sequence[Note]) -> None:
        """Take durable note to ask the registers of these bodies, at most 256, what is to become of them. Raises DriveError."""
        ...

    def note_bad_shard(self, header: ShardHeader, reason: str) -> None:
        """Record durable heal debt for a shard whose content is wrong though its CRCs hold. Never blocks."""
        ...

    async def status(self) -> DriveStatus:
        """For people; may touch the disk."""
        ...


class MarkedDrive(Drive, Protocol):
    """A drive of this node, whose commits peers remember: one that opens with fewer has forgotten something."""

    @property
    def mark(self) -> CommitMark | None:
        """For peers to remember; None: the drive is not open."""
        ...

    def confront(self, mark: CommitMark) -> None:
        """What a peer remembers. FAULTY, where the drive has forgotten what it called durable."""
        ...
