"""Each change of the layout by hand: what it makes of the layout, and what it refuses."""

import pytest
from msgspec.structs import replace

from cluster.ids import NodeId
from cluster.layout import SYSTEM, ErasureSet, Node
from cluster.topology.changes import (
    Evidence,
    Place,
    activate,
    add_node,
    add_pool,
    begin_move,
    cancel_move,
    complete_data,
    remove_node,
    replace_drive,
    switch_move,
)
from cluster.topology.formation import CrowdedNodeError
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
from cluster.topology.system_changes import (
    begin_system_change,
    cancel_system_change,
    choose_system_seats,
    settle_system,
    turn_system,
)
from tests.topology.layouts import make_layout, seat

LAYOUT = make_layout(6, 1, 4, 2)  # Qw 4, Qr 3
FIRST, SECOND, THIRD = Place(0, 0), Place(0, 1), Place(0, 2)
NEW, OTHER, MORE = seat(1, 7), seat(2, 7), seat(3, 7)


def at(layout, place):
    return layout.sets[place.set_id].positions[place.position]


def evidence(layout, new, sources, *, hold=(), epoch=None, gone=()):
    """`sources` were read by the new drive at this epoch; `hold` have adopted it, too."""
    epoch = epoch or layout.epoch
    drives = [s.drive for s in sources]
    return Evidence(
        epochs=dict.fromkeys([*drives, *(s.drive for s in hold)], epoch),
        synced={new.drive: drives},
        gone=[s.drive for s in gone],
    )


# -- replacing


def test_a_replaced_drive_rebuilds_then_votes_then_is_complete():
    rebuilding = replace_drive(LAYOUT, FIRST, NEW)
    position = at(rebuilding, FIRST)
    assert (rebuilding.epoch, position.seat, position.previous) == (2, NEW, seat(1, 0))
    assert (position.voting, position.data, position.since, position.vote_since) == (
        False, "partial", 2, 2,
    )  # fmt: skip
    others = [seat(i, 0) for i in (2, 3, 4, 5)]
    voting = activate(rebuilding, FIRST, evidence(rebuilding, NEW, others))
    position = at(voting, FIRST)
    assert (voting.epoch, position.voting, position.data, position.vote_since) == (
        3,
        True,
        "partial",
        3,
    )
    assert position.previous == seat(1, 0)  # still a source of shards
    whole = complete_data(voting, FIRST)
    assert (at(whole, FIRST).data, at(whole, FIRST).previous) == ("complete", None)


def test_activation_needs_rows_of_a_read_quorum_that_had_adopted_the_epoch():
    rebuilding = replace_drive(LAYOUT, FIRST, NEW)
    many = [seat(i, 0) for i in (2, 3, 4, 5)]
    with pytest.raises(NotSyncedError, match="2 other drives and needs those of 3"):
        activate(rebuilding, FIRST, evidence(rebuilding, NEW, many[:2], hold=many))
    with pytest.raises(NotSyncedError):
        activate(rebuilding, FIRST, evidence(rebuilding, NEW, many, epoch=1))
    with pytest.raises(NotSyncedError):  # a drive of no consequence does not count
        activate(rebuilding, FIRST, evidence(rebuilding, NEW, [*many[:2], seat(9, 9)], hold=many))


def test_activation_needs_the_ceilings_of_an_accept_quorum_or_of_all_that_are_left():
    """What the lost drive promised is known from one that promised it, too; or nobody is left that could live of it."""
    rebuilding = replace_drive(LAYOUT, FIRST, NEW)
    three, old = [seat(i, 0) for i in (2, 3, 4)], seat(1, 0)
    for less in ({}, {"hold": [old]}, {"gone": [old]}, {"hold": [seat(5, 0)]}):
        with pytest.raises(NotSyncedError, match=r"3 of the drives.*needs 4"):
            activate(rebuilding, FIRST, evidence(rebuilding, NEW, three, **less))
    for four in ([*three, seat(5, 0)], [*three, old]):
        assert activate(rebuilding, FIRST, evidence(rebuilding, NEW, four)).epoch == 3
    left = [old, seat(5, 0), seat(6, 0)]
    assert activate(rebuilding, FIRST, evidence(rebuilding, NEW, three, gone=left)).epoch == 3


def test_drives_that_were_rebuilding_do_not_count_as_having_voted():
    """2+2, two replaced one after the other. Were the first newcomer counted, the two old drives could still read."""
    layout = make_layout(4, 1, 2, 2)  # Qw 3, Qr 2
    both = replace_drive(replace_drive(layout, FIRST, NEW), SECOND, OTHER)
    rest, old, second_old = [seat(3, 0), seat(4, 0)], seat(1, 0), seat(2, 0)
    with pytest.raises(NotSyncedError, match="2 of the drives"):
        activate(both, SECOND, evidence(both, OTHER, [*rest, NEW]))
    assert activate(both, SECOND, evidence(both, OTHER, rest, gone=[second_old]))
    # The first ceased to vote while the second still did.
    assert activate(both, FIRST, evidence(both, NEW, [*rest, old]))
    with pytest.raises(NotSyncedError):
        activate(both, FIRST, evidence(both, NEW, rest, gone=[old]))
    # A position that votes again since is counted by no drive; but what its drive has taken over counts.
    again = activate(both, SECOND, evidence(both, OTHER, rest, gone=[second_old]))
    with pytest.raises(NotSyncedError):
        activate(again, FIRST, evidence(again, NEW, rest, gone=[old]))
    with pytest.raises(NotSyncedError):
        activate(again, FIRST, evidence(again, NEW, [*rest, OTHER]))
    assert activate(again, FIRST, evidence(again, NEW, [*rest, OTHER], gone=[old]))


def test_the_drive_that_voted_last_is_remembered_over_several_that_never_did():
    twice = replace_drive(replace_drive(LAYOUT, FIRST, NEW), FIRST, seat(1, 8))
    position = at(twice, FIRST)
    assert (position.seat, position.previous) == (seat(1, 8), seat(1, 0))
    assert (position.since, position.vote_since) == (3, 2)


def test_replacing_stops_where_fewer_than_a_read_quorum_would_vote():
    two = replace_drive(replace_drive(LAYOUT, FIRST, NEW), SECOND, OTHER)
    with pytest.raises(DataLossError, match=r"3 complete positions.*needs 4"):
        replace_drive(two, THIRD, MORE)
    three = replace_drive(two, THIRD, MORE, accept_data_loss=True)
    with pytest.raises(TooFewRemainError, match=r"2 voting drives.*3 must"):
        replace_drive(three, Place(0, 3), seat(4, 7), accept_data_loss=True)


def test_drives_with_a_place_unknown_nodes_and_crowds_are_refused():
    with pytest.raises(DriveInUseError):
        replace_drive(LAYOUT, FIRST, seat(2, 0))
    with pytest.raises(NoSuchPlaceError):
        replace_drive(LAYOUT, FIRST, seat(77, 0))
    with pytest.raises(NoSuchPlaceError):
        replace_drive(LAYOUT, Place(1, 0), NEW)
    with pytest.raises(NoSuchPlaceError):
        replace_drive(LAYOUT, Place(0, 6), NEW)
    crowded = make_layout(3, 2, 4, 2)
    with pytest.raises(CrowdedNodeError, match="3 drives on node 2"):
        replace_drive(crowded, FIRST, OTHER)
    assert replace_drive(crowded, FIRST, OTHER, force=True)
    assert replace_drive(crowded, FIRST, NEW)


# -- moving


def test_a_move_learns_then_switches_then_votes():
    learning = begin_move(LAYOUT, FIRST, NEW)
    assert (at(learning, FIRST).seat, at(learning, FIRST).voting) == (seat(1, 0), True)
    assert at(learning, FIRST).learner == NEW
    switched = switch_move(learning, FIRST)
    position = at(switched, FIRST)
    assert (position.seat, position.previous, position.voting) == (NEW, seat(1, 0), False)
    assert (position.vote_since, position.learner) == (3, None)
    # The drive before counts as a source, once it has adopted the switch.
    sources = [seat(1, 0), seat(2, 0), seat(3, 0)]
    voting = activate(switched, FIRST, evidence(switched, NEW, [*sources, seat(4, 0)]))
    assert at(complete_data(voting, FIRST), FIRST).previous is None


def test_a_move_can_be_cancelled_until_the_switch():
    learning = begin_move(LAYOUT, FIRST, NEW)
    assert at(cancel_move(learning, FIRST), FIRST) == at(LAYOUT, FIRST)
    with pytest.raises(NotThisStepError):
        cancel_move(switch_move(learning, FIRST), FIRST)
    with pytest.raises(NotThisStepError):
        switch_move(LAYOUT, FIRST)


def test_a_voluntary_change_waits_for_the_set_to_be_whole():
    rebuilding = replace_drive(LAYOUT, SECOND, OTHER)
    with pytest.raises(ChangeInFlightError):
        begin_move(rebuilding, FIRST, NEW)
    sources = [seat(i, 0) for i in (1, 3, 4, 5)]
    partial = activate(rebuilding, SECOND, evidence(rebuilding, OTHER, sources))
    with pytest.raises(ChangeInFlightError, match="position 1 of set 0 is partial"):
        begin_move(partial, FIRST, NEW)
    with pytest.raises(NotThisStepError):
        begin_move(partial, SECOND, seat(2, 8))
    assert begin_move(complete_data(partial, SECOND), FIRST, NEW)
    # One that broke in the middle holds the switch up, and its own replacement nothing.
    moving = begin_move(LAYOUT, FIRST, NEW)
    broken = replace_drive(moving, SECOND, OTHER)
    with pytest.raises(ChangeInFlightError):
        switch_move(broken, FIRST)
    assert at(replace_drive(moving, FIRST, NEW), FIRST).seat == NEW  # the learner may replace


@pytest.mark.parametrize("code", [(1, 0), (1, 1)])
def test_a_move_that_would_stop_writes_is_refused(code):
    layout = make_layout(sum(code), 1, *code)
    with pytest.raises(TooFewRemainError):
        begin_move(layout, FIRST, seat(1, 7), force=True)


# -- nodes and pools


def test_nodes_join_without_data_and_leave_when_nothing_is_theirs():
    joined = add_node(LAYOUT, Node(NodeId(9), "n9:1"))
    assert (joined.epoch, joined.sets) == (2, LAYOUT.sets)
    assert remove_node(joined, NodeId(9)).nodes == LAYOUT.nodes
    with pytest.raises(DriveInUseError):
        add_node(joined, Node(NodeId(9), "n9:1"))
    with pytest.raises(NoSuchPlaceError):
        remove_node(LAYOUT, NodeId(9))
    with pytest.raises(StillInUseError, match="position 0 of set 0"):
        remove_node(LAYOUT, NodeId(1))
    replaced = replace_drive(joined, FIRST, seat(9, 0))
    with pytest.raises(StillInUseError):  # its vote is not fenced yet, its shards not copied
        remove_node(replaced, NodeId(1))
    sources = [seat(i, 0) for i in (2, 3, 4, 5)]
    voting = activate(replaced, FIRST, evidence(replaced, seat(9, 0), sources))
    assert len(remove_node(complete_data(voting, FIRST), NodeId(1)).nodes) == 6
    with pytest.raises(LayoutRefusedError, match="hold together"):
        add_node(LAYOUT, Node(NodeId(9), "x" * 300))


def test_a_pool_adds_sets_and_moves_nothing():
    drives = {NodeId(i): [seat(i, 7).drive] for i in range(1, 7)}
    grown = add_pool(LAYOUT, "second", drives)
    assert (grown.epoch, grown.sets[0]) == (2, LAYOUT.sets[0])
    assert [p.seat for p in grown.sets[1].positions] == [seat(i, 7) for i in range(1, 7)]
    assert [(p.name, p.sets) for p in grown.pools] == [("", (0,)), ("second", (1,))]
    assert {(p.since, p.vote_since) for p in grown.sets[1].positions} == {(2, 2)}
    fresh = {NodeId(i): [seat(i, 8).drive] for i in range(1, 7)}
    with pytest.raises(DriveInUseError, match="another name"):
        add_pool(grown, "second", fresh)
    with pytest.raises(DriveInUseError):
        add_pool(grown, "third", drives)
    with pytest.raises(CrowdedNodeError):
        add_pool(LAYOUT, "x", {NodeId(1): [seat(1, i).drive for i in range(7, 13)]})
    with pytest.raises(ChangeInFlightError):
        add_pool(begin_move(LAYOUT, FIRST, NEW), "third", fresh)


# -- the system set


def test_the_system_set_lies_on_as_many_nodes_as_possible_and_keeps_whom_it_can():
    layout = make_layout(3, 3, 2, 1, sets=3, system=1)
    assert {s.node for s in choose_system_seats(layout, 3)} == {1, 2, 3}
    assert layout.system[0] in choose_system_seats(layout, 3)
    five = choose_system_seats(layout, 5)
    assert sorted(sum(s.node == n for s in five) for n in (1, 2, 3)) == [1, 2, 2]
    assert layout.system[0] not in choose_system_seats(layout, 7, avoid=[layout.system[0].drive])
    for size in (2, 9):
        with pytest.raises(NoSuchPlaceError, match="1, 3, 5 or 7"):
            choose_system_seats(layout, size)
    with pytest.raises(NoSuchPlaceError, match="3 are fit"):
        choose_system_seats(make_layout(3, 1, 2, 1), 5)


def test_the_system_set_grows_in_three_epochs():
    layout = make_layout(3, 1, 2, 1, system=1)
    (old,) = layout.system
    learning = begin_system_change(layout, 3)
    assert (learning.epoch, learning.system, len(learning.system_next)) == (2, (old,), 3)
    new = [s for s in learning.system_next if s != old]
    nothing = Evidence(epochs={old.drive: 2})
    with pytest.raises(NotSyncedError):
        turn_system(learning, nothing)
    synced = {s.drive: [old.drive] for s in new}
    with pytest.raises(NotSyncedError):
        turn_system(learning, Evidence(epochs={old.drive: 1}, synced=synced))
    leading = turn_system(learning, Evidence(epochs={old.drive: 2}, synced=synced))
    assert (leading.system, leading.system_previous) == (learning.system_next, (old,))
    with pytest.raises(NotAdoptedError, match="hold epoch 3"):
        settle_system(leading, Evidence(epochs={old.drive: 2}))
    for less in (
        {},
        {new[0].drive: [old.drive]},
    ):  # what the old one promised has to be known to all
        with pytest.raises(NotSyncedError, match="0 of the old system drives"):
            settle_system(leading, Evidence(epochs={old.drive: 3}, synced=less))
    alone = settle_system(leading, Evidence(epochs={old.drive: 3}, synced=synced))
    assert (alone.epoch, alone.system, alone.system_previous) == (4, learning.system_next, ())
    assert cancel_system_change(learning).system == layout.system
    for refused in (lambda: cancel_system_change(leading), lambda: turn_system(layout, nothing)):
        with pytest.raises(NotThisStepError):
            refused()
    with pytest.raises(NotThisStepError):
        settle_system(learning, nothing)
    with pytest.raises(NotThisStepError, match="already"):
        begin_system_change(alone, 3)
    with pytest.raises(ChangeInFlightError):
        begin_system_change(learning, 1)


def test_a_set_that_is_the_system_set_can_hand_it_over():
    learning = begin_system_change(LAYOUT, 3)
    olds = [p.drive for p in LAYOUT.sets[0].positions]
    assert learning.system_set == 0
    taken = {seat.drive: olds[:3] for seat in learning.system_next}
    with pytest.raises(NotAdoptedError, match="4 must"):
        turn_system(learning, Evidence(epochs=dict.fromkeys(olds[:3], 2), synced=taken))
    held = dict.fromkeys(olds[:4], 2)
    lone = {drive: [drive] for drive in taken}
    with pytest.raises(NotSyncedError, match="of 1 drives and needs those of 3"):
        turn_system(learning, Evidence(epochs=held, synced=lone))  # each may have missed something
    leading = turn_system(learning, Evidence(epochs=held, synced=taken))
    assert (leading.system_set, len(leading.system_previous)) == (SYSTEM, 6)
    with pytest.raises(NotSyncedError, match=r"[01] of the old system drives.*needs 4"):
        settle_system(leading, Evidence(gone=olds[:4]))
    left = {
        "epochs": dict.fromkeys(olds[4:], 3),
        "synced": {s.drive: olds[4:] for s in leading.system},
    }
    assert settle_system(leading, Evidence(gone=olds[:4], **left)).system == leading.system


def test_a_drive_that_died_in_its_new_office_is_waited_for_by_nobody():
    learning = begin_system_change(LAYOUT, 3)
    olds = [p.drive for p in LAYOUT.sets[0].positions]
    taken = {seat.drive: olds for seat in learning.system_next}
    leading = turn_system(learning, Evidence(epochs=dict.fromkeys(olds, 2), synced=taken))
    dead, *others = [seat.drive for seat in leading.system]
    rest = [drive for drive in olds if drive != dead]
    known = {"epochs": dict.fromkeys(rest, 3), "synced": dict.fromkeys(others, rest)}
    with pytest.raises(NotSyncedError, match=dead.hex()):
        settle_system(leading, Evidence(**known))
    assert settle_system(leading, Evidence(gone=[dead], **known)).system == leading.system
    with pytest.raises(NotSyncedError):  # one drive of three decides nothing
        settle_system(leading, Evidence(gone=[dead, others[0]], **known))


def test_a_drive_with_system_registers_keeps_its_place():
    layout = make_layout(6, 1, 4, 2, system=3)
    assert replace_drive(layout, Place(0, 3), seat(4, 7))
    for change in (replace_drive, begin_move):
        with pytest.raises(SystemMemberError, match="system set"):
            change(layout, FIRST, NEW)
    with pytest.raises(SystemMemberError):  # the whole set is the system set, and it changes
        replace_drive(begin_system_change(LAYOUT, 3), Place(0, 5), seat(6, 7))
    with pytest.raises(StillInUseError, match="system drive"):
        remove_node(replace(layout, sets=(ErasureSet(0, at_nodes(layout, 6)),)), NodeId(1))


def at_nodes(layout, node):
    """The positions, all on one node."""
    return tuple(
        replace(p, node=NodeId(node), drive=seat(node, i + 7).drive)
        for i, p in enumerate(layout.sets[0].positions)
    )
