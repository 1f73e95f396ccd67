"""How much room the sets have, as measured some seconds ago: no PUT waits for that."""

from collections.abc import Sequence

import trio

from cluster.drives.drive import STAGING, Drive, DriveError

MEASURED_SECONDS = 5.0  # a set is not measured more often, and only while somebody asks


class FreeSpace:
    """Bytes free on the fullest drive of each set that takes shards; 0: not measured yet."""

    def __init__(self) -> None:
        self._free: dict[int, int] = {}
        self._measured_at: dict[int, float] = {}

    def of(self, set_id: int, drives: Sequence[Drive], nursery: trio.Nursery) -> int:
        """What is known; measures anew, in the nursery, what is too old."""
        now = trio.current_time()
        if now - self._measured_at.get(set_id, -MEASURED_SECONDS) >= MEASURED_SECONDS:
            self._measured_at[set_id] = now
            nursery.start_soon(self._measure, set_id, drives)
        return self._free.get(set_id, 0)

    async def _measure(self, set_id: int, drives: Sequence[Drive]) -> None:
        found: list[int] = []
        for drive in drives:
            if drive.state in STAGING:
                try:
                    status = await drive.status()
                except DriveError:
                    continue
                if status.usage is not None:
                    found.append(status.usage.free)
        self._free[set_id] = min(found, default=0)
