"""Data that lies in another set than its key's register: what that register's drives owe to the drives of the data. Pure.

A data drive does not see the states of the key, so it cannot know what became superfluous, nor what it was meant to get. Whoever
accepts a state therefore notes, in the same transaction, which bodies the drives of another set must look after: those that the state
brings without a shard at some positions, and those that it leaves out. The note is delivered, kept there durably, and only then
forgotten here. It proves nothing: the data drive's node asks for the key's state that is known to be chosen, and goes by that.
"""

import enum
from collections.abc import Collection, Iterable
from typing import Annotated

import msgspec

from cluster.clock import Ballot
from cluster.ids import DataId, RowKey, UploadId, data_id_hlc
from cluster.register.acceptor import Limits, collectable
from cluster.register.keys import is_part, owner_row, part_upload
from cluster.register.records import KeyState, Part, Register
from cluster.wire import Bytes16, Uint32, Wire

_Row = Annotated[bytes, msgspec.Meta(max_length=1059)]
_Bits = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
_Upload = Annotated[bytes, msgspec.Meta(max_length=16)]


class Note(Wire, frozen=True):
    """Look at what the register says of this body, and act on it at these positions of its set."""

    data_id: Bytes16
    set_id: Uint32  # where the body lies
    home: Uint32  # set of the register
    owner: _Row
    ballot: Bytes16  # packed; of the state whose acceptance brought the body, or left it out
    upload: _Upload  # that the body is a part of; empty: a direct PUT
    seen: bool  # a state that is known to be chosen referred to the body
    dead: bool  # the bucket is gone
    positions: _Bits

    @property
    def rank(self) -> bytes:
        """Of two notes on one body the one of the higher rank says more."""
        return bytes([self.dead, self.seen]) + self.ballot


class Verdict(enum.Enum):
    """What the chosen state of its owner means for a body."""

    KEEP = "keep"  # it is referred to: whoever lacks its shard owes it
    OPEN = "open"  # its upload is open: the same, and look again later
    COLLECT = "collect"  # it may go after the grace
    FENCE = "fence"  # the state is too old to tell: write it back at a fresh ballot and look again
    LATER = "later"  # nothing can be said yet


def notes_on_change(
    row: RowKey, home: int, held: Register, state: KeyState, ballot: Ballot
) -> list[Note]:
    """What the acceptance of `state` over `held` means for bodies in other sets than `home`."""
    if not has_away(held.state, home) and not has_away(state, home):
        return []
    before, after = _away(held.state, home), _away(state, home)
    notes = []
    for data_id, (part, upload) in after.items():
        missing = ~part.staged & all_positions(part)
        if missing and data_id not in before:
            notes.append(make_note(row, home, part, ballot, upload, positions=missing))
    for data_id, (part, upload) in before.items():
        if data_id not in after:
            notes.append(make_note(row, home, part, ballot, upload, seen=held.chosen))
    return notes


def has_away(state: KeyState, home: int) -> bool:
    """Whether the record names a body in another set."""
    for version in state.versions:
        for part in version.parts:
            if part.set_id != home:
                return True
    return False


def _away(state: KeyState, home: int) -> dict[DataId, tuple[Part, UploadId | None]]:
    return {
        part.data_id: (part, version.upload_id)
        for version in state.versions
        for part in version.parts
        if part.set_id != home
    }


def all_positions(part: Part) -> int:
    """As a bitmap."""
    return (1 << part.k + part.m) - 1


def make_note(
    row: RowKey,
    home: int,
    part: Part,
    ballot: Ballot,
    upload: UploadId | None,
    *,
    positions: int = 0,
    seen: bool = False,
    dead: bool = False,
) -> Note:
    """A note on a body that the register `row` refers, or referred, to; for all positions unless some are given."""
    if is_part(row):
        upload = part_upload(row)
    return Note(
        part.data_id, part.set_id, home, owner_row(row), ballot.pack(), upload or b"", seen, dead,
        positions or all_positions(part),
    )  # fmt: skip


def superfluous(parts: Iterable[Part], referred: Collection[DataId], home: int) -> list[Part]:
    """The bodies in other sets to which nothing refers any more."""
    return [part for part in parts if part.set_id != home and part.data_id not in referred]


def judge(
    note: Note, chosen: Register, referred: Collection[DataId], *, now_ms: int, limits: Limits
) -> Verdict:
    """What is to become of the body. `chosen` is known to be chosen, `referred` are all data ids that it refers to.

    The rules are those for shards in the home set (`collectable`); parts of an upload go when that is closed without them.
    """
    data_id, noted_at = DataId(note.data_id), Ballot.unpack(note.ballot)
    if note.dead:
        return Verdict.COLLECT
    if data_id in referred:
        if chosen.ballot >= noted_at:
            return Verdict.KEEP
        # The state that was accepted at `noted_at` may be chosen yet, until another is above it.
        return Verdict.FENCE if now_ms > noted_at.hlc + limits.op_ttl_ms else Verdict.LATER
    if note.upload:
        if any(upload.upload_id == note.upload for upload in chosen.state.uploads):
            return Verdict.OPEN
        is_newer = chosen.ballot.hlc > data_id_hlc(data_id)
        return Verdict.COLLECT if is_newer else Verdict.FENCE
    is_removed = note.seen or any(data_id in applied.removed for applied in chosen.state.ring)
    if not is_removed and any(u.created.hlc <= data_id_hlc(data_id) for u in chosen.state.uploads):
        return Verdict.OPEN  # it may be a part of that
    if collectable(chosen, data_id, seen_chosen=note.seen, limits=limits):
        return Verdict.COLLECT
    is_old = now_ms > data_id_hlc(data_id) + limits.max_put_ms + limits.op_ttl_ms
    return Verdict.FENCE if is_old else Verdict.LATER
