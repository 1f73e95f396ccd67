"""What a layout really tolerates: computed from the layout, never assumed from the code.

Whether requests succeed is a conjunction of thresholds: of the drives M, at least t must be left. The fewest losses
that break a threshold are |M| - t + 1 drives, or as many whole nodes, taken in the order of how many drives of M they
hold, as make up that number. The layout breaks where its weakest threshold does, so the minimum is exact.
"""

from collections import Counter
from collections.abc import Sequence

import attrs

from cluster.layout import NAMED_SEATS, Layout, Seat
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


def tolerates(layout: Layout) -> Tolerance:
    """What the weakest set of the layout survives, counted in drives and in whole nodes; the system set counts too.

    Losses are of drives that the layout counts on: one that is already down has to be subtracted by the caller.
    """
    reads, writes = _of_the_system_set(layout)
    full = list(writes)
    quorum = Quorum(layout.n)
    for erasure_set in layout.sets:
        everyone = [p.seat for p in erasure_set.positions]
        voters = [p.seat for p in erasure_set.positions if p.voting]
        complete = [p.seat for p in erasure_set.positions if p.data_complete]
        reads += [Threshold(voters, quorum.read), Threshold(complete, layout.k)]
        accept = Threshold(voters, quorum.accept)
        writes += [accept, Threshold(everyone, fewest_live_for_a_put(layout.k, layout.m))]
        full += [accept, Threshold(everyone, durable_shards(layout.k, layout.n))]
    return Tolerance(
        read_drives=_drives(reads),
        write_drives=_drives(writes),
        full_drives=_drives(full),
        read_nodes=_nodes(reads),
        write_nodes=_nodes(writes),
    )


def fewest_live_for_a_put(k: int, m: int) -> int:
    """The live drives of a set below which the adaptive rule refuses a PUT."""
    n = k + m
    return min(live for live in range(1, n + 1) if adaptive_data_shards(k, m, live) is not None)


def _of_the_system_set(layout: Layout) -> tuple[list[Threshold], list[Threshold]]:
    """What reads and writes need of system drives that are no set of their own; without them no bucket is found."""
    if layout.system_set == NAMED_SEATS:
        quorum = Quorum(len(layout.system))
        reads = [Threshold(layout.system, quorum.read)]
        writes = [Threshold(layout.system, quorum.accept)]
    else:
        reads, writes = [], []  # the set is among the sets
    if layout.system_next:  # joint: an ACCEPT needs a majority of both
        following = layout.system_next
        writes.append(Threshold(following, Quorum(len(following)).accept))
    return reads, writes


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
