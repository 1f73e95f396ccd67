"""From drives to sets: interleaved node by node, and refused where one node's loss would be a set's loss."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from cluster.erasure.profile import MAX_SHARDS, Profile, default_profile, parse_profile, whole_sets
from cluster.errors import ConfigError
from cluster.ids import DriveId, NodeId
from cluster.layout import ErasureSet, Position, Seat

CHOICES_NAMED = 3  # workable codes that a refusal names


class CrowdedNodeError(ConfigError):
    """A node would hold more than m shards of a set; the message names the nearest choices that work."""


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


def interleave(drives_of: Mapping[NodeId, Sequence[DriveId]]) -> list[Seat]:
    """Drives node by node: N1D0, N2D0, N3D0, N1D1, … A node that has no more is left out of the later rounds."""
    rounds = zip_longest(
        *([Seat(drive, node) for drive in drives] for node, drives in drives_of.items())
    )
    return [seat for around in rounds for seat in around if seat is not None]


def form_pool(
    drives_of: Mapping[NodeId, Sequence[DriveId]],
    profile: Profile,
    *,
    first_set: int = 0,
    since: int = 1,
    force: bool = False,
) -> tuple[ErasureSet, ...]:
    """New sets over these drives, with set ids from `first_set` on; set s takes the next n of the interleaved drives.

    Raises ConfigError where drives would be left over, CrowdedNodeError where a set would have more than m drives on
    one node and `force` is not given.
    """
    order = interleave(drives_of)
    sets = whole_sets(len(order), profile)
    cut = [order[index * profile.n :][: profile.n] for index in range(sets)]
    if not force:
        _refuse_crowds(drives_of, cut, profile, first_set)
    return tuple(
        ErasureSet(
            set_id=first_set + index,
            positions=tuple(
                Position(drive=s.drive, node=s.node, since=since, vote_since=since) for s in seats
            ),
        )
        for index, seats in enumerate(cut)
    )


def crowd(seats: Sequence[Seat]) -> tuple[NodeId, int]:
    """The node with the most of these drives, and how many those are."""
    return Counter(seat.node for seat in seats).most_common(1)[0]


def _refuse_crowds(
    drives_of: Mapping[NodeId, Sequence[DriveId]],
    cut: Sequence[Sequence[Seat]],
    profile: Profile,
    first_set: int,
) -> None:
    for index, seats in enumerate(cut):
        node, count = crowd(seats)
        if count > profile.m:
            raise CrowdedNodeError(
                f"set {first_set + index} would have {count} of its {profile.n} drives on node {node}, and {profile} "
                f"survives the loss of {profile.m}: {_choices(drives_of, profile)}, or force it"
            )


def _choices(drives_of: Mapping[NodeId, Sequence[DriveId]], profile: Profile) -> str:
    codes = workable_codes(drives_of, profile)
    ways = []
    if profile.m:
        enough = -(-profile.n // profile.m)
        if enough > len(drives_of):
            ways.append(f"spread the drives evenly over {enough} nodes")
        else:
            ways.append("give every node the same number of drives")
    if codes:
        ways.append(f"take {' or '.join(map(str, codes))}")
    return ", or ".join(ways) if ways else "no code keeps these drives apart; add nodes"


def workable_codes(drives_of: Mapping[NodeId, Sequence[DriveId]], wanted: Profile) -> list[Profile]:
    """The codes next to the wanted one that form whole sets of these drives, at most m of each on one node."""
    order = interleave(drives_of)
    found = []
    for n in range(2, min(MAX_SHARDS, len(order)) + 1):
        if len(order) % n:
            continue
        worst = max(crowd(order[at : at + n])[1] for at in range(0, len(order), n))
        found += [Profile(n - m, m) for m in range(worst, n // 2 + 1)]
    found.sort(key=lambda code: (abs(code.n - wanted.n), abs(code.m - wanted.m), code.n, code.m))
    return found[:CHOICES_NAMED]
