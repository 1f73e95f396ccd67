"""Free space of a drive: what stages may still promise, and when it is full. Pure."""

from cluster.drives.drive import FULL, DriveState, DriveUsage
from cluster.drives.local_stage import ROW_SHARD_BYTES


class Room:
    """Fed with measurements. Nothing is refused before the first.

    The index never gives back what it took: what was deleted there is room for rows, and only for them. So a drive
    that small objects have filled has room again when they are deleted, though its file system shows none.
    """

    def __init__(self, *, min_free_bytes: int, min_free_ratio: float) -> None:
        self._min_free_bytes, self._min_free_ratio = min_free_bytes, min_free_ratio
        self._staged_bytes = 0  # promised to stages since the free space was measured
        self._spare_bytes = 0
        self.usage: DriveUsage | None = None

    def measured(self, total: int, free: int, spare: int) -> None:
        """What the file system says, and what is `spare` in the index."""
        self.usage = DriveUsage(total=total, free=free)
        self._spare_bytes, self._staged_bytes = spare, 0

    def take(self, size: int) -> bool:
        """Set `size` bytes aside for a stage; False: they are not there."""
        if self.usage is None:
            return True
        free = self.usage.free + (self._spare_bytes if size <= ROW_SHARD_BYTES else 0)
        if self._staged_bytes + size > free - self._reserve(self.usage):
            return False
        self._staged_bytes += size
        return True

    def judge(self, state: DriveState) -> DriveState:
        """The state of a drive that was active or full. READONLY below the reserve, CROWDED below half of it.

        It is left again above the reserve, and for good above one and a half of it.
        """
        if self.usage is None or (state is not DriveState.ACTIVE and state not in FULL):
            return state
        free, reserve = self.usage.free + self._spare_bytes, self._reserve(self.usage)
        if free < reserve // 2 or (free < reserve and state is DriveState.CROWDED):
            return DriveState.CROWDED
        if free < reserve or (free <= reserve * 3 // 2 and state in FULL):
            return DriveState.READONLY
        return DriveState.ACTIVE

    def _reserve(self, usage: DriveUsage) -> int:
        wanted = max(self._min_free_bytes, int(usage.total * self._min_free_ratio))
        return min(wanted, usage.total // 10)
