"""What counts as slow and as late, and how often a read may be doubled for it."""

from cluster.ids import DriveId
from cluster.objects.read_times import KEPT, ReadTimes

FAST, SLOW = DriveId(b"f" * 16), DriveId(b"s" * 16)


def usual(seconds=0.002, count=KEPT):
    times = ReadTimes(0.03, 0.02)
    for _ in range(count):
        times.note_start()
        times.note(FAST, seconds, 0.0)
    return times


def test_a_read_is_late_after_one_and_a_half_of_what_nineteen_of_twenty_take():
    times = usual(0.1)
    assert times.delay == 0.15000000000000002
    for _ in range(5):
        times.note(FAST, 3.0, 0.0)  # rarer than one of twenty
    assert times.delay < 0.2


def test_nothing_is_late_before_the_least_time():
    assert usual(0.000_1).delay == 0.02


def test_reads_that_were_given_up_do_not_move_the_percentiles():
    times = usual()
    for _ in range(10 * KEPT):
        times.note_given_up(SLOW, 9.0, 0.0)
    times.note(FAST, 0.002, 0.0)
    assert times.delay == 0.02


def test_a_slow_drive_is_tried_again_after_a_while_and_believed():
    times = usual()
    assert not times.is_slow(SLOW, 0.0)
    times.note_given_up(SLOW, 0.5, 1.0)
    assert times.is_slow(SLOW, 1.0)
    assert times.is_slow(SLOW, 11.0)
    assert not times.is_slow(SLOW, 11.1)
    times.note_given_up(SLOW, 0.03, 12.0)  # late again, and not waited for as long
    assert times.is_slow(SLOW, 12.0)
    for _ in range(20):
        times.note(SLOW, 0.002, 13.0)
    assert not times.is_slow(SLOW, 13.0)


def test_a_short_wait_says_nothing_against_a_drive():
    times = usual()
    times.note(SLOW, 0.019, 0.0)
    times.note_given_up(SLOW, 0.001, 0.0)
    assert not times.is_slow(SLOW, 0.0)
    assert not times.is_slow(FAST, 0.0)


def test_nobody_is_slow_before_the_usual_is_known():
    times = ReadTimes(0.03, 0.02)
    times.note(SLOW, 9.0, 0.0)
    assert not times.is_slow(SLOW, 0.0)


def test_the_budget_is_a_share_of_the_reads_and_a_small_burst():
    times = ReadTimes(0.03, 0.02)
    while times.try_double():
        pass
    assert times.doubled == 10
    for _ in range(1000):
        times.note_start()
        times.try_double()
    assert 29 <= times.doubled - 10 <= 30
    for _ in range(1000):
        times.note_start()
    before = times.doubled
    while times.try_double():
        pass
    assert times.doubled - before == 10


def test_without_a_share_nothing_is_doubled():
    times = ReadTimes(0.0, 0.02)
    times.note_start()
    assert not times.try_double()
