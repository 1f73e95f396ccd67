"""Frames: whatever one side says arrives as it was said, in any pieces; whatever else arrives is one named error."""

import random

import pytest
from hypothesis import given, strategies as st

from cluster.transport.framing import (
    HEADER_BYTES,
    INITIAL_CREDIT,
    MAX_CREDIT,
    MAX_DATA,
    MAX_MESSAGE,
    Cancelled,
    CreditGranted,
    Data,
    Ended,
    Framing,
    FramingError,
    Message,
)
from cluster.transport.replay import MAX_STARTS, WINDOW, ReplayGuard

words = st.one_of(
    st.builds(Message, st.binary(max_size=300)),
    st.builds(Data, st.binary(min_size=1, max_size=300)),
)


def say(side, word):
    match word:
        case Message(payload):
            return side.message(payload) + payload
        case Data(payload):
            return side.data(len(payload)) + payload
        case Ended():
            return side.end()
        case Cancelled(reason):
            return side.cancel(reason)


def cut(data, rng):
    while data:
        count = rng.randint(1, len(data))
        yield data[:count]
        data = data[count:]


@given(
    st.lists(words, max_size=20), st.booleans(), st.booleans(), st.randoms(use_true_random=False)
)
def test_words_arrive_in_order_however_the_stream_is_cut(said, ends, cancels, rng):
    said = said + [Ended()] * ends + [Cancelled("enough ✓")] * cancels
    here, there = Framing(), Framing()
    stream = b"".join(say(here, word) for word in said)
    heard = [event for piece in cut(stream, rng) for event in there.receive(piece)]
    assert heard == said


@given(st.binary(max_size=400))
def test_any_bytes_give_events_or_a_framing_error(data):
    try:
        Framing().receive(data)
    except FramingError:
        pass


@given(st.lists(words, min_size=1, max_size=5), st.data())
def test_damaged_frames_give_events_or_a_framing_error(said, data):
    here = Framing()
    stream = bytearray(b"".join(say(here, word) for word in [*said, Ended()]))
    stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    side = Framing()
    try:
        side.receive(stream)
    except FramingError:
        pass


@pytest.mark.parametrize(
    "frame",
    [
        b"\x02\x01\0\0" + bytes(4),  # another version
        b"\x01\x00\0\0" + bytes(4),
        b"\x01\x06\0\0" + bytes(4),
        b"\x01\x01\0\x01" + bytes(4),  # the zero is not
        b"\x01\x01\0\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"),
        b"\x01\x02\0\0" + (MAX_DATA + 1).to_bytes(4, "big"),
        b"\x01\x02\0\0" + bytes(4),  # no body bytes
        b"\x01\x03\0\0" + bytes(3) + b"\x03" + bytes(3),  # a short credit
        b"\x01\x03\0\0" + bytes(3) + b"\x04" + bytes(4),  # of nothing
        b"\x01\x03\0\0" + bytes(3) + b"\x04" + (MAX_CREDIT).to_bytes(4, "big"),
        b"\x01\x04\0\0" + bytes(3) + b"\x01" + b"x",
        b"\x01\x05\0\0" + (257).to_bytes(4, "big"),
    ],
)
def test_a_frame_that_is_not_allowed_is_refused_by_its_header(frame):
    with pytest.raises(FramingError):
        Framing().receive(frame)


@pytest.mark.parametrize("late", [Message(b""), Data(b"x"), Ended()])
def test_nothing_but_credit_and_cancellation_follows_the_end(late):
    side, frames = Framing(), say(Framing(), late)
    side.receive(Framing().end())
    assert side.receive(Framing().grant(1)) == [CreditGranted()]
    with pytest.raises(FramingError):
        side.receive(frames)


def test_body_bytes_flow_only_against_credit():
    here, there = Framing(), Framing()
    piece = bytes(MAX_DATA)
    for _ in range(INITIAL_CREDIT // MAX_DATA):
        there.receive(say(here, Data(piece)))
    assert here.credit == 0
    with pytest.raises(AssertionError):
        here.data(1)
    assert here.receive(there.grant(10)) == [CreditGranted()]
    assert here.credit == 10
    there.receive(say(here, Data(bytes(10))))
    with pytest.raises(FramingError):
        there.receive(say(Framing(), Data(b"x")))


def test_a_window_of_numbers_tells_calls_that_came_before():
    guard = ReplayGuard()
    assert [guard.is_new(1, n) for n in (0, 2, 1, 2, 0, 3)] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert guard.is_new(2, 0)
    assert guard.is_new(1, WINDOW + 3)
    assert not guard.is_new(1, 3)  # too old to tell
    assert guard.is_new(1, 4)


@given(st.lists(st.integers(0, 3 * WINDOW), max_size=200))
def test_no_call_is_new_twice(numbers):
    guard, seen = ReplayGuard(), set()
    for number in numbers:
        new = guard.is_new(7, number)
        assert not (new and number in seen)
        if number > max(seen, default=-1) - WINDOW and number not in seen:
            assert new
        seen.add(number)


def test_a_peer_that_restarts_for_ever_costs_bounded_memory():
    guard = ReplayGuard()
    rng = random.Random(1)
    for _ in range(100):
        assert guard.is_new(rng.getrandbits(63), 5)
    assert len(guard._starts) == MAX_STARTS


def test_headers_are_eight_bytes():
    assert len(Framing().end()) == HEADER_BYTES


def test_a_number_far_below_the_highest_is_refused_at_no_cost():
    """The bitmap has a window's bits, whatever numbers a peer sends."""
    guard = ReplayGuard()
    assert guard.is_new(1, (1 << 63) - 1)
    assert not guard.is_new(1, 0)
    assert guard.is_new(1, (1 << 63) - WINDOW)
    assert not guard.is_new(1, (1 << 63) - WINDOW - 1)
