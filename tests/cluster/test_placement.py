"""Another set is chosen by chance, in proportion to its room, among those that can take a body."""

from collections import Counter
from random import Random

from cluster.placement import SetRoom, other_set


def test_sets_get_bodies_in_proportion_to_what_is_free():
    rooms = [SetRoom(1, 6, 10**12), SetRoom(2, 6, 3 * 10**12), SetRoom(3, 4, 10**15)]
    rng = Random(1)
    counts = Counter(other_set(rooms, 5, rng.random()) for _ in range(4000))
    assert set(counts) == {1, 2}
    assert 0.22 < counts[1] / 4000 < 0.28


def test_sets_that_were_not_measured_yet_share_alike():
    rooms = [SetRoom(1, 6, 0), SetRoom(2, 6, 0)]
    assert other_set(rooms, 5, 0.49) == 1
    assert other_set(rooms, 5, 0.51) == 2


def test_no_set_is_chosen_that_cannot_take_enough_shards():
    assert other_set([], 5, 0.0) is None
    assert other_set([SetRoom(1, 4, 10)], 5, 0.9) is None
    assert other_set([SetRoom(1, 5, 10)], 5, 1 - 2**-53) == 1
