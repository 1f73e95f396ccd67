"""Who is asked about the registers of a set under a layout, and whose answers count; of the system set, also while it changes.

A quorum is met when every one of its groups is: while the system set changes from O to N, accepts need O and N
(Raft's joint consensus, Ongaro 2014, section 4.3), in two epochs: reads ask O in the first, while N still learns, and N
in the second. So the reads of either epoch meet the accepts of the other, and of their own.
"""

from collections.abc import Collection, Iterable

import attrs

from cluster.ids import DriveId
from cluster.layout import SYSTEM, Layout, Seat
from cluster.quorum import Electorate, Group, Quorum, of_all


@attrs.frozen
class Roll:
    """The drives that take part, of a set in order of position, and who of them votes."""

    seats: tuple[Seat, ...]
    electorate: Electorate

    def bitmap(self, drives: Collection[DriveId]) -> int:
        """These drives, as far as they take part, as the groups of the electorate count them."""
        return sum(1 << i for i, seat in enumerate(self.seats) if seat.drive in drives)


def roll_of(layout: Layout, set_id: int) -> Roll:
    """Of a set, or with SYSTEM of the system registers. Raises KeyError for a set that is not there."""
    if set_id == SYSTEM:
        return _system_roll(layout)
    positions = layout.erasure_set(set_id).positions
    voters = sum(1 << i for i, position in enumerate(positions) if position.voting)
    quorum = Quorum(layout.n)
    electorate = Electorate(Group(voters, quorum.read), (Group(voters, quorum.accept),))
    return Roll(tuple(position.seat for position in positions), electorate)


def _system_roll(layout: Layout) -> Roll:
    if layout.system_set == SYSTEM:
        seats, force = layout.system, of_all(len(layout.system))
    else:
        plain = roll_of(layout, layout.system_set)
        seats, force = plain.seats, plain.electorate
    joint = [others for others in (layout.system_next, layout.system_previous) if others]
    everyone = tuple(dict.fromkeys((*seats, *(seat for others in joint for seat in others))))
    groups = (Group(_indexes(everyone, others), Quorum(len(others)).accept) for others in joint)
    return Roll(everyone, Electorate(force.read, (*force.accept, *groups)))


def _indexes(everyone: tuple[Seat, ...], some: Iterable[Seat]) -> int:
    return sum(1 << everyone.index(seat) for seat in some)
