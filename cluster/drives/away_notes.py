"""A drive's notes on bodies that lie in another set than their register: hints to be told, looks to be taken. Durable, few, bounded.

Hints are written in the transaction that accepts what causes them, and forgotten when the drives that they concern have them as looks. A
look stays as long as the body: it says where to ask, and when next, if ever. The first comes with the shard, in case that no record ever
names it. Both may come twice: they prove nothing and cause questions only.
"""

from collections.abc import Callable, Collection, Sequence

import attrs
import msgspec

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.drives.drive import DriveError
from cluster.drives.group_commit import GroupCommit
from cluster.drives.group_read import GroupRead
from cluster.drives.index_rows import IndexReads, NoteKind, NoteRow, ShardRow
from cluster.ids import DataId, RowKey, UploadId, data_id_hlc
from cluster.register.acceptor import Acceptor
from cluster.register.away import Note, Verdict, has_away, make_note, notes_on_change, superfluous
from cluster.register.keys import bucket_of, is_object
from cluster.register.records import BOTTOM, KeyState, Part, Register

NOTES_AT_A_TIME = 256
_NEVER_MS = 1 << 62
# What is referred to is looked at again: the hint that it is so no more may have been lost with whoever was to give it.
KEPT_MS = 30 * 24 * 3_600_000
_SETTLING_MS = 2_000  # a state that was accepted is known to be chosen by then, as a rule
_decoder = msgspec.msgpack.Decoder(Note)
_encoder = msgspec.msgpack.Encoder()


@attrs.frozen
class DueNote:
    """A note, and the row that it was read from."""

    note: Note
    row: bytes


class AwayNotes:
    """Of one drive, over the same commits and reads as its registers."""

    def __init__(
        self,
        acceptor: Acceptor,
        commits: GroupCommit,
        reads: GroupRead,
        *,
        now_ms: Callable[[], int],
        grace_ms: int,
    ) -> None:
        self._acceptor, self._commits, self._reads = acceptor, commits, reads
        self._now_ms, self._grace_ms = now_ms, grace_ms

    # -- hints: from the registers, into the filling batch

    def on_write(self, row: RowKey, held: Register | None, state: KeyState, ballot: Ballot) -> None:
        """A state is accepted over what was held."""
        home = self._acceptor.set_id
        for note in notes_on_change(row, home, held or BOTTOM, state, ballot):
            self._put(NoteKind.HINT, note, _SETTLING_MS)

    def on_superfluous(
        self,
        row: RowKey,
        parts: Sequence[Part],
        referred: Collection[DataId],
        upload: UploadId | None,
        chosen: Ballot,
    ) -> None:
        """Parts of an upload that was closed, to which the state chosen at this ballot does not refer."""
        home = self._acceptor.set_id
        for part in superfluous(parts, referred, home):
            # It says more than whatever an earlier state had somebody look after.
            self._put(NoteKind.HINT, make_note(row, home, part, chosen, upload), 0)

    def on_dead(self, row: RowKey, state: KeyState) -> None:
        """The bucket is gone, and the row with it."""
        home = self._acceptor.set_id
        if has_away(state, home):
            parts = [part for version in state.versions for part in version.parts]
            for part in superfluous(parts, (), home):
                note = make_note(row, home, part, BALLOT_ZERO, None, dead=True)
                self._put(NoteKind.HINT, note, 0)

    def _put(self, kind: NoteKind, note: Note, delay_ms: int) -> None:
        batch, key = self._commits.batch, (int(kind), DataId(note.data_id))
        known = batch.notes.get(key)
        if known is None or note.rank >= known.rank:
            row = NoteRow(self._now_ms() + delay_ms, note.rank, _encoder.encode(note))
            batch.notes[key] = row
        self._commits.touch()

    # -- looks

    def on_staged(self, row: ShardRow, home: int) -> None:
        """A shard is here whose register is elsewhere: ask when no record can name it any more that has not done so."""
        acceptor = self._acceptor
        age_ms = acceptor.limits.max_put_ms + acceptor.limits.op_ttl_ms
        note = Note(
            row.data_id, acceptor.set_id, home, row.owner, BALLOT_ZERO.pack(), b"", False, False,
            1 << acceptor.position,
        )  # fmt: skip
        due_ms = data_id_hlc(row.data_id) + age_ms
        self._put(NoteKind.LOOK, note, due_ms - self._now_ms())

    async def add_looks(self, notes: Sequence[Note]) -> None:
        """Look at these bodies; durable when this returns. Those that do not concern this drive are passed over. Raises DriveError."""
        assert len(notes) <= NOTES_AT_A_TIME
        acceptor, commits = self._acceptor, self._commits
        if commits.failed:
            raise DriveError(commits.failed)
        for note in notes:
            is_mine = note.set_id == acceptor.set_id and note.positions >> acceptor.position & 1
            if is_mine and is_object(RowKey(note.owner)):
                self._put(NoteKind.LOOK, note, 0)
        if not await commits.committed(commits.newest):
            raise DriveError(commits.failed)

    # -- what is due, and what came of it

    async def due(self, kind: NoteKind, limit: int = NOTES_AT_A_TIME) -> list[DueNote]:
        """Notes whose time has come, the oldest first. Raises DriveError."""
        now = self._now_ms()
        rows = await self._stored(lambda index: index.due_notes(int(kind), now, limit))
        return [DueNote(self._read(row), row) for row in rows]

    async def looks_after(self, after: DataId, limit: int) -> list[Note]:
        """The bodies of other sets' registers that this drive knows of, in order. Raises DriveError."""
        rows = await self._stored(lambda index: index.notes_after(int(NoteKind.LOOK), after, limit))
        return [self._read(row) for row in rows]

    async def _stored(self, work: Callable[[IndexReads], list[bytes]]) -> list[bytes]:
        try:
            return await self._reads.run(work)
        except OSError as error:
            raise DriveError(str(error)) from error

    def _read(self, row: bytes) -> Note:
        note = _decoder.decode(row)
        is_dead = bucket_of(RowKey(note.owner)) in self._acceptor.control.dead
        return msgspec.structs.replace(note, dead=True) if is_dead else note

    def told(self, due: DueNote, positions: int, again_ms: int) -> None:
        """The drives at these positions have the hint as a look; the others are told after so long."""
        note = _decoder.decode(due.row)
        left = note.positions & ~positions
        rest = msgspec.structs.replace(note, positions=left) if left else None
        self._settle(NoteKind.HINT, due, rest, again_ms)

    def settle(self, due: DueNote, verdict: Verdict, again_ms: int) -> None:
        """Act on what the register says: collect the body, or owe its shard if it is not here; or look again after so long."""
        batch, note = self._commits.batch, due.note
        data_id = DataId(note.data_id)
        if verdict is Verdict.COLLECT:
            batch.trash[data_id] = self._now_ms() + self._grace_ms
        elif verdict in {Verdict.KEEP, Verdict.OPEN}:
            batch.debt[data_id, self._acceptor.position] = RowKey(note.owner)
        rest = _decoder.decode(due.row)
        if verdict is Verdict.KEEP:  # whatever comes next says more
            zero = BALLOT_ZERO.pack()
            rest = msgspec.structs.replace(rest, seen=False, dead=False, ballot=zero)
        later_ms = {Verdict.COLLECT: _NEVER_MS, Verdict.KEEP: KEPT_MS}.get(verdict, again_ms)
        self._settle(NoteKind.LOOK, due, rest, later_ms)

    def _settle(self, kind: NoteKind, due: DueNote, rest: Note | None, again_ms: int) -> None:
        row = None
        if rest is not None:
            due_ms = min(self._now_ms() + again_ms, _NEVER_MS)
            row = NoteRow(due_ms, rest.rank, _encoder.encode(rest))
        self._commits.batch.settled[int(kind), DataId(due.note.data_id)] = due.row, row
        self._commits.touch()
