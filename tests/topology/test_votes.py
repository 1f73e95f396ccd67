"""Whatever sequence of allowed changes: every read quorum of an epoch meets every accept quorum of the next, and back."""

from functools import cache, partial
from itertools import combinations

from hypothesis import given, settings, strategies as st

from cluster.layout import SYSTEM, check_layout, decode_layout, encode_layout
from cluster.topology.changes import (
    Evidence,
    Place,
    activate,
    begin_move,
    cancel_move,
    complete_data,
    replace_drive,
    switch_move,
)
from cluster.topology.refusals import LayoutRefusedError
from cluster.topology.system_changes import (
    begin_system_change,
    cancel_system_change,
    settle_system,
    turn_system,
)
from cluster.topology.tolerance import tolerates
from cluster.votes import roll_of
from tests.topology.layouts import make_layout, seat


@cache
def quorums(drives, groups):
    """Every minimal set of drives that meets all groups."""
    smallest = []
    for size in range(len(drives) + 1):
        for chosen in map(frozenset, combinations(range(len(drives)), size)):
            bits = sum(1 << index for index in chosen)
            enough = all(group.is_met(bits) for group in groups)
            names = frozenset(drives[index] for index in chosen)
            if enough and not any(q <= names for q in smallest):
                smallest.append(names)
    return smallest


def always_meet(reader, writer, set_id):
    """Whether whoever reads under the one layout meets whoever wrote under the other."""
    one, other = roll_of(reader, set_id), roll_of(writer, set_id)
    reads = quorums(one.seats, (one.electorate.read,))
    accepts = quorums(other.seats, other.electorate.accept)
    return all(r & a for r in reads for a in accepts)


def check_intersections(before, after):
    for set_id in [*(s.set_id for s in before.sets), SYSTEM]:
        for one, other in ((before, before), (before, after), (after, before), (after, after)):
            assert always_meet(one, other, set_id), set_id


class Willing:
    """Every drive has adopted, everything is synced: what allows the most."""

    def __init__(self, layout):
        everybody = [s.drive for s in layout.seats()]
        self.evidence = Evidence(
            epochs=dict.fromkeys(everybody, layout.epoch),
            synced=dict.fromkeys(everybody, everybody),
        )


def attempts(layout, numbers):
    """Every change that somebody might ask for, by name."""
    evidence = Willing(layout).evidence
    for place in (Place(s.set_id, p) for s in layout.sets for p in range(layout.n)):
        for node in layout.nodes:
            new = seat(node.node, next(numbers))
            yield (
                "replace",
                partial(replace_drive, layout, place, new, accept_data_loss=True, force=True),
            )
            yield "move", partial(begin_move, layout, place, new, force=True)
        yield "switch", partial(switch_move, layout, place)
        yield "cancel", partial(cancel_move, layout, place)
        yield "activate", partial(activate, layout, place, evidence)
        yield "complete", partial(complete_data, layout, place)
    for size in (1, 2, 3, 5):
        yield "system", partial(begin_system_change, layout, size)
        avoid = [layout.system_seats[0].drive]
        yield "system", partial(begin_system_change, layout, size, avoid=avoid)
    yield "turn", partial(turn_system, layout, evidence)
    yield "settle", partial(settle_system, layout, evidence)
    yield "back", partial(cancel_system_change, layout)


def allowed(layout, numbers):
    """What comes of the changes that are not refused, by name; a refusal says what is wrong, and what to do."""
    found = {}
    for name, attempt in attempts(layout, numbers):
        try:
            changed = attempt()
        except LayoutRefusedError as refusal:
            message = str(refusal)
            if ": " not in message:
                raise AssertionError(message) from refusal
        else:
            found.setdefault(name, []).append(changed)
    return found


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_quorums_of_consecutive_epochs_always_meet(data):
    k, m = data.draw(st.sampled_from([(1, 0), (1, 1), (2, 1), (2, 2), (3, 2)]))
    layout = make_layout(
        3, 3, k, m, system=data.draw(st.sampled_from([s for s in (0, 1, 3) if s <= k + m]))
    )
    numbers = iter(range(100, 100_000))
    for _ in range(data.draw(st.integers(1, 15))):
        possible = allowed(layout, numbers)
        if not possible:
            break
        changed = data.draw(st.sampled_from(possible[data.draw(st.sampled_from(sorted(possible)))]))
        assert changed.epoch == layout.epoch + 1
        check_layout(changed)
        assert decode_layout(encode_layout(changed)) == changed
        check_intersections(layout, changed)
        tolerates(changed)
        layout = changed


def test_dropping_the_old_system_drives_an_epoch_earlier_would_lose_sight_of_writes():
    """The two-epoch change of the system set: a reader at e+1 and a writer at e+2 need not meet."""
    layout = make_layout(3, 1, 2, 1, system=1)
    learning = begin_system_change(layout, 3)
    leading = turn_system(learning, Willing(learning).evidence)
    alone = settle_system(leading, Willing(leading).evidence)
    assert not always_meet(learning, alone, SYSTEM)
    assert always_meet(learning, leading, SYSTEM)
    assert always_meet(leading, alone, SYSTEM)
