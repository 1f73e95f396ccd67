"""The layout as one drive keeps it: durable together with the epoch by which its acceptor refuses requests."""

from collections.abc import Callable

from cluster.drives.drive import VOTING, DriveError, DriveState
from cluster.drives.group_commit import GroupCommit
from cluster.ids import DriveId
from cluster.layout import LayoutError, decode_layout
from cluster.register.acceptor import Control


class KeptLayout:
    """See cluster.topology.agreement.LayoutShelf."""

    def __init__(
        self, control: Control, commits: GroupCommit, on_kept: Callable[[bytes], None]
    ) -> None:
        """`on_kept` is told what is in force from now on, in the same moment as its epoch is."""
        self._control, self._commits, self._on_kept = control, commits, on_kept
        self._asked = control.epoch

    @property
    def epoch(self) -> int:
        """Of the requests that the drive serves."""
        return self._control.epoch

    @property
    def data(self) -> bytes:
        """What was kept last; empty: nothing yet."""
        return self._control.layout

    async def keep(self, epoch: int, data: bytes) -> None:
        """Durable first, then in force; a drive never goes back. Raises DriveError."""
        control, commits = self._control, self._commits
        if epoch < control.epoch or (epoch == control.epoch and data == control.layout):
            return
        if epoch < self._asked:
            return  # a newer one is on its way, and must not be overtaken
        self._asked = epoch
        commits.batch.ctl |= {"epoch": b"%d" % epoch, "layout": data}
        seq = commits.seq
        commits.touch()
        if not await commits.committed(seq):
            raise DriveError(f"the layout could not be kept: {commits.failed}")
        if epoch >= control.epoch:
            control.epoch, control.layout = epoch, data
            self._on_kept(data)


def has_vote(data: bytes, drive: DriveId) -> bool:
    """Whether a kept layout gives the drive a vote. One that was never told any has the place that it was formatted for."""
    if not data:
        return True
    try:
        layout = decode_layout(data)
    except LayoutError:
        return False  # until its node tells it again
    positions = [position for erasure_set in layout.sets for position in erasure_set.positions]
    # The drive that had the place before is asked for its rows by the one that takes them over, and by nobody else.
    return any(
        (p.drive == drive and p.voting) or (p.previous is not None and p.previous.drive == drive)
        for p in positions
    )


def standing(state: DriveState, reason: str, *, voting: bool) -> tuple[DriveState, str]:
    """State and reason by the layout's word: REBUILDING while it gives no vote. A drive that is out stays so."""
    if not voting and state in VOTING:
        return DriveState.REBUILDING, "the layout gives it no vote"
    if voting and state is DriveState.REBUILDING:
        return DriveState.ACTIVE, ""
    return state, reason
