"""The order in which drives are asked."""

import math

import attrs
import pytest
from hypothesis import given, strategies as st

from cluster.drives.nearness import Latency, order, rank


@attrs.frozen
class Far:
    cost: float


def test_local_drives_stay_as_they_are():
    among = [0, 2, 1]
    assert order([Far(0.0)] * 3, among) is among


def test_near_before_far_before_out_of_reach_and_equals_as_they_stand():
    costs = [math.inf, 0.0004, 0.0, 0.02, 0.0009, 0.003]
    drives = [Far(cost) for cost in costs]
    assert order(drives, range(6)) == [2, 1, 4, 5, 3, 0]
    assert order(drives, [0, 3, 4]) == [4, 3, 0]


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_ranks_rise_with_cost_and_a_fifth_more_is_at_most_one_rank(one, other):
    low, high = sorted((one, other))
    assert rank(low) <= rank(high) < rank(math.inf)
    if low:
        assert rank(low * 1.2) <= rank(low) + 1


def test_an_answer_time_follows_a_change_within_some_answers():
    latency = Latency()
    latency.note(0.001)
    assert latency.seconds == 0.001
    for _ in range(8):
        latency.note(0.1)
    assert latency.seconds == pytest.approx(0.09, rel=0.1)
