"""When a drive is full, and when it is so full that it takes no records either."""

import pytest

from cluster.drives.drive import DriveState
from cluster.drives.room import Room

GIB = 1 << 30
ACTIVE, READONLY, CROWDED = DriveState.ACTIVE, DriveState.READONLY, DriveState.CROWDED


def room(free, *, spare=0, total=100 * GIB, min_free_bytes=2 * GIB):
    made = Room(min_free_bytes=min_free_bytes, min_free_ratio=0.01)
    made.measured(total, free, spare)
    return made


@pytest.mark.parametrize(
    ("before", "free_mib", "after"),
    [
        (ACTIVE, 2048, ACTIVE),
        (ACTIVE, 2047, READONLY),
        (ACTIVE, 1024, READONLY),
        (ACTIVE, 1023, CROWDED),
        (ACTIVE, 0, CROWDED),
        (READONLY, 1024, READONLY),
        (READONLY, 1023, CROWDED),
        (READONLY, 3072, READONLY),
        (READONLY, 3073, ACTIVE),
        (CROWDED, 2047, CROWDED),
        (CROWDED, 2048, READONLY),
        (CROWDED, 3073, ACTIVE),
    ],
)
def test_the_state_follows_the_free_space_and_is_left_later_than_it_is_entered(
    before, free_mib, after
):
    assert room(free_mib << 20).judge(before) is after


@pytest.mark.parametrize(
    "state",
    [DriveState.REBUILDING, DriveState.FAULTY, DriveState.MISSING, DriveState.WRONG, DriveState.SLOW],
)  # fmt: skip
def test_other_states_are_not_for_the_free_space_to_end(state):
    assert room(0).judge(state) is state


def test_before_the_first_measurement_nothing_is_known():
    assert Room(min_free_bytes=1, min_free_ratio=0.0).judge(READONLY) is READONLY


def test_a_small_file_system_has_a_small_reserve():
    assert room(99 << 20, total=1 << 30).judge(ACTIVE) is READONLY  # of a tenth: 102 MiB
    assert room(103 << 20, total=1 << 30).judge(ACTIVE) is ACTIVE


def test_what_is_free_in_the_index_is_room_for_rows_and_for_nothing_else():
    made = room(2 * GIB - 1, spare=GIB)
    assert made.judge(CROWDED) is READONLY
    made = room(2 * GIB - 1, spare=2 * GIB)
    assert made.judge(CROWDED) is ACTIVE
    assert not made.take(16 * 1024 + 1)  # would be a file
    assert made.take(16 * 1024)
