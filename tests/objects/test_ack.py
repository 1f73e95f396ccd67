"""When the shards of a PUT are spread well enough."""

import itertools

import pytest
from hypothesis import given, strategies as st

from cluster.ids import NodeId
from cluster.objects.ack import is_spread, survives_a_node


def nodes(*numbers):
    return [NodeId(number) for number in numbers]


THREE, SIX, ONE = nodes(1, 2, 3, 1, 2, 3), nodes(1, 2, 3, 4, 5, 6), nodes(1, 1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("positions", "places", "k", "survives"),
    [
        (0b111111, THREE, 4, True),
        (0b011111, THREE, 4, False),  # D of 4+2: one node has two of the five
        (0b011011, THREE, 4, False),
        (0b111111, ONE, 4, False),
        (0b111111, SIX, 4, True),
        (0b011111, SIX, 4, True),
        (0b001111, SIX, 4, False),
        (0b011011, THREE, 3, False),  # adaptive: two nodes are left, each has two
        (0b011111, THREE, 3, True),
        (0b111, nodes(1, 2, 3), 2, True),
        (0b111, nodes(1, 1, 2), 2, False),
        (0b11, nodes(1, 2), 1, True),
        (0b1, nodes(1), 1, False),
        (0, SIX, 1, False),
    ],
)
def test_what_survives_the_loss_of_a_node(positions, places, k, survives):
    assert survives_a_node(positions, places, k) is survives


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 255), st.integers(1, 5))
def test_it_is_what_is_left_when_each_node_is_taken_away_in_turn(numbers, positions, k):
    places = nodes(*numbers)
    positions &= (1 << len(places)) - 1
    left = [
        sum(positions >> p & 1 and place != lost for p, place in enumerate(places))
        for lost in places
    ]
    assert survives_a_node(positions, places, k) is (min(left) >= k)


def test_nobody_waits_for_what_cannot_be_reached():
    assert is_spread("node", 0b011011, 0b011011, THREE, 4)
    assert is_spread("node", 0b011111, 0b111111, ONE, 4)
    assert not is_spread("node", 0b011111, 0b111111, THREE, 4)
    assert is_spread("node", 0b111111, 0b111111, THREE, 4)


def test_the_other_policy_asks_for_no_spread():
    for durable, expected in itertools.product(range(64), (0b111111, 0)):
        assert is_spread("shards", durable, expected, THREE, 4)
