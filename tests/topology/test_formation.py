"""Drives are interleaved node by node; a set that one node's loss would break is refused, with what would work."""

import pytest
from hypothesis import given, strategies as st

from cluster.erasure.profile import Profile
from cluster.errors import ConfigError
from cluster.ids import NodeId
from cluster.topology.formation import (
    CrowdedNodeError,
    crowd,
    form_pool,
    interleave,
    workable_codes,
)
from tests.topology.layouts import drive, seat


def shelves(*counts):
    """Drives per node."""
    return {NodeId(i + 1): [seat(i + 1, d).drive for d in range(c)] for i, c in enumerate(counts)}


def test_drives_are_taken_node_by_node():
    assert interleave(shelves(2, 1, 3)) == [
        seat(1, 0), seat(2, 0), seat(3, 0), seat(1, 1), seat(3, 1), seat(3, 2),
    ]  # fmt: skip


def test_sets_are_cut_from_the_interleaved_order():
    sets = form_pool(shelves(4, 4, 4), Profile(4, 2), first_set=3, since=9)
    assert [s.set_id for s in sets] == [3, 4]
    assert [p.seat for p in sets[0].positions] == [
        seat(1, 0), seat(2, 0), seat(3, 0), seat(1, 1), seat(2, 1), seat(3, 1),
    ]  # fmt: skip
    assert all(p.since == 9 and p.voting and p.data_complete for s in sets for p in s.positions)


@pytest.mark.parametrize(
    ("counts", "code", "says"),
    [
        ((3, 3), (4, 2), "spread the drives evenly over 3 nodes, or take 3.3"),
        ((2, 2, 2), (5, 1), "over 6 nodes, or take 4.2 or 3.3 or 2.1"),
        ((6,), (4, 2), "over 3 nodes$|over 3 nodes, or force"),
        ((4, 1, 1), (4, 2), "the same number of drives"),
        ((2, 2), (4, 0), "take 2.2"),
    ],
)
def test_a_crowded_node_is_refused_with_what_would_work(counts, code, says):
    with pytest.raises(CrowdedNodeError, match=says):
        form_pool(shelves(*counts), Profile(*code))
    assert form_pool(shelves(*counts), Profile(*code), force=True)


def test_drives_left_over_are_refused():
    with pytest.raises(ConfigError, match="6 or 12"):
        form_pool(shelves(3, 3, 1), Profile(4, 2))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 5))
def test_no_node_holds_more_than_m_of_a_set_and_every_choice_named_works(counts, k, m):
    if k < m:
        k, m = m, k
    profile, given_drives = Profile(k, m), shelves(*counts)
    try:
        sets = form_pool(given_drives, profile)
    except CrowdedNodeError:
        for code in workable_codes(given_drives, profile):
            assert form_pool(given_drives, code)
        return
    except ConfigError:
        assert sum(counts) % profile.n
        return
    placed = [p.drive for s in sets for p in s.positions]
    assert sorted(placed) == sorted(d for drives in given_drives.values() for d in drives)
    assert all(crowd([p.seat for p in s.positions])[1] <= m for s in sets)


def test_the_drives_of_the_tests_are_distinct():
    assert len({drive(n) for n in range(3000)}) == 3000
