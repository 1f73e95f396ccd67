"""The layout as one drive keeps it: durable together with the epoch by which its acceptor refuses requests."""

from cluster.drives.drive import DriveError
from cluster.drives.group_commit import GroupCommit
from cluster.register.acceptor import Control


class KeptLayout:
    """See cluster.topology.agreement.LayoutShelf."""

    def __init__(self, control: Control, commits: GroupCommit) -> None:
        self._control, self._commits = control, commits
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
