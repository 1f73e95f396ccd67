"""Changes of the system set, 1 -> 3 -> 5 -> 7 drives and back, by joint quorums, in three epochs.

    e+1  N learns:  an ACCEPT needs O and N, a read O       begin
    e+2  N leads:   an ACCEPT needs O and N, a read N       turn: N has taken what Qr of O hold, Qw of O hold e+1
    e+3  N alone                                            settle: N knows how far Qw of O, holding e+2, had promised

PROTOCOL.md section 2 drops O with e+2. Then a coordinator that is still at e+1 reads O, or the one drive of it, while
another at e+2 writes to N without it: the two do not meet. With the joint quorum in force for an epoch more, the reads
of each epoch meet the accepts of its neighbours, and old epochs are fenced by those who hold the newer one.

Drives of O that stay take what they missed like any other: each of them may lack what Qw of O have chosen, and of N there
may be so few that one counts. PROTOCOL.md has only those learn that are new.

A proposal that was prepared by O alone, and accepted by few, must not outrank what N alone chooses at a lower ballot later:
so every drive of N takes the ceilings of Qw of O as a floor before O is let go (the same as for a drive that is replaced).
"""

from collections import Counter
from collections.abc import Collection

from msgspec.structs import replace

from cluster.ids import DriveId
from cluster.layout import SYSTEM, SYSTEM_SIZES, Layout, Seat
from cluster.quorum import Quorum
from cluster.topology.changes import Evidence, refuse_in_flight
from cluster.topology.refusals import (
    NoSuchPlaceError,
    NotAdoptedError,
    NotSyncedError,
    NotThisStepError,
)


def choose_system_seats(
    layout: Layout, size: int, avoid: Collection[DriveId] = ()
) -> tuple[Seat, ...]:
    """That many drives on as many nodes as possible; those that are system drives already are preferred.

    Raises NoSuchPlaceError where there are too few drives or the size is none of those allowed.
    """
    if size not in SYSTEM_SIZES:
        raise NoSuchPlaceError(f"no system set of {size} drives: take 1, 3, 5 or 7")
    present = layout.system_seats
    voters = [p.seat for s in layout.sets for p in s.positions if p.voting and p.data_complete]
    # Present members first; the rest in the order of positions, which is interleaved across nodes.
    wanted = [s for s in dict.fromkeys((*present, *voters)) if s.drive not in avoid and s in voters]
    if len(wanted) < size:
        raise NoSuchPlaceError(
            f"{size} system drives are asked for and {len(wanted)} are fit for it: take a smaller size"
        )
    chosen: list[Seat] = []
    on_node: Counter[int] = Counter()
    while len(chosen) < size:
        fewest = min(on_node[seat.node] for seat in wanted if seat not in chosen)
        seat = next(s for s in wanted if s not in chosen and on_node[s.node] == fewest)
        chosen.append(seat)
        on_node[seat.node] += 1
    return tuple(chosen)


def begin_system_change(layout: Layout, size: int, *, avoid: Collection[DriveId] = ()) -> Layout:
    """First epoch: the drives that are to be the system set learn.

    `avoid`: drives that are dead or about to go. The caller has to know them: from here on nothing is accepted, not
    even the end of this change, without a majority of the new drives.
    """
    refuse_in_flight(layout)
    following = choose_system_seats(layout, size, avoid)
    if set(following) == set(layout.system_seats):
        raise NotThisStepError("the system set is like that already: nothing is to be done")
    epoch = layout.epoch + 1
    return replace(layout, epoch=epoch, system_next=following, system_since=epoch)


def cancel_system_change(layout: Layout) -> Layout:
    """Back to the old drives, which no epoch so far could do without; not after the turn."""
    if not layout.system_next:
        raise NotThisStepError(
            "no change of the system set can be cancelled: after the turn, settle it and change back"
        )
    return replace(layout, epoch=layout.epoch + 1, system_next=(), system_since=0)


def turn_system(layout: Layout, evidence: Evidence) -> Layout:
    """Second epoch: reads ask the new drives. Raises NotSyncedError, NotAdoptedError, NotThisStepError."""
    if not layout.system_next:
        raise NotThisStepError("the system set is not changing: begin that first")
    old = layout.system_seats
    quorum = Quorum(len(old))
    known = {seat.drive for seat in old}
    for seat in layout.system_next:
        heard = {
            drive
            for drive in known.intersection(evidence.synced.get(seat.drive, ()))
            if evidence.epochs.get(drive, 0) >= layout.system_since
        }
        held = heard | known.intersection([seat.drive])
        if len(held) < quorum.read:
            raise NotSyncedError(
                f"drive {seat.drive.hex()} has the system registers of {len(held)} drives and needs those of "
                f"{quorum.read}: wait for its sync, or cancel the change"
            )
    _refuse_unadopted(old, layout.system_since, evidence)
    epoch = layout.epoch + 1
    return replace(
        layout,
        epoch=epoch,
        system_set=SYSTEM,
        system=layout.system_next,
        system_next=(),
        system_previous=old,
        system_since=epoch,
    )


def settle_system(layout: Layout, evidence: Evidence) -> Layout:
    """Third epoch: the new drives alone. Raises NotAdoptedError, NotSyncedError, NotThisStepError."""
    if not layout.system_previous:
        raise NotThisStepError(
            "the system set was not turned over to new drives: begin, and turn it first"
        )
    _refuse_unadopted(layout.system_previous, layout.system_since, evidence)
    _refuse_unfenced(layout, evidence)
    return replace(layout, epoch=layout.epoch + 1, system_previous=(), system_since=0)


def _refuse_unfenced(layout: Layout, evidence: Evidence) -> None:
    old = {seat.drive for seat in layout.system_previous}
    needed = Quorum(len(old)).accept
    left = [seat for seat in layout.system if seat.drive not in evidence.gone]
    if len(left) < Quorum(len(layout.system)).accept:
        left = list(layout.system)  # such a set could decide nothing
    for seat in left:  # who died in its new office will never vote
        heard = {seat.drive, *evidence.synced.get(seat.drive, ())}
        fenced = {
            drive for drive in old & heard if evidence.epochs.get(drive, 0) >= layout.system_since
        }
        if len(fenced) < needed and not old - fenced <= set(evidence.gone):
            raise NotSyncedError(
                f"drive {seat.drive.hex()} knows how far {len(fenced)} of the old system drives have promised, and needs "
                f"{needed}, or all that are not gone: bring their nodes back, or vouch that they are gone"
            )


def _refuse_unadopted(old: Collection[Seat], epoch: int, evidence: Evidence) -> None:
    hold = sum(evidence.holds(seat.drive, epoch) for seat in old)
    needed = Quorum(len(old)).accept
    if hold < needed:
        raise NotAdoptedError(
            f"{hold} of the old system drives hold epoch {epoch}, and {needed} must: bring their nodes back, or vouch "
            f"that those which are missing are gone"
        )
