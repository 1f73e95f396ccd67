"""What nodes say to each other about drives: requests and replies of the drive interface (docs/formats/rpc.md). Pure.

Every message is [header, word]. A call begins with one request; a stage goes on with blocks and the close, register
operations are answered one by one, in as many replies as it takes.
"""

import enum
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from cluster.drives.drive import (
    Blob,
    CommitMark,
    DriveError,
    DriveFullError,
    DriveState,
    DriveStatus,
    DriveUsage,
    ShardCorruptError,
    ShardMissingError,
)
from cluster.erasure.shard_format import ShardHeader, block_crc
from cluster.ids import DataId, DriveId, RowKey
from cluster.membership.messages import MAX_HEARTBEAT_BYTES
from cluster.register.away import Note
from cluster.transport.framing import MAX_MESSAGE
from cluster.transport.register_codec import MAX_ROW, ReplyTwin, RequestTwin
from cluster.wire import (
    Bytes16,
    Codec,
    Header,
    Refused,
    Text,
    Uint16,
    Uint32,
    Uint63,
    Wire,
    WireError,
)

MAX_BLOCK = 256 << 10  # bytes of one block
MAX_RUN = (
    512 << 10
)  # bytes of blocks that are announced at once: two runs are under way within the credit
MAX_READ = 16 << 20
MAX_BLOCKS = 4096
MAX_OPERATIONS = 1024  # of registers, in one call
MAX_NAMES = 256  # of documents, in one call
MAX_BATCH = 2 << 20  # about how many bytes operations, or pages, of one message may take

Marks = dict[Bytes16, CommitMark]  # by drive
_Count = Annotated[int, msgspec.Meta(ge=1, le=32)]
_Lengths = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=0, le=MAX_BLOCK)], ...],
    msgspec.Meta(min_length=1, max_length=MAX_BLOCKS),
]
_Crcs = Annotated[
    tuple[Annotated[bytes, msgspec.Meta(min_length=4, max_length=4)], ...],
    msgspec.Meta(max_length=MAX_BLOCKS),
]
_Name = Annotated[bytes, msgspec.Meta(min_length=1, max_length=256)]
_Bytes = Annotated[bytes, msgspec.Meta(max_length=1 << 20)]


class Shard(Wire, frozen=True):
    """Names one shard, as ShardHeader does."""

    data_id: Bytes16
    owner: Annotated[bytes, msgspec.Meta(max_length=MAX_ROW)]
    position: Annotated[int, msgspec.Meta(ge=0, le=31)]
    k: _Count
    m: Annotated[int, msgspec.Meta(ge=0, le=31)]
    block: Annotated[int, msgspec.Meta(ge=1, le=MAX_BLOCK)]
    codec: Annotated[str, msgspec.Meta(max_length=24)]
    home: Uint32 | None = None

    @property
    def header(self) -> ShardHeader:
        """As the drive takes it. Raises WireError for a position that the code does not have."""
        if self.position >= self.k + self.m:
            raise WireError(f"position {self.position} of {self.k}+{self.m}")
        return ShardHeader(
            data_id=DataId(self.data_id), owner=RowKey(self.owner), position=self.position,
            k=self.k, m=self.m, block=self.block, codec=self.codec, home=self.home,
        )  # fmt: skip


def block_crcs(header: ShardHeader, first: int, blocks: Sequence[Blob]) -> tuple[bytes, ...]:
    """The CRCs of a run of blocks that begins at block `first`: sent ahead of them."""
    return tuple(
        block_crc(header.data_id, header.position, number, block)
        for number, block in enumerate(blocks, first)
    )


def cut_blocks(
    header: ShardHeader, first: int, lengths: Sequence[int], crcs: Sequence[bytes], body: memoryview
) -> list[memoryview]:
    """The blocks of a run as it arrived. Raises DriveError for one that is not what was sent."""
    blocks, at = [], 0
    for number, (length, crc) in enumerate(zip(lengths, crcs, strict=False), first):
        block = body[at : at + length]
        if block_crc(header.data_id, header.position, number, block) != crc:
            raise DriveError(f"block {number} was damaged on its way")
        blocks.append(block)
        at += length
    return blocks


def pack_shard(header: ShardHeader) -> Shard:
    """As it is sent."""
    return Shard(
        header.data_id, header.owner, header.position, header.k, header.m, header.block, header.codec,
        header.home,
    )  # fmt: skip


# -- requests


class Operation(Wire, frozen=True):
    """One register message to some of the node's drives."""

    drives: Annotated[tuple[Bytes16, ...], msgspec.Meta(min_length=1, max_length=256)]
    request: RequestTwin


class Submit(Wire, frozen=True, tag=1):
    """Register operations. Answered by Answers, as they come."""

    operations: Annotated[
        tuple[Operation, ...], msgspec.Meta(min_length=1, max_length=MAX_OPERATIONS)
    ]


class OpenStage(Wire, frozen=True, tag=2):
    """Begin to write a shard. Then StageBlocks and StageClose; answered once, by Stored or Trouble."""

    drive: Bytes16
    shard: Shard
    size_hint: Uint63


class ReadBlocks(Wire, frozen=True, tag=3):
    """Answered by Blocks, and their bytes."""

    drive: Bytes16
    shard: Shard
    first: Uint32
    lengths: _Lengths


class ReadDigests(Wire, frozen=True, tag=4):
    """Answered by Digests."""

    drive: Bytes16
    shard: Shard
    stripes: Uint32


class StatShard(Wire, frozen=True, tag=5):
    """Answered by Size."""

    drive: Bytes16
    data_id: Bytes16
    position: Annotated[int, msgspec.Meta(ge=0, le=31)]


class NoteBad(Wire, frozen=True, tag=6):
    """The content of a shard is wrong. Answered by Stored."""

    drive: Bytes16
    shard: Shard
    reason: Text


class AskStatus(Wire, frozen=True, tag=7):
    """Answered by Status."""

    drive: Bytes16


class Ping(Wire, frozen=True, tag=8):
    """Are you there? This is what you said of your drives, the highest of each. Answered by Pong."""

    marks: Marks


class Gossip(Wire, frozen=True, tag=10):
    """A heartbeat of membership, which this layer does not look into. Answered by Gossiped."""

    heartbeat: Annotated[bytes, msgspec.Meta(max_length=MAX_HEARTBEAT_BYTES)]


class Forget(Wire, frozen=True, tag=9):
    """These system documents have changed: what is kept of them is to be asked for again. Answered by Noted."""

    names: Annotated[tuple[_Name, ...], msgspec.Meta(min_length=1, max_length=MAX_NAMES)]


class Look(Wire, frozen=True, tag=11):
    """Take note of bodies whose registers are to be asked. Answered by Stored, when that is durable."""

    drive: Bytes16
    notes: Annotated[tuple[Note, ...], msgspec.Meta(min_length=1, max_length=256)]


class StageBlocks(Wire, frozen=True, tag=1):
    """The next blocks of a stage; their bytes follow. A CRC covers data id, position and block number too."""

    lengths: _Lengths
    crcs: _Crcs


class StageClose(Wire, frozen=True, tag=2):
    """Make the shard durable."""

    digests: _Bytes


# -- replies; each tells the drive's state, so that the caller need not ask


class Answer(Wire, frozen=True):
    """A drive's answer to one operation."""

    operation: Uint16  # index
    drive: Uint16  # index into the operation's drives
    state: DriveState | None  # None: there is no such drive
    reply: ReplyTwin


class Answers(Wire, frozen=True, tag=1):
    """Some of the answers; each comes once."""

    answers: tuple[Answer, ...]


class Stored(Wire, frozen=True, tag=2):
    """Done, and durable where the interface promises it."""

    state: DriveState


class Blocks(Wire, frozen=True, tag=3):
    """The blocks that were asked for; their bytes follow."""

    state: DriveState
    lengths: _Lengths
    crcs: _Crcs


class Digests(Wire, frozen=True, tag=4):
    """Concatenated stripe digests."""

    state: DriveState
    digests: _Bytes


class Size(Wire, frozen=True, tag=5):
    """Payload bytes of a shard; None: not here."""

    state: DriveState
    size: Uint63 | None


class Status(Wire, frozen=True, tag=6):
    """See DriveStatus."""

    state: DriveState
    path: Text
    set_id: Uint32
    position: Uint16
    reason: Text
    usage: tuple[Uint63, Uint63] | None  # total, free
    heal_debt: Uint63

    def of(self, drive: DriveId) -> DriveStatus:
        """As the drive interface has it."""
        usage = None if self.usage is None else DriveUsage(total=self.usage[0], free=self.usage[1])
        return DriveStatus(
            drive=drive, path=self.path, set_id=self.set_id, position=self.position, state=self.state,
            reason=self.reason, usage=usage, heal_debt=self.heal_debt,
        )  # fmt: skip


def pack_status(status: DriveStatus) -> Status:
    """As it is sent."""
    usage = None if status.usage is None else (status.usage.total, status.usage.free)
    return Status(
        status.state, status.path[:1024], status.set_id, status.position, status.reason[:1024],
        usage, status.heal_debt,
    )  # fmt: skip


def pack_error(error: DriveError, state: DriveState) -> "Trouble":
    """As it is sent."""
    kind = next(kind for kind, known in ERRORS.items() if isinstance(error, known))
    return Trouble(kind, str(error)[:1024], state)


class Pong(Wire, frozen=True, tag=7):
    """The drives of the node and what they can do."""

    states: dict[Bytes16, DriveState]
    marks: Marks


class Gossiped(Wire, frozen=True, tag=10):
    """The heartbeat that answers one."""

    heartbeat: Annotated[bytes, msgspec.Meta(max_length=MAX_HEARTBEAT_BYTES)]


class TroubleKind(enum.Enum):
    """Which error of the drive interface it was."""

    FULL = "full"
    MISSING = "missing"
    CORRUPT = "corrupt"
    FAILED = "failed"


ERRORS: dict[TroubleKind, type[DriveError]] = {
    TroubleKind.FULL: DriveFullError,
    TroubleKind.MISSING: ShardMissingError,
    TroubleKind.CORRUPT: ShardCorruptError,
    TroubleKind.FAILED: DriveError,  # the base of the others comes last
}


class Trouble(Wire, frozen=True, tag=8):
    """The drive could not do it."""

    kind: TroubleKind
    reason: Text
    state: DriveState | None  # None: there is no such drive


class Noted(Wire, frozen=True, tag=9):
    """The node has taken note."""


RequestWord = (
    Submit
    | OpenStage
    | ReadBlocks
    | ReadDigests
    | StatShard
    | NoteBad
    | AskStatus
    | Ping
    | Forget
    | Gossip
    | Look
)
StageWord = StageBlocks | StageClose
ReplyWord = (
    Refused
    | Answers
    | Stored
    | Blocks
    | Digests
    | Size
    | Status
    | Pong
    | Trouble
    | Noted
    | Gossiped
)


class RequestMessage(Wire, frozen=True):
    """The first message of a call."""

    header: Header
    word: RequestWord


class ReplyMessage(Wire, frozen=True):
    """Every message of the answering side."""

    header: Header
    word: ReplyWord


REQUESTS: Codec[RequestMessage] = Codec(RequestMessage, MAX_MESSAGE)
REPLIES: Codec[ReplyMessage] = Codec(ReplyMessage, MAX_MESSAGE)
STAGES: Codec[Any] = Codec(StageWord, 2 << 20)  # type: ignore[arg-type]
