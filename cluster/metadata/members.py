"""The drives that take part in a register under one layout."""

from collections.abc import Callable, Collection, Sequence

import attrs

from cluster.drives.drive import FULL, VOTING, Drive, DriveState
from cluster.errors import StorageFullError
from cluster.layout import Layout
from cluster.quorum import Electorate
from cluster.votes import roll_of

DrivesOf = Callable[[int], Sequence[Drive]]  # of a set, or of the system registers, by their roll
MembersOf = Callable[[int], "Members"]
_CROWDED = frozenset({DriveState.CROWDED})
_UNABLE = frozenset(DriveState) - VOTING


@attrs.frozen
class Members:
    """Of a set in order of position. All take what is accepted; the electorate says whose answers count."""

    epoch: int
    drives: Sequence[Drive]
    electorate: Electorate
    readers: Sequence[int] = attrs.field(init=False)  # whose promises and answers count

    @readers.default
    def _count_readers(self) -> Sequence[int]:
        members = self.electorate.read.members
        return [index for index in range(len(self.drives)) if members >> index & 1]

    def unable(self) -> int:
        """Bitmap of those that cannot vote now, as far as is known."""
        return self._among(_UNABLE)

    @property
    def takes_bodies(self) -> bool:
        """Whether small bodies may go into the records."""
        full = self._among(FULL)
        return not full or not (self._among(_CROWDED) or self.electorate.cannot_accept(full))

    @property
    def takes_records(self) -> bool:
        """Whether new records may be added. Else they would cost the drives the room that they need to forget."""
        crowded = self._among(_CROWDED)
        return not crowded or not self.electorate.cannot_accept(crowded)

    def require_room(self) -> None:
        """Raises StorageFullError where no new records may be added."""
        if not self.takes_records:
            count = self._among(_CROWDED).bit_count()
            raise StorageFullError(
                f"{count} of {len(self.drives)} drives hardly have room for records"
            )

    def _among(self, states: Collection[DriveState]) -> int:
        return sum(1 << i for i, drive in enumerate(self.drives) if drive.state in states)


def members_under(layout: Callable[[], Layout], drives_of: DrivesOf) -> MembersOf:
    """The members of every set under the layout that is in force when they are asked for."""
    known: dict[int, Members] = {}
    counted: Layout | None = None

    def members_of(set_id: int) -> Members:
        nonlocal counted
        now, drives = layout(), drives_of(set_id)
        if now is not counted:
            known.clear()
            counted = now
        members = known.get(set_id)
        if members is None:
            members = Members(now.epoch, drives, roll_of(now, set_id).electorate)
        elif members.drives is not drives:
            members = attrs.evolve(members, drives=drives)
        known[set_id] = members
        return members

    return members_of
