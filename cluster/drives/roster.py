"""Every drive of the layout behind the one interface: this node's as they are, the others' through their nodes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cluster.drives.absent_drive import AbsentDrive
from cluster.drives.client import RemoteDrive
from cluster.drives.drive import Drive, DriveState
from cluster.drives.format import Member, Seat as FolderSeat
from cluster.drives.remote_node import RemoteNode
from cluster.errors import UnavailableError
from cluster.ids import DriveId, NodeId
from cluster.layout import Layout, Seat
from cluster.votes import roll_of


class Roster:
    """Lists are made anew when the layout or the node's own drives change: a round keeps the one it began with."""

    def __init__(
        self,
        me: NodeId,
        layout: Callable[[], Layout],
        own: Callable[[], Mapping[DriveId, Drive]],
        peer: Callable[[NodeId], RemoteNode],
    ) -> None:
        """`own` gives another mapping whenever a drive of this node comes or goes."""
        self._me, self._layout, self._own, self._peer = me, layout, own, peer
        self._made_for: tuple[Layout, Mapping[DriveId, Drive]] | None = None
        self._lists: dict[int, Sequence[Drive]] = {}

    def drives_of(self, set_id: int) -> Sequence[Drive]:
        """The drives of a set by position, or of the system registers, in the order of their roll.

        Raises UnavailableError for a set of a layout that this node has not heard of yet.
        """
        layout = self._refresh()
        drives = self._lists.get(set_id)
        if drives is None:
            try:
                seats = roll_of(layout, set_id).seats
            except KeyError:
                raise UnavailableError(f"set {set_id} is not known here yet") from None
            drives = [self._find(seat, set_id, index) for index, seat in enumerate(seats)]
            self._lists[set_id] = drives
        return drives

    def drive(self, seat: Seat, set_id: int = 0, position: int = 0) -> Drive:
        """Any drive that a layout names."""
        return self._find(seat, set_id, position)

    def _refresh(self) -> Layout:
        layout, own = self._layout(), self._own()
        made_for = self._made_for
        if made_for is None or made_for[0] is not layout or made_for[1] is not own:
            self._made_for = layout, own
            self._lists.clear()
        return layout

    def _find(self, seat: Seat, set_id: int, position: int) -> Drive:
        if seat.node != self._me:
            return RemoteDrive(self._peer(seat.node), seat.drive, set_id=set_id, position=position)
        drive = self._own().get(seat.drive)
        if drive is not None:
            return drive
        member = Member(drive=seat.drive, path="", set_id=set_id, position=position)
        reason = "the layout names a drive of this node that it does not have"
        return AbsentDrive(
            FolderSeat(member=member, path=Path("-"), state=DriveState.MISSING, reason=reason)
        )
