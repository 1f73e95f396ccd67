"""The room on one drive: what was free when it was measured, and what stages were promised since. Pure."""

from cluster.drives.drive import DriveUsage


class Space:
    """Keeps a reserve for the index and for deletes: the larger of two bounds, at most a tenth of the file system."""

    def __init__(self, min_free_bytes: int, min_free_ratio: float) -> None:
        self._min_free_bytes, self._min_free_ratio = min_free_bytes, min_free_ratio
        self._promised = 0
        self.usage: DriveUsage | None = None  # None: not measured yet

    def measured(self, total: int, free: int) -> None:
        """What the file system says now; what was promised before is in it, or is promised again."""
        self.usage = DriveUsage(total=total, free=free)
        self._promised = 0

    def promise(self, size: int) -> bool:
        """Set `size` bytes aside for a stage; False: they are not there."""
        if self.usage is None:
            return True
        if self._promised + size > self.usage.free - self._reserve(self.usage):
            return False
        self._promised += size
        return True

    @property
    def is_short(self) -> bool:
        """Whether less than the reserve is free."""
        return self.usage is not None and self.usage.free < self._reserve(self.usage)

    @property
    def is_ample(self) -> bool:
        """Whether one and a half of the reserve is free: a drive that was full takes shards again."""
        return self.usage is not None and self.usage.free > self._reserve(self.usage) * 3 // 2

    def _reserve(self, usage: DriveUsage) -> int:
        wanted = max(self._min_free_bytes, int(usage.total * self._min_free_ratio))
        return min(wanted, usage.total // 10)
