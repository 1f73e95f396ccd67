"""What a chosen state makes superfluous: replaced data, part lists, the part rows of closed uploads. Noted, not yet removed."""

from collections.abc import Callable

import msgspec

from cluster.clock import Ballot
from cluster.drives.away_notes import AwayNotes
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.row_cache import Row
from cluster.ids import DataId, RowKey, UploadId
from cluster.register.keys import bucket_of, is_part, part_row, successor
from cluster.register.messages import ScanRow
from cluster.register.mutations import record_data
from cluster.register.records import BodyId, Register, decode_parts, decode_state

WithBody = Callable[[RowKey, Row, BodyId, Callable[[bytes | None], None]], None]


class Leftovers:
    """`discard` puts data into the trash, from where it is collected after the grace."""

    def __init__(
        self,
        commits: GroupCommit,
        reads: GroupRead,
        notes: AwayNotes,
        *,
        now_ms: Callable[[], int],
        grace_ms: int,
        forget: Callable[[RowKey], None],
        with_body: WithBody,
    ) -> None:
        self._commits, self._reads, self._notes = commits, reads, notes
        self._now_ms, self._grace_ms = now_ms, grace_ms
        self._forget, self._with_body = forget, with_body

    def collect(self, key: RowKey, row: Row, register: Register) -> None:
        """The row's state was chosen: note what it makes superfluous. Never blocks."""
        state = register.state
        still_open = {upload.upload_id for upload in state.uploads}
        if not is_part(key):
            referred = record_data(state)
            removed = set(row.superseded)
            for applied in state.ring if row.missed else state.ring[-1:]:
                removed.update(applied.removed)
            self.discard(removed - referred)
            for body, rowid, upload in row.list_bodies:
                if row.bodies.get(body) == rowid:
                    continue  # the state that left it out was buried
                if body in row.bodies or upload in still_open:  # or the one that brought it
                    self._commits.batch.drop_bodies.add(rowid)
                else:
                    self._collect_list(rowid, referred, key, upload, register.ballot)
        for upload in row.closed:
            if upload not in still_open:  # what closed it was not buried
                self._close_upload(key, upload, row, register)
        row.superseded, row.list_bodies, row.closed, row.missed = (), (), (), False

    def discard(self, data: set[DataId]) -> None:
        """Data that nothing refers to any more: collected when the reads in flight are over."""
        due = self._now_ms() + self._grace_ms
        for data_id in data:
            self._commits.batch.trash[data_id] = due
        if data:
            self._commits.touch()

    def _collect_list(
        self,
        rowid: int,
        referred: frozenset[DataId],
        key: RowKey,
        upload: UploadId | None,
        chosen: Ballot,
    ) -> None:
        def landed(data: bytes | None, _: str) -> None:
            if data is not None:
                parts = decode_parts(data)
                self.discard({part.data_id for part in parts} - referred)
                self._notes.on_superfluous(key, parts, referred, upload, chosen)
            self._commits.batch.drop_bodies.add(rowid)
            self._commits.touch()

        self._reads.submit(lambda index: index.body(rowid), landed)

    def _close_upload(self, key: RowKey, upload: UploadId, row: Row, register: Register) -> None:
        """Drop the part rows of a closed upload, and the data of parts that the object does not use."""
        state, chosen = register.state, register.ballot
        referred = set(record_data(state))
        bucket = bucket_of(key)
        # Not always the newest version: others may have been put beside it before this state was chosen.
        made = next((v for v in state.versions if v.upload_id == upload), None)
        start, stop = part_row(bucket, upload, 0), RowKey(successor(bucket + b"p" + upload) or b"")

        def landed(rows: list[ScanRow] | None, _: str) -> None:
            for found in rows or ():
                try:
                    part = decode_state(found.encoded)
                except msgspec.DecodeError:
                    continue
                data = set(record_data(part)).union(*(applied.removed for applied in part.ring))
                self.discard(data - referred)
                parts = [part for version in part.versions for part in version.parts]
                self._notes.on_superfluous(found.row, parts, referred, upload, chosen)
                self._commits.batch.heads[found.row] = None
                self._commits.batch.hints[found.row] = 0  # there is nothing left to be missed
                self._forget(found.row)
                self._commits.touch()

        def look() -> None:
            self._reads.submit(lambda index: index.scan(start, stop, 10_001), landed)

        def with_list(data: bytes | None) -> None:
            # What cannot be read may name any of them: healing asks the others, and drops what is left over.
            if data is not None:
                referred.update(part.data_id for part in decode_parts(data))
                look()

        if made is not None and made.body is not None and made.body.count:
            self._with_body(key, row, made.body.id, with_list)
        else:
            look()
