"""A drive that takes over a position learns which bodies of other sets' registers belong there.

Their records lie elsewhere: no row that it takes names them, and what the records say of its position was true of the drive before. But
the other drives of the set hold a note on each such body. They pass these on, and the new drive asks about them as about any other, finds
that it lacks the shard, and owes it.
"""

from collections.abc import Callable, Mapping, Sequence

import attrs
import msgspec
import trio

from cluster.clock import BALLOT_ZERO
from cluster.drives.away_notes import NOTES_AT_A_TIME, AwayNotes
from cluster.drives.drive import Drive, DriveError
from cluster.errors import UnavailableError
from cluster.ids import DataId, DriveId
from cluster.layout import Layout
from cluster.topology.changes import Place

_FIRST = DataId(bytes(16))
_DRIVE_SECONDS = 10.0  # for a page; else it is tried again


@attrs.frozen
class Introduction:
    """From a drive of this node to one that is new in its set."""

    teller: DriveId
    newcomer: DriveId
    place: Place


def introductions(layout: Layout, own: Mapping[DriveId, object]) -> list[Introduction]:
    """Those that are due while a position is not complete. Pure."""
    found = []
    for erasure_set in layout.sets:
        drives = [position.drive for position in erasure_set.positions]
        for number, position in enumerate(erasure_set.positions):
            if not position.data_complete:
                place = Place(erasure_set.set_id, number)
                found += [
                    Introduction(drive, position.drive, place)
                    for drive in drives
                    if drive in own and drive != position.drive
                ]
    return found


class Introducer:
    """Of one node. A body that comes later is staged on the newcomer, or owed to it by its record."""

    def __init__(
        self, drives_of: Callable[[int], Sequence[Drive]], layout: Callable[[], Layout]
    ) -> None:
        self._drives_of, self._layout = drives_of, layout
        self._passed: dict[Introduction, DataId | None] = {}  # up to where; None: all

    async def step(self, notes_of: Mapping[DriveId, AwayNotes]) -> bool:
        """One page of each introduction. Whether more are left."""
        due = introductions(self._layout(), notes_of)
        self._passed = {one: self._passed.get(one, _FIRST) for one in due}
        more = False
        for one in due:
            after = self._passed[one]
            if after is not None:
                more = await self._pass_on(one, notes_of[one.teller], after) or more
        return more

    async def _pass_on(self, one: Introduction, notes: AwayNotes, after: DataId) -> bool:
        with trio.move_on_after(_DRIVE_SECONDS):
            try:
                drive = self._drives_of(one.place.set_id)[one.place.position]
                page = await notes.looks_after(after, NOTES_AT_A_TIME)
                if page:
                    await drive.look(
                        [
                            msgspec.structs.replace(
                                note, positions=1 << one.place.position, seen=False, dead=False,
                                ballot=BALLOT_ZERO.pack(),
                            )
                            for note in page
                        ]
                    )  # fmt: skip
            except (DriveError, UnavailableError):
                return False  # the next round goes on here
            is_last = len(page) < NOTES_AT_A_TIME
            self._passed[one] = None if is_last else DataId(page[-1].data_id)
            return not is_last
        return False
