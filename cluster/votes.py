"""Whose answers make a quorum under a layout: of a set, and of the system set while it changes.

A quorum is met when every one of its groups is: while the system set changes from O to N, accepts need O and N
(Raft's joint consensus, Ongaro 2014, section 4.3), in two epochs: reads ask O in the first, while N still learns, and N
in the second. So the reads of either epoch meet the accepts of the other, and of their own.
"""

from collections.abc import Collection

import attrs

from cluster.ids import DriveId
from cluster.layout import NAMED_SEATS, Layout, Seat
from cluster.quorum import Quorum


@attrs.frozen
class Group:
    """At least `needed` of these drives."""

    drives: frozenset[DriveId]
    needed: int

    def is_met(self, answered: Collection[DriveId]) -> bool:
        """Whether enough of them answered."""
        return len(self.drives.intersection(answered)) >= self.needed


@attrs.frozen
class Votes:
    """Every one of the groups."""

    groups: tuple[Group, ...]

    def are_met(self, answered: Collection[DriveId]) -> bool:
        """Whether these drives make a quorum."""
        return all(group.is_met(answered) for group in self.groups)


def accept_votes(layout: Layout, set_id: int) -> Votes:
    """Accepts that make a value chosen; NAMED_SEATS stands for the system drives that are named."""
    if set_id != NAMED_SEATS:
        groups = [Group(_voters(layout, set_id), Quorum(layout.n).accept)]
    else:
        groups = [_majority(layout.system)]
    if set_id == layout.system_set:
        groups += [_majority(s) for s in (layout.system_next, layout.system_previous) if s]
    return Votes(tuple(groups))


def read_votes(layout: Layout, set_id: int) -> Votes:
    """Promises or answers that meet every accept quorum. Raises KeyError for a set that is not there."""
    if set_id != NAMED_SEATS:
        return Votes((Group(_voters(layout, set_id), Quorum(layout.n).read),))
    seats = layout.system
    return Votes((Group(_drives(seats), Quorum(len(seats)).read),))


def _voters(layout: Layout, set_id: int) -> frozenset[DriveId]:
    return frozenset(p.drive for p in layout.erasure_set(set_id).positions if p.voting)


def _drives(seats: Collection[Seat]) -> frozenset[DriveId]:
    return frozenset(seat.drive for seat in seats)


def _majority(seats: Collection[Seat]) -> Group:
    return Group(_drives(seats), Quorum(len(seats)).accept)
