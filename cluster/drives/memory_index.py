"""An index in memory, for the simulator: the same questions and batches as the one over SQLite, in dictionaries."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

import attrs

from cluster.clock import Ballot
from cluster.drives.index_rows import Batch, HeadRow, NoteKind, NoteRow, ShardRow, unpack_control
from cluster.ids import BucketId, DataId, RowKey
from cluster.register.acceptor import Control
from cluster.register.anti_entropy import ShardOf
from cluster.register.messages import CHOSEN, ScanRow

MAX_POSITIONS = 32  # of a set


@attrs.define
class MemoryIndex:
    """See cluster.drives.index_rows.IndexReads. `apply` is all or nothing."""

    rows: dict[RowKey, HeadRow] = attrs.field(factory=dict)
    corrupt: set[RowKey] = attrs.field(factory=set)  # rows that fail their checksum
    shards: dict[tuple[DataId, int], ShardRow] = attrs.field(factory=dict)
    heal: dict[tuple[DataId, int], tuple[RowKey, str]] = attrs.field(factory=dict)
    hints: dict[RowKey, int] = attrs.field(factory=dict)
    trash: dict[DataId, int] = attrs.field(factory=dict)
    notes: dict[tuple[int, DataId], NoteRow] = attrs.field(factory=dict)
    ctl: dict[str, bytes] = attrs.field(factory=dict)
    _keys: list[RowKey] = attrs.field(factory=list)  # of rows, in order
    _bodies: dict[int, bytes] = attrs.field(factory=dict)
    _open_uploads: set[RowKey] = attrs.field(factory=set)
    _fences: dict[BucketId, tuple[int, bool]] = attrs.field(factory=dict)

    # -- writing

    def apply(self, batch: Batch) -> None:
        """Write a batch."""
        for row, head in batch.heads.items():
            self._put_head(row, head)
        for row in batch.chosen & self.rows.keys():
            head = self.rows[row]
            self.rows[row] = attrs.evolve(head, flags=head.flags | CHOSEN)
        assert not batch.bodies.keys() & self._bodies.keys(), "a rowid was given twice"
        self._bodies |= batch.bodies
        for rowid in batch.drop_bodies:
            self._bodies.pop(rowid, None)
        for row, is_open in batch.uploads.items():
            (self._open_uploads.add if is_open else self._open_uploads.discard)(row)
        self._apply_shards(batch)
        self.hints |= batch.hints
        for row in [row for row, missed in batch.hints.items() if not missed]:
            del self.hints[row]
        self.trash = batch.trash | self.trash
        for data_id in batch.drop_trash:
            self.trash.pop(data_id, None)
            for position in range(MAX_POSITIONS):
                self.heal.pop((data_id, position), None)
            self.notes.pop((NoteKind.LOOK, data_id), None)
        self._apply_notes(batch)
        self._fences |= batch.fences
        self.ctl |= batch.ctl

    def _put_head(self, row: RowKey, head: HeadRow | None) -> None:
        self.corrupt.discard(row)
        if head is None:
            if self.rows.pop(row, None) is not None:
                del self._keys[bisect_left(self._keys, row)]
        else:
            if row not in self.rows:
                insort(self._keys, row)
            self.rows[row] = head

    def _apply_shards(self, batch: Batch) -> None:
        for shard in batch.shards:
            self.shards[shard.data_id, shard.position] = shard
        for key in batch.drop_shards:
            self.shards.pop(key, None)
        for key, owner in batch.debt.items():
            if key not in self.shards:
                self.heal.setdefault(key, (owner, "not staged at commit"))
        for key, why in batch.heal.items():
            if why is None:
                self.heal.pop(key, None)
            else:
                self.heal[key] = why

    def _apply_notes(self, batch: Batch) -> None:
        for key, (was, row) in batch.settled.items():
            if key in self.notes and self.notes[key].packed == was:
                del self.notes[key]
                if row is not None:
                    self.notes[key] = row
        for key, row in batch.notes.items():
            if key not in self.notes or row.rank >= self.notes[key].rank:
                self.notes[key] = row

    # -- reading

    def due_notes(self, kind: int, now_ms: int, limit: int) -> list[bytes]:
        """See IndexReads."""
        due = sorted(
            (row.due_ms, key[1], row.packed)
            for key, row in self.notes.items()
            if key[0] == kind and row.due_ms <= now_ms
        )
        return [packed for _, _, packed in due[:limit]]

    def notes_after(self, kind: int, after: DataId, limit: int) -> list[bytes]:
        """See IndexReads."""
        found = sorted(
            (key[1], row.packed)
            for key, row in self.notes.items()
            if key[0] == kind and key[1] > after
        )
        return [packed for _, packed in found[:limit]]

    def heads(self, rows: Sequence[RowKey]) -> dict[RowKey, HeadRow | None]:
        """See IndexReads."""
        return {
            row: None if row in self.corrupt else self.rows[row] for row in rows if row in self.rows
        }

    def body(self, rowid: int) -> bytes | None:
        """See IndexReads."""
        return self._bodies.get(rowid)

    def last_body(self) -> int:
        """The highest rowid in use."""
        return max(self._bodies, default=0)

    def _between(self, start: RowKey, stop: RowKey | None, limit: int) -> Iterator[HeadRow]:
        first = bisect_left(self._keys, start)
        last = len(self._keys) if stop is None else bisect_left(self._keys, stop)
        return (self.rows[row] for row in self._keys[first : min(last, first + limit)])

    def scan(self, start: RowKey, stop: RowKey | None, limit: int) -> list[ScanRow]:
        """See IndexReads."""
        return [
            ScanRow(
                head.row,
                None if head.row in self.corrupt else head.ballot.pack(),
                head.flags,
                head.state,
            )
            for head in self._between(start, stop, limit)
        ]

    def scan_heads(self, start: RowKey, stop: RowKey | None, limit: int) -> list[HeadRow]:
        """See IndexReads."""
        return list(self._between(start, stop, limit))

    def flags_from(
        self, start: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, Ballot, int]]:
        """See IndexReads."""
        return [(head.row, head.ballot, head.flags) for head in self._between(start, stop, limit)]

    def checked_heads(
        self, start: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, HeadRow | None]]:
        """See IndexReads."""
        return [
            (head.row, None if head.row in self.corrupt else head)
            for head in self._between(start, stop, limit)
        ]

    def uploads(self, start: RowKey, stop: RowKey, limit: int) -> list[RowKey]:
        """See IndexReads."""
        return sorted(row for row in self._open_uploads if start <= row < stop)[:limit]

    def shard(self, data_id: DataId, position: int) -> ShardRow | None:
        """See IndexReads."""
        return self.shards.get((data_id, position))

    def shards_of(self, data_id: DataId) -> list[ShardRow]:
        """See IndexReads."""
        return [shard for key, shard in sorted(self.shards.items()) if key[0] == data_id]

    def bodies_between(self, after: DataId, before: DataId, limit: int) -> list[ShardOf]:
        """See IndexReads."""
        found = {
            data_id: shard.owner
            for (data_id, _), shard in self.shards.items()
            if after < data_id < before and (NoteKind.LOOK, data_id) not in self.notes
        }
        return [ShardOf(*item) for item in sorted(found.items())[:limit]]

    def hints_after(
        self, after: RowKey, stop: RowKey | None, limit: int
    ) -> list[tuple[RowKey, int]]:
        """See IndexReads."""
        inside = (row for row in self.hints if row > after and (stop is None or row < stop))
        return [(row, self.hints[row]) for row in sorted(inside)[:limit]]

    def hints_of(self, rows: Sequence[RowKey]) -> dict[RowKey, int]:
        """See IndexReads."""
        return {row: self.hints[row] for row in rows if row in self.hints}

    def due_trash(self, now_ms: int, limit: int) -> list[DataId]:
        """See IndexReads."""
        due = sorted((due_ms, data_id) for data_id, due_ms in self.trash.items())
        return [data_id for due_ms, data_id in due[:limit] if due_ms <= now_ms]

    def spare_bytes(self) -> int:
        """Memory that is free is nobody's."""
        return 0

    def count(self, table: str) -> int:
        """See IndexReads."""
        return {"heal": len(self.heal), "hint": len(self.hints), "trash": len(self.trash)}[table]

    def control(self) -> Control:
        """The acceptor's durable values."""
        fences = ((bucket, epoch, dead) for bucket, (epoch, dead) in self._fences.items())
        return unpack_control(self.ctl, fences)
