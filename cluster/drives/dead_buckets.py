"""Rows and data of deleted buckets are dropped, a few at a time: the bucket's id is never used again, and its fence stays."""

from collections.abc import Callable

import msgspec

from cluster.drives.away_notes import AwayNotes
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import HeadRow, unpack_bodies
from cluster.ids import BucketId, DataId, RowKey
from cluster.register.acceptor import Control
from cluster.register.keys import successor
from cluster.register.mutations import record_data
from cluster.register.records import decode_state

ROWS_AT_A_TIME = 256


class DeadBuckets:
    """`sweep` is called now and then. After a restart each dead bucket costs one look."""

    def __init__(
        self,
        control: Control,
        commits: GroupCommit,
        reads: GroupRead,
        *,
        forget: Callable[[RowKey], None],
        discard: Callable[[set[DataId]], None],
        notes: AwayNotes,
    ) -> None:
        self._control = control
        self._commits, self._reads = commits, reads
        self._forget, self._discard, self._notes = forget, discard, notes
        self._swept: set[BucketId] = set()

    async def sweep(self) -> None:
        """Drop some rows of each bucket that is known to be dead. Raises OSError where the index cannot be read."""
        for bucket in self._control.dead - self._swept:
            start, stop = RowKey(bucket), successor(bucket)
            heads = await self._reads.run(
                lambda index, start=start, stop=stop: index.scan_heads(  # type: ignore[misc]
                    start, None if stop is None else RowKey(stop), ROWS_AT_A_TIME
                )
            )
            for head in heads:
                self._drop(head)
            if not heads:
                self._swept.add(bucket)

    def _drop(self, head: HeadRow) -> None:
        try:
            state = decode_state(head.state)
        except msgspec.DecodeError:
            data: set[DataId] = set()  # its shards are left to whoever looks for orphans
        else:
            data = {data_id for applied in state.ring for data_id in applied.removed}
            data |= set(record_data(state))
            self._notes.on_dead(head.row, state)
        batch = self._commits.batch
        batch.heads[head.row] = None
        batch.chosen.discard(head.row)
        batch.uploads[head.row] = False
        batch.hints[head.row] = 0
        batch.drop_bodies.update(unpack_bodies(head.bodies).values())
        self._forget(head.row)
        self._discard(data)
        self._commits.touch()
