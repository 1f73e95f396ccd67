"""Which erasure set a body goes to: its key's home set while that takes D shards, else another, by free space."""

from collections.abc import Sequence

import attrs

from cluster.drives.drive import FULL, STAGING, Drive
from cluster.errors import QuorumError, StorageFullError
from cluster.objects.context import Context
from cluster.placement import SetRoom, other_set
from cluster.quorum import Quorum, adaptive_data_shards, durable_shards


@attrs.frozen(kw_only=True)
class Target:
    """Where an attempt to store a body stages it, and how it is coded."""

    set_id: int
    drives: Sequence[Drive]
    k: int
    avoid: frozenset[int] = frozenset()  # positions that failed this body before


class DataSets:
    """For one body: `first`, and whatever comes `after` an attempt that failed."""

    def __init__(self, context: Context, home: int) -> None:
        self._context, self._layout, self._home = context, context.layout(), home
        self._tried: set[int] = set()

    def first(self) -> Target:
        """The home set if it can be. Raises StorageFullError, QuorumError."""
        layout, drives = self._layout, self._context.drives_of(self._home)
        live = _count_staging(drives)
        if live < self._needed:
            another = self._another()
            if another is not None:
                return another
        k = adaptive_data_shards(layout.k, layout.m, live)
        if k is not None:
            return self._target(self._home, k)
        weak = self._another_weak()
        if weak is not None:
            return weak
        if any(drive.state in FULL for drive in drives):
            raise StorageFullError(f"{live} of {layout.n} drives have room")
        raise QuorumError(Quorum(layout.n).accept, live, "can take shards")

    def after(
        self, failed: Target, lost: frozenset[int], error: QuorumError | StorageFullError
    ) -> Target:
        """Another set, or the same without the lost positions and with fewer data shards. Raises `error` where neither is left."""
        layout = self._layout
        another = self._another() if failed.k == layout.k else None
        if another is not None:
            return another
        avoid = failed.avoid | lost
        fewer = adaptive_data_shards(layout.k, layout.m, layout.n - len(avoid))
        if fewer is None or fewer >= failed.k:
            raise error
        return attrs.evolve(failed, k=fewer, avoid=avoid)

    @property
    def _needed(self) -> int:
        return durable_shards(self._layout.k, self._layout.n)

    def _target(self, set_id: int, k: int) -> Target:
        self._tried.add(set_id)
        return Target(set_id=set_id, drives=self._context.drives_of(set_id), k=k)

    def _another(self) -> Target | None:
        if len(self._layout.sets) == 1:
            return None
        roll = self._context.runtime.rng.random()
        chosen = other_set(self._rooms(), self._needed, roll)
        return None if chosen is None else self._target(chosen, self._layout.k)

    def _another_weak(self) -> Target | None:
        """The set with the most drives that take shards, for a code of fewer data shards."""
        best = max(self._rooms(), key=lambda room: room.staging, default=None)
        live = 0 if best is None else best.staging
        k = adaptive_data_shards(self._layout.k, self._layout.m, live)
        return None if best is None or k is None else self._target(best.set_id, k)

    def _rooms(self) -> list[SetRoom]:
        context = self._context
        rooms: list[SetRoom] = []
        for erasure_set in self._layout.sets:
            set_id = erasure_set.set_id
            if set_id != self._home and set_id not in self._tried:
                drives = context.drives_of(set_id)
                free = context.free_space.of(set_id, drives, context.nursery)
                rooms.append(SetRoom(set_id, _count_staging(drives), free))
        return rooms


def _count_staging(drives: Sequence[Drive]) -> int:
    return sum(drive.state in STAGING for drive in drives)
