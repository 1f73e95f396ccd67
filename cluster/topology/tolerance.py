"""What a layout really tolerates: computed from the layout, never assumed from the code.

Whether requests succeed is a conjunction of thresholds: of the drives M, at least t must be left. The fewest losses
that break a threshold are |M| - t + 1 drives, or as many whole nodes, taken in the order of how many drives of M they
hold, as make up that number. The layout breaks where its weakest threshold does, so the minimum is exact.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import attrs

from cluster.ids import DriveId
from cluster.layout import SYSTEM, ErasureSet, Layout, Seat
from cluster.quorum import Quorum, adaptive_data_shards, durable_shards


@attrs.frozen(kw_only=True)
class Tolerance:
    """How many may be lost, in the worst case, so that requests begun afterwards still succeed.

    -1: not even now, as with too many drives rebuilding.
    """

    read_drives: int
    write_drives: int
    full_drives: int  # lost drives up to which PUTs keep the full code (beyond: adaptive k)
    read_nodes: int
    write_nodes: int


@attrs.frozen
class Threshold:
    """At least `needed` of the drives must be left."""

    seats: Sequence[Seat]
    needed: int


def tolerates(layout: Layout, down: Collection[DriveId] = ()) -> Tolerance:
    """What the weakest set of the layout survives, counted in drives and in whole nodes; the system set counts too.

    `down`: drives that are lost already; what is counted are further ones.
    """
    needs = _needs_of_the_system_set(layout, down)
    for erasure_set in layout.sets:
        needs.add(_needs_of_a_set(layout, erasure_set, down))
    return needs.tolerance()


def set_tolerates(layout: Layout, set_id: int, down: Collection[DriveId] = ()) -> Tolerance:
    """What one set survives by itself. Raises KeyError for one that the layout does not have."""
    return _needs_of_a_set(layout, layout.erasure_set(set_id), down).tolerance()


@attrs.define
class _Needs:
    """The thresholds of reads, of writes, and of writes with the full code."""

    reads: list[Threshold] = attrs.field(factory=list)
    writes: list[Threshold] = attrs.field(factory=list)
    full: list[Threshold] = attrs.field(factory=list)

    def add(self, other: "_Needs") -> None:
        self.reads += other.reads
        self.writes += other.writes
        self.full += other.full

    def tolerance(self) -> Tolerance:
        return Tolerance(
            read_drives=_drives(self.reads),
            write_drives=_drives(self.writes),
            full_drives=_drives(self.full),
            read_nodes=_nodes(self.reads),
            write_nodes=_nodes(self.writes),
        )


def _needs_of_a_set(layout: Layout, erasure_set: ErasureSet, down: Collection[DriveId]) -> _Needs:
    up = [p for p in erasure_set.positions if p.drive not in down]
    everyone = [p.seat for p in up]
    voters = [p.seat for p in up if p.voting]
    complete = [p.seat for p in up if p.data_complete]
    quorum = Quorum(layout.n)
    accept = Threshold(voters, quorum.accept)
    return _Needs(
        reads=[Threshold(voters, quorum.read), Threshold(complete, layout.k)],
        writes=[accept, Threshold(everyone, fewest_live_for_a_put(layout.k, layout.m))],
        full=[accept, Threshold(everyone, durable_shards(layout.k, layout.n))],
    )


def fewest_live_for_a_put(k: int, m: int) -> int:
    """The live drives of a set below which the adaptive rule refuses a PUT."""
    n = k + m
    return min(live for live in range(1, n + 1) if adaptive_data_shards(k, m, live) is not None)


def _needs_of_the_system_set(layout: Layout, down: Collection[DriveId]) -> _Needs:
    """What is needed of system drives that are no set of their own, or are not yet; without them no bucket is found."""
    groups = (layout.system_next, layout.system_previous)  # joint: an ACCEPT needs all of them
    accepts = [_of(seats, Quorum(len(seats)).accept, down) for seats in groups if seats]
    reads: list[Threshold] = []
    if layout.system_set == SYSTEM:
        quorum = Quorum(len(layout.system))
        reads.append(_of(layout.system, quorum.read, down))
        accepts.append(_of(layout.system, quorum.accept, down))
    return _Needs(reads=reads, writes=accepts, full=list(accepts))


def _of(seats: Sequence[Seat], needed: int, down: Collection[DriveId]) -> Threshold:
    return Threshold([seat for seat in seats if seat.drive not in down], needed)


def _drives(thresholds: Sequence[Threshold]) -> int:
    return max(-1, min(len(t.seats) - t.needed for t in thresholds))


def _nodes(thresholds: Sequence[Threshold]) -> int:
    return min(_nodes_lost(t) for t in thresholds)


def _nodes_lost(threshold: Threshold) -> int:
    """Whole nodes that may go, those with the most of the drives first."""
    left = len(threshold.seats)
    if left < threshold.needed:
        return -1
    fullest = Counter(seat.node for seat in threshold.seats).most_common()
    for gone, (_, drives) in enumerate(fullest):
        left -= drives
        if left < threshold.needed:
            return gone
    raise AssertionError("no threshold is met by nothing")
