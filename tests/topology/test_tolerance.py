"""What a layout tolerates is what trying every loss says."""

from functools import partial
from itertools import combinations

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from cluster.ids import NodeId
from cluster.layout import SYSTEM, ErasureSet, Layout, Position
from cluster.quorum import adaptive_data_shards
from cluster.topology.tolerance import Tolerance, set_tolerates, tolerates
from tests.topology.layouts import CLUSTER, drive, make_layout, seat


def can_read(layout, lost):
    n = layout.n
    for s in layout.sets:
        left = [p for p in s.positions if p.drive not in lost]
        if sum(p.voting for p in left) < n - (n // 2 + 1) + 1:
            return False
        if sum(p.data_complete for p in left) < layout.k:
            return False
    system = layout.system
    return not system or sum(s.drive not in lost for s in system) * 2 > len(system)


def can_write(layout, lost, *, fully=False):
    for s in layout.sets:
        left = [p for p in s.positions if p.drive not in lost]
        if sum(p.voting for p in left) * 2 <= layout.n:
            return False
        k = adaptive_data_shards(layout.k, layout.m, len(left))
        if k is None or (fully and k != layout.k):
            return False
    for seats in (layout.system, layout.system_next, layout.system_previous):
        if seats and sum(s.drive not in lost for s in seats) * 2 <= len(seats):
            return False
    return True


def worst(things, holds):
    """The greatest f such that it holds whichever f are lost; the slow way."""
    for f in range(len(things) + 1):
        if not all(holds(set(lost)) for lost in combinations(things, f)):
            return f - 1
    raise AssertionError("something holds without any drive")


@st.composite
def layouts(draw):
    k = draw(st.integers(1, 4))
    m = draw(st.integers(0, min(k, 2)))
    sets, numbers = [], iter(range(1000))
    nodes = draw(st.integers(1, 5))
    for set_id in range(draw(st.integers(1, 2))):
        positions = []
        for _ in range(k + m):
            voting = draw(st.sampled_from([True, True, True, False]))
            complete = draw(st.sampled_from([True, True, True, False]))
            node = NodeId(draw(st.integers(1, nodes)))
            positions.append(Position(drive(next(numbers)), node, voting, complete))
        sets.append(ErasureSet(set_id, tuple(positions)))
    seats = [p.seat for s in sets for p in s.positions]
    layout = Layout(
        epoch=1, cluster=CLUSTER, nodes=(), sets=tuple(sets), system_set=0, k=k, m=m, codec="c"
    )
    if draw(st.booleans()):
        size = draw(st.sampled_from([s for s in (1, 3, 5) if s <= len(seats)]))
        layout = replace(
            layout, system_set=SYSTEM, system=tuple(draw(st.permutations(seats))[:size])
        )
    if draw(st.booleans()):
        size = draw(st.sampled_from([s for s in (1, 3, 5) if s <= len(seats)]))
        side = "system_previous" if layout.system and draw(st.booleans()) else "system_next"
        drawn = tuple(draw(st.permutations(seats))[:size])
        layout = replace(layout, system_since=1, **{side: drawn})
    return layout


@settings(max_examples=200, deadline=None)
@given(layouts(), st.data())
def test_the_computed_tolerance_is_the_brute_force_one(layout, data):
    everybody = [p.drive for s in layout.sets for p in s.positions]
    down = data.draw(st.sets(st.sampled_from(everybody), max_size=2))
    drives = [d for d in everybody if d not in down]
    on = {}
    for s in layout.sets:
        for p in s.positions:
            if p.drive not in down:
                on.setdefault(p.node, set()).add(p.drive)

    def losing(things, holds):
        return worst(things, lambda lost: holds(layout, lost | down))

    def nodes(holds):
        return worst(
            list(on), lambda gone: holds(layout, down | {d for node in gone for d in on[node]})
        )

    assert tolerates(layout, down) == Tolerance(
        read_drives=losing(drives, can_read),
        write_drives=losing(drives, can_write),
        full_drives=losing(drives, partial(can_write, fully=True)),
        read_nodes=nodes(can_read),
        write_nodes=nodes(can_write),
    )
    if len(layout.sets) == 1 and layout.system_set == 0 and not layout.system_next:
        assert set_tolerates(layout, 0, down) == tolerates(layout, down)


@pytest.mark.parametrize(
    ("layout", "drives", "nodes"),
    [
        (make_layout(6, 1, 4, 2), 2, 2),
        (make_layout(3, 2, 4, 2), 2, 1),
        (
            make_layout(3, 2, 4, 2, system=3),
            1,
            1,
        ),  # two of three system drives gone: no bucket is found
        (make_layout(6, 1, 4, 2, system=5), 2, 2),
        (make_layout(6, 1, 4, 2, system=1), 0, 0),
    ],
)
def test_the_system_set_counts(layout, drives, nodes):
    tolerance = tolerates(layout)
    assert min(tolerance.read_drives, tolerance.write_drives) == drives
    assert min(tolerance.read_nodes, tolerance.write_nodes) == nodes


def test_a_rebuilding_position_is_a_drive_less():
    layout = make_layout(6, 1, 4, 2)
    positions = layout.sets[0].positions
    rebuilding = replace(positions[0], voting=False, data_complete=False)
    weak = replace(layout, sets=(ErasureSet(0, (rebuilding, *positions[1:])),))
    assert tolerates(layout).read_drives == 2
    assert tolerates(weak).read_drives == tolerates(weak).write_drives == 1
    assert seat(1, 0).drive == positions[0].drive
