"""From drives to sets, and what a layout really tolerates: computed, never assumed."""

from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from cluster.erasure.profile import Profile, default_profile, parse_profile, whole_sets
from cluster.ids import DriveId, NodeId
from cluster.layout import ErasureSet, Position
from cluster.quorum import Quorum, adaptive_data_shards


def arrange(code: str | None, drives: int) -> tuple[str, list[tuple[int, int]]]:
    """The code, and (set, position) of each of a node's drives in order: drive i goes to set i mod sets.

    Raises ConfigError where they make no whole sets.
    """
    profile = parse_profile(code) if code is not None else default_profile(drives)
    sets = whole_sets(drives, profile)
    return str(profile), [(index % sets, index // sets) for index in range(drives)]


def form_sets(
    places: Sequence[tuple[DriveId, NodeId, int, int]], profile: Profile
) -> tuple[ErasureSet, ...]:
    """Sets from (drive, node, set, position). Every position must be there once."""
    by_set: dict[int, dict[int, Position]] = {}
    for drive, node, set_id, position in places:
        assert position not in by_set.setdefault(set_id, {})
        by_set[set_id][position] = Position(drive=drive, node=node)
    assert all(sorted(taken) == list(range(profile.n)) for taken in by_set.values())
    return tuple(
        ErasureSet(set_id=set_id, positions=tuple(by_set[set_id][p] for p in range(profile.n)))
        for set_id in sorted(by_set)
    )


@attrs.frozen(kw_only=True)
class Tolerance:
    """How many may be lost, in the worst case, so that requests begun afterwards still succeed."""

    read_drives: int
    write_drives: int
    full_drives: int  # lost drives up to which PUTs keep the full code (beyond: adaptive k)
    read_nodes: int
    write_nodes: int


def tolerates(sets: Sequence[ErasureSet], k: int, m: int) -> Tolerance:
    """What the weakest set of a layout survives, counted in drives and in whole nodes."""
    n = k + m
    quorum = Quorum(n)

    def can_read(lost: int) -> bool:
        return n - lost >= max(k, quorum.read)

    def can_write(lost: int) -> bool:
        return n - lost >= quorum.accept and adaptive_data_shards(k, m, n - lost) is not None

    def can_write_fully(lost: int) -> bool:
        return can_write(lost) and adaptive_data_shards(k, m, n - lost) == k

    def drives(holds: Callable[[int], bool]) -> int:
        return max((lost for lost in range(n) if holds(lost)), default=0)

    def nodes(holds: Callable[[int], bool]) -> int:
        return min(_nodes_lost(erasure_set, holds) for erasure_set in sets)

    return Tolerance(
        read_drives=drives(can_read),
        write_drives=drives(can_write),
        full_drives=drives(can_write_fully),
        read_nodes=nodes(can_read),
        write_nodes=nodes(can_write),
    )


def _nodes_lost(erasure_set: ErasureSet, holds: Callable[[int], bool]) -> int:
    """Whole nodes that may go, those with the most drives of the set first."""
    counts = sorted(Counter(p.node for p in erasure_set.positions).values(), reverse=True)
    lost = 0
    for gone, drives in enumerate(counts):
        lost += drives
        if not holds(lost):
            return gone
    return len(counts)
