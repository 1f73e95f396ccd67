"""What the index of a drive holds, what one commit changes, and what can be asked, whichever store is below."""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import attrs
import crc32c

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.ids import BucketId, DataId, RowKey
from cluster.register.acceptor import Control
from cluster.register.anti_entropy import ShardOf
from cluster.register.messages import ScanRow


@attrs.frozen
class HeadRow:
    """A row of `head`, as stored. `bodies`: body id -> rowid."""

    row: RowKey
    ballot: Ballot
    flags: int
    state: bytes
    bodies: bytes

    @property
    def crc(self) -> int:
        """Over everything but the flags, which LEARN changes in place; pages are checksummed besides."""
        return crc32c.crc32c(
            self.bodies, crc32c.crc32c(self.state, crc32c.crc32c(self.row + self.ballot.pack()))
        )


@attrs.frozen(kw_only=True)
class ShardRow:
    """A durable shard. `data` for one that is a row, else it is a file."""

    data_id: DataId
    position: int
    owner: RowKey
    payload_bytes: int
    digests: bytes | None = None
    body: int | None = None
    home: int | None = None  # see ShardHeader; kept as a note


class NoteKind(enum.IntEnum):
    """Of notes on bodies that lie in another set than their register."""

    HINT = 1  # on a drive of the register: to be told to drives of the body
    LOOK = 2  # on a drive of the body, for as long as it has that: the register is to be asked


@attrs.frozen
class NoteRow:
    """A note on a body in another set than its register, as stored; of two on one body the higher rank stays."""

    due_ms: int
    rank: bytes
    packed: bytes


@attrs.define
class Batch:
    """What one transaction writes: gathered on the Trio thread, applied by the writer."""

    heads: dict[RowKey, HeadRow | None] = attrs.field(factory=dict)  # None: delete
    chosen: set[RowKey] = attrs.field(factory=set)  # set the flag of rows that are not in heads
    bodies: dict[int, bytes] = attrs.field(factory=dict)
    drop_bodies: set[int] = attrs.field(factory=set)
    uploads: dict[RowKey, bool] = attrs.field(factory=dict)
    shards: list[ShardRow] = attrs.field(factory=list)
    drop_shards: list[tuple[DataId, int]] = attrs.field(factory=list)
    heal: dict[tuple[DataId, int], tuple[RowKey, str] | None] = attrs.field(
        factory=dict
    )  # None: healed
    debt: dict[tuple[DataId, int], RowKey] = attrs.field(
        factory=dict
    )  # heal, unless the shard is here all the same
    hints: dict[RowKey, int] = attrs.field(factory=dict)  # 0: delete
    trash: dict[DataId, int] = attrs.field(factory=dict)
    drop_trash: list[DataId] = attrs.field(factory=list)
    fences: dict[BucketId, tuple[int, bool]] = attrs.field(factory=dict)
    notes: dict[tuple[int, DataId], NoteRow] = attrs.field(factory=dict)  # by kind and body
    # What a note was when it was dealt with, and what is left of it. Written before `notes`.
    settled: dict[tuple[int, DataId], tuple[bytes, NoteRow | None]] = attrs.field(factory=dict)
    ctl: dict[str, bytes] = attrs.field(factory=dict)
    done: list[Callable[[bool], None]] = attrs.field(factory=list)  # told whether it is durable
    operations: int = 0


def pack_bodies(bodies: Iterable[tuple[bytes, int]]) -> bytes:
    """head.bodies: 16 bytes of body id and 8 of rowid, each."""
    return b"".join(body + rowid.to_bytes(8, "big") for body, rowid in bodies)


def unpack_bodies(packed: bytes) -> dict[bytes, int]:
    """Inverse of pack_bodies."""
    return {
        packed[at : at + 16]: int.from_bytes(packed[at + 16 : at + 24], "big")
        for at in range(0, len(packed), 24)
    }


class IndexReads(Protocol):
    """What is durable. Synchronous; SQLite raises apsw.Error."""

    def heads(self, rows: Sequence[RowKey]) -> dict[RowKey, HeadRow | None]:
        """The stored rows among those asked for; None for one that fails its checksum."""
        ...

    def body(self, rowid: int) -> bytes | None:
        """A body row; None: it is not there, or fails its checksum."""
        ...

    def scan(self, start: RowKey, stop: RowKey | None, limit: int) -> list[ScanRow]:
        """Rows start <= row < stop, at most limit, still encoded."""
        ...

    def scan_heads(self, start: RowKey, stop: RowKey | None, limit: int) -> list[HeadRow]:
        """Rows start <= row < stop, at most limit, as stored, unchecked: for dropping them."""
        ...

    def flags_from(
        self, start: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, Ballot, int]]:
        """Rows start <= row < stop, at most limit, with ballots and flags, unchecked: without what they hold."""
        ...

    def checked_heads(
        self, start: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, HeadRow | None]]:
        """Rows start <= row < stop, at most limit; None for one that fails its checksum."""
        ...

    def uploads(self, start: RowKey, stop: RowKey, limit: int) -> list[RowKey]:
        """Object rows with open uploads."""
        ...

    def shard(self, data_id: DataId, position: int) -> ShardRow | None:
        """The row of a durable shard."""
        ...

    def shards_of(self, data_id: DataId) -> list[ShardRow]:
        """All positions of a body that this drive holds: normally one."""
        ...

    def bodies_between(self, after: DataId, before: DataId, limit: int) -> list[ShardOf]:
        """Bodies with after < data_id < before that have shards here, in order."""
        ...

    def hints_after(
        self, after: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, int]]:
        """Rows between these that some drives missed, and a bitmap of the drives. `stop` None: to the end."""
        ...

    def hints_of(self, rows: Sequence[RowKey]) -> dict[RowKey, int]:
        """Which drives missed these rows, as a bitmap, where there are any."""
        ...

    def due_trash(self, now_ms: int, limit: int) -> list[DataId]:
        """Bodies whose grace is over."""
        ...

    def due_notes(self, kind: int, now_ms: int, limit: int) -> list[bytes]:
        """Notes of a kind whose time has come, the oldest first, at most limit, as stored."""
        ...

    def notes_after(self, kind: int, after: DataId, limit: int) -> list[bytes]:
        """Notes of a kind on bodies after this one, in order, at most limit, as stored."""
        ...

    def spare_bytes(self) -> int:
        """Of what the index takes up, free for new rows: what was deleted is not given back to the file system."""
        ...

    def count(self, table: str) -> int:
        """Rows of a table: for status, not for hot paths."""
        ...


def unpack_control(
    values: Mapping[str, bytes], fences: Iterable[tuple[bytes, int, bool]]
) -> Control:
    """The acceptor's durable values, from the control values and the fences (bucket, epoch, dead)."""
    control = Control(
        epoch=int(values.get("epoch", b"1")),
        layout=values.get("layout", b""),
        ceiling_ms=int(values.get("ceiling_ms", b"0")),
        gc_floor=Ballot.unpack(values["gc_floor"]) if "gc_floor" in values else BALLOT_ZERO,
    )
    for bucket, epoch, is_dead in fences:
        control.fences[BucketId(bucket)] = epoch
        if is_dead:
            control.dead.add(BucketId(bucket))
    return control


def body_crc(rowid: int, data: bytes) -> int:
    """Of a body row; the rowid comes first, so that another row's bytes do not check."""
    return crc32c.crc32c(data, crc32c.crc32c(rowid.to_bytes(8, "big")))
