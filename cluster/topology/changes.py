"""Changes of the layout: functions from a layout to the one of the next epoch, or a refusal that says what to do.

A drive that takes over a position goes through three layouts. It comes without a vote; it takes the rows of Qr other
drives that have adopted that epoch; then it votes, but only after Qw of the drives that voted before it came hold that
epoch: else a coordinator on the far side of a partition could still read Qr of them and miss what was written with the
new one's vote (PROTOCOL 1.11, activation rule). And it has to know how far Qw of these had promised: what its predecessor
promised is lost, and a proposal that lives of that promise would outrank what the new drive helps to choose. Only drives that *voted* then are counted: of drives that were
rebuilding themselves no old coordinator needs an answer, so that theirs proves nothing.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import attrs
from msgspec.structs import replace

from cluster.erasure.profile import Profile
from cluster.ids import DriveId, NodeId
from cluster.layout import Layout, LayoutError, Node, Pool, Position, Seat, check_layout
from cluster.quorum import Quorum
from cluster.topology.formation import CrowdedNodeError, form_pool
from cluster.topology.refusals import (
    ChangeInFlightError,
    DataLossError,
    DriveInUseError,
    LayoutRefusedError,
    NoSuchPlaceError,
    NotAdoptedError,
    NotSyncedError,
    NotThisStepError,
    StillInUseError,
    SystemMemberError,
    TooFewRemainError,
)


@attrs.frozen
class Place:
    """A position of a set."""

    set_id: int
    position: int

    def __str__(self) -> str:
        return f"position {self.position} of set {self.set_id}"


@attrs.frozen(kw_only=True)
class Evidence:
    """What is known of drives, asked of them and not assumed."""

    epochs: Mapping[DriveId, int] = attrs.field(factory=dict)  # the layout that each durably holds
    synced: Mapping[DriveId, Collection[DriveId]] = attrs.field(
        factory=dict
    )  # a drive that learns -> those whose rows it took, all of them, after they had adopted the epoch in which it came
    gone: Collection[DriveId] = ()  # the operator vouches: this drive will never answer again

    def holds(self, drive: DriveId, epoch: int) -> bool:
        """Whether it can give no vote in an epoch before that any more."""
        return self.epochs.get(drive, 0) >= epoch or drive in self.gone


# -- nodes and pools


def add_node(layout: Layout, node: Node) -> Layout:
    """A node joins, without data. Raises DriveInUseError for an id that is taken."""
    if any(node.node == known.node for known in layout.nodes):
        raise DriveInUseError(f"node {node.node} is a member already: remove it first")
    return _next(layout, nodes=(*layout.nodes, node))


def remove_node(layout: Layout, node: NodeId) -> Layout:
    """A node leaves; its drives have to be formatted before they can come back. Raises StillInUseError."""
    if all(node != known.node for known in layout.nodes):
        raise NoSuchPlaceError(f"no node {node}: `node list` shows the nodes")
    uses = sorted(_uses(layout, node))
    if uses:
        raise StillInUseError(
            f"node {node} still has {', '.join(uses[:6])}{' and more' if len(uses) > 6 else ''}: move or replace "
            f"what is there, and wait until it is complete"
        )
    return _next(layout, nodes=tuple(known for known in layout.nodes if known.node != node))


def _uses(layout: Layout, node: NodeId) -> set[str]:
    uses = {
        str(Place(s.set_id, number))
        for s in layout.sets
        for number, p in enumerate(s.positions)
        if any(seat is not None and seat.node == node for seat in (p.seat, p.learner, p.previous))
    }
    system = (*layout.system, *layout.system_next, *layout.system_previous)
    return uses | ({"a system drive"} if any(seat.node == node for seat in system) else set())


def add_pool(
    layout: Layout, name: str, drives_of: Mapping[NodeId, Sequence[DriveId]], *, force: bool = False
) -> Layout:
    """New sets over new drives of member nodes. Raises LayoutRefusedError, CrowdedNodeError, ConfigError."""
    refuse_in_flight(layout)
    for node, drives in drives_of.items():
        for drive in drives:
            _refuse_used(layout, Seat(drive, node))
    first = len(layout.sets)
    sets = form_pool(
        drives_of, Profile(layout.k, layout.m), first_set=first, since=layout.epoch + 1, force=force
    )
    pool = Pool(name, tuple(range(first, first + len(sets))))
    if any(known.name == name for known in layout.all_pools):
        raise DriveInUseError(f"there is a pool of the name {name!r}: choose another name")
    return _next(layout, sets=(*layout.sets, *sets), pools=(*layout.all_pools, pool))


# -- a dead drive


def replace_drive(
    layout: Layout,
    place: Place,
    new: Seat,
    *,
    accept_data_loss: bool = False,
    force: bool = False,
) -> Layout:
    """Another drive takes the place of one that is dead, or that was to take it and died; it rebuilds.

    Needs Qr other voting drives, from which it will learn; several positions may be rebuilding at once.
    """
    old = position_at(layout, place)
    others = _others(layout, place)
    _refuse_system_member(layout, place, old)
    if new != old.learner:
        _refuse_used(layout, new)
    _refuse_crowd(layout, place, new, force=force)
    needed = Quorum(layout.n).read
    _refuse_few(place, sum(p.voting for p in others), needed, "put a drive of this set back first")
    complete = sum(p.data_complete for p in others)
    if complete < layout.k and not accept_data_loss:
        raise DataLossError(
            f"set {place.set_id} would have {complete} complete positions, and its code needs {layout.k}: data would be "
            f"lost. Put drives back, wait for rebuilding ones, or accept the loss explicitly"
        )
    return _put(layout, place, _rebuilding(layout, old, new))


def _rebuilding(layout: Layout, old: Position, new: Seat) -> Position:
    epoch = layout.epoch + 1
    return Position(
        drive=new.drive,
        node=new.node,
        voting=False,
        data_complete=False,
        since=epoch,
        # The last that voted is the one whose vote has to be fenced, also after several that never did.
        previous=old.seat if old.voting else old.previous,
        vote_since=epoch if old.voting else old.vote_since,
    )


# -- moving a position


def begin_move(layout: Layout, place: Place, to: Seat, *, force: bool = False) -> Layout:
    """First step: `to` may be given shards in advance; the present drive votes on.

    It gets no rows yet: what all members purge meanwhile it would keep, and bring back when it votes.
    """
    refuse_in_flight(layout)
    old = position_at(layout, place)
    _refuse_system_member(layout, place, old)
    _refuse_used(layout, to)
    _refuse_crowd(layout, place, to, force=force)
    if old.previous is not None or not old.data_complete:
        raise NotThisStepError(f"{place} is not complete itself: wait until it is healed")
    _refuse_weak(layout, place)
    return _put(layout, place, replace(old, learner=to))


def switch_move(layout: Layout, place: Place) -> Layout:
    """Second step: the learner has the position and takes its rows; the drive before it is one of its sources."""
    old = position_at(layout, place)
    if old.learner is None:
        raise NotThisStepError(f"nothing is moved at {place}: begin the move first")
    _refuse_weak(layout, place)
    return _put(layout, place, _rebuilding(layout, old, old.learner))


def cancel_move(layout: Layout, place: Place) -> Layout:
    """Forget a move that was begun and not switched."""
    old = position_at(layout, place)
    if old.learner is None:
        raise NotThisStepError(
            f"nothing is moved at {place} that could be cancelled: after the switch, let it end and move back"
        )
    return _put(layout, place, replace(old, learner=None))


# -- the end of both


def activate(layout: Layout, place: Place, evidence: Evidence) -> Layout:
    """The rebuilding drive votes. Raises NotSyncedError, NotAdoptedError, NotThisStepError."""
    old = position_at(layout, place)
    if old.voting:
        raise NotThisStepError(f"{place} votes already: go on to its data")
    quorum = Quorum(layout.n)
    sources = {p.drive for p in _others(layout, place) if p.voting}
    if old.previous is not None:
        sources.add(old.previous.drive)
    synced = [
        drive
        for drive in sources.intersection(evidence.synced.get(old.drive, ()))
        if evidence.epochs.get(drive, 0) >= old.since
    ]
    if len(synced) < quorum.read:
        raise NotSyncedError(
            f"{place} has the rows of {len(synced)} other drives and needs those of {quorum.read}: wait for its sync"
        )
    voted = _voters_before(layout, place)
    fenced = voted.intersection(synced)
    others = {p.drive for p in _others(layout, place) if p.voting}
    if len(fenced) < quorum.accept and not (voted | others) - set(synced) <= set(evidence.gone):
        raise NotSyncedError(
            f"{place} knows how far {len(fenced)} of the drives have promised that voted with the one before it, and needs "
            f"{quorum.accept}, or all that are not gone: bring their nodes back, or vouch that they are gone"
        )
    hold = sum(evidence.holds(drive, old.vote_since) for drive in voted)
    if hold < quorum.accept:
        raise NotAdoptedError(
            f"{hold} of the drives that voted in set {place.set_id} before epoch {old.vote_since} hold it, and "
            f"{quorum.accept} must: bring their nodes back, or vouch that the old drive is gone"
        )
    return _put(layout, place, replace(old, voting=True, vote_since=layout.epoch + 1))


def complete_data(layout: Layout, place: Place) -> Layout:
    """Every shard of the position lies on its drive: the one before it is forgotten. Raises NotThisStepError."""
    old = position_at(layout, place)
    if not old.voting or old.data_complete:
        raise NotThisStepError(
            f"{place} is complete: nothing is to be done"
            if old.voting
            else f"{place} is rebuilding: wait until it votes"
        )
    return _put(layout, place, replace(old, data_complete=True, previous=None))


def _voters_before(layout: Layout, place: Place) -> set[DriveId]:
    """Drives that surely voted in the last epoch in which the position did."""
    mine = position_at(layout, place)
    voted = {mine.previous.drive} if mine.previous is not None else set()
    for other in _others(layout, place):
        if other.voting:
            if other.vote_since < mine.vote_since:
                voted.add(other.drive)
        elif other.vote_since >= mine.vote_since and other.previous is not None:
            voted.add(other.previous.drive)
    return voted


# -- shared


def position_at(layout: Layout, place: Place) -> Position:
    """The position. Raises NoSuchPlaceError."""
    if 0 <= place.set_id < len(layout.sets) and 0 <= place.position < layout.n:
        return layout.sets[place.set_id].positions[place.position]
    raise NoSuchPlaceError(f"no {place}: `cluster status` shows the sets")


def refuse_in_flight(layout: Layout) -> None:
    """Raise ChangeInFlightError while a drive learns or rebuilds, or the system set changes."""
    for erasure_set in layout.sets:
        for number, position in enumerate(erasure_set.positions):
            if position.learner is not None or not position.voting:
                place = Place(erasure_set.set_id, number)
                raise ChangeInFlightError(f"{place} is changing: wait until that is through")
    if layout.system_next or layout.system_previous:
        raise ChangeInFlightError("the system set is changing: finish or cancel that first")


def _others(layout: Layout, place: Place) -> list[Position]:
    positions = layout.sets[place.set_id].positions
    return [p for number, p in enumerate(positions) if number != place.position]


def _refuse_weak(layout: Layout, place: Place) -> None:
    """What somebody wants, and nothing forces, must leave writes possible and wait for the set to be whole."""
    others = _others(layout, place)
    for number, position in enumerate(layout.sets[place.set_id].positions):
        if number != place.position and not (position.voting and position.data_complete):
            raise ChangeInFlightError(
                f"{Place(place.set_id, number)} is {'partial' if position.voting else 'rebuilding'}: wait until the set is whole"
            )
    needed = Quorum(layout.n).accept
    _refuse_few(place, len(others), needed, "put new objects into another set instead")


def _refuse_few(place: Place, remain: int, needed: int, instead: str) -> None:
    if remain < needed:
        raise TooFewRemainError(
            f"{remain} voting drives of set {place.set_id} would remain, and {needed} must: {instead}"
        )


def _refuse_used(layout: Layout, new: Seat) -> None:
    if layout.nodes and all(new.node != node.node for node in layout.nodes):
        raise NoSuchPlaceError(f"node {new.node} is no member: let it join first")
    if any(seat.drive == new.drive for seat in layout.seats()):
        raise DriveInUseError(
            f"drive {new.drive.hex()} has a place in the layout: take an empty one"
        )


def _refuse_crowd(layout: Layout, place: Place, new: Seat, *, force: bool) -> None:
    old = position_at(layout, place)
    on_nodes = Counter(p.node for p in _others(layout, place))
    if not force and new.node != old.node and on_nodes[new.node] + 1 > layout.m:
        roomy = [n.node for n in layout.nodes if on_nodes[n.node] < layout.m]
        choices = (
            f"take a drive of node {' or '.join(map(str, roomy[:3]))}" if roomy else "add a node"
        )
        raise CrowdedNodeError(
            f"set {place.set_id} would have {on_nodes[new.node] + 1} drives on node {new.node}, and survives the loss of "
            f"{layout.m}: {choices}, or force it"
        )


def _refuse_system_member(layout: Layout, place: Place, old: Position) -> None:
    system = (*layout.system, *layout.system_next, *layout.system_previous)
    changing = bool(layout.system_next or layout.system_previous)
    if old.seat in system or (changing and place.set_id == layout.system_set):
        raise SystemMemberError(
            f"the drive at {place} holds system registers: change the system set to other drives first"
        )


def _put(layout: Layout, place: Place, position: Position) -> Layout:
    erasure_set = layout.sets[place.set_id]
    positions = list(erasure_set.positions)
    positions[place.position] = position
    sets = list(layout.sets)
    sets[place.set_id] = replace(erasure_set, positions=tuple(positions))
    return _next(layout, sets=tuple(sets))


def _next(layout: Layout, **changes: object) -> Layout:
    changed = replace(layout, epoch=layout.epoch + 1, **changes)
    try:
        check_layout(changed)
    except LayoutError as error:
        raise LayoutRefusedError(f"{error}: check what was given") from error
    return changed
