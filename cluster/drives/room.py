"""Free space of a drive: what stages may still promise, and when it is full. Pure."""

from cluster.drives.drive import DriveUsage


class Room:
    """Fed with measurements. Nothing is refused before the first."""

    def __init__(self, *, min_free_bytes: int, min_free_ratio: float) -> None:
        self._min_free_bytes, self._min_free_ratio = min_free_bytes, min_free_ratio
        self._staged_bytes = 0  # promised to stages since the free space was measured
        self.usage: DriveUsage | None = None

    def measured(self, total: int, free: int) -> None:
        """What the file system says."""
        self.usage = DriveUsage(total=total, free=free)
        self._staged_bytes = 0

    def take(self, size: int) -> bool:
        """Set `size` bytes aside for a stage; False: they are not there."""
        if self.usage is None:
            return True
        if self._staged_bytes + size > self.usage.free - self._reserve(self.usage):
            return False
        self._staged_bytes += size
        return True

    @property
    def is_short(self) -> bool:
        """Below the reserve: the drive is full."""
        return self.usage is not None and self.usage.free < self._reserve(self.usage)

    @property
    def is_ample(self) -> bool:
        """Above one and a half of the reserve: a full drive takes shards again."""
        return self.usage is not None and self.usage.free > self._reserve(self.usage) * 3 // 2

    def _reserve(self, usage: DriveUsage) -> int:
        wanted = max(self._min_free_bytes, int(usage.total * self._min_free_ratio))
        return min(wanted, usage.total // 10)
