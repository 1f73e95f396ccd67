"""Notes on bodies that lie in another set than their register, and what a chosen state means for such a body."""

import msgspec
import pytest

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.ids import BucketId, DataId, OpId, UploadId
from cluster.register.acceptor import Limits
from cluster.register.away import Note, Verdict, judge, make_note, notes_on_change, superfluous
from cluster.register.keys import object_row, part_row
from cluster.register.records import Applied, KeyState, Part, Register, Upload, Version

BUCKET, UPLOAD = BucketId(b"b" * 16), UploadId(b"u" * 16)
ROW, PART_ROW = object_row(BUCKET, b"key"), part_row(BUCKET, UPLOAD, 1, b"key")
HOME, AWAY = 0, 1
LIMITS = Limits(op_ttl_ms=100, max_put_ms=1000)
AGE = 1100
BORN = 50_000


def at(ms):
    return Ballot(BORN + ms, 0, 1)


def body(number=1, *, set_id=AWAY, staged=0b111111):
    data_id = DataId(BORN.to_bytes(6, "big") + number.to_bytes(10, "big"))
    return Part(1, 4, "v", b"", data_id, at(0), "c", set_id, 4, 2, 65536, staged, bytes(16))


def state(*parts, uploads=(), removed=(), upload=None):
    version = Version(None, False, at(1), 1, 4, "v", b"", 1, parts=parts, upload_id=upload)
    ring = (Applied(OpId(bytes(16)), at(1), tuple(removed)),)
    return KeyState(versions=(version,) if parts else (), uploads=tuple(uploads), ring=ring)


def opened(ms=-10, upload=UPLOAD):
    return Upload(upload, at(ms), b"", 1)


def note(part=None, *, row=ROW, ms=1, seen=False, dead=False, upload=None):
    return make_note(row, HOME, part or body(), at(ms), upload, seen=seen, dead=dead)


def held(value, *, chosen=True, ms=1):
    return Register(at(ms), value, chosen)


def changes(before, after, row=ROW, chosen=True):
    return notes_on_change(row, HOME, held(before, chosen=chosen), after, at(2))


def test_bodies_at_home_and_bodies_that_stay_cause_no_notes():
    home, away = body(1, set_id=HOME, staged=0b11111), body(2)
    assert changes(KeyState(), state(home)) == []
    assert changes(state(home), KeyState()) == []
    assert changes(state(away), state(away)) == []
    assert changes(KeyState(), state(away)) == []


def test_a_body_that_comes_without_some_shards_is_noted_for_their_positions():
    (found,) = changes(KeyState(), state(body(staged=0b101111)))
    assert found == msgspec.structs.replace(note(ms=2), positions=0b010000)


@pytest.mark.parametrize("chosen", [True, False])
def test_a_body_that_is_left_out_is_noted_for_all_positions(chosen):
    (found,) = changes(state(body()), state(body(2, set_id=HOME)), chosen=chosen)
    assert found == note(ms=2, seen=chosen)
    assert found.positions == 0b111111


def test_a_part_is_noted_with_its_upload_and_the_row_of_its_key():
    for row, upload in ((PART_ROW, None), (ROW, UPLOAD)):
        (found,) = changes(state(body(), upload=upload), KeyState(), row=row)
        assert (found.owner, found.upload) == (ROW, UPLOAD)


def test_superfluous_are_those_elsewhere_to_which_nothing_refers():
    parts = [body(1), body(2), body(3, set_id=HOME)]
    assert superfluous(parts, {parts[1].data_id}, HOME) == [parts[0]]


def test_the_rank_of_a_note_rises_with_what_it_says():
    notes = [note(ms=0), note(ms=5), note(ms=1, seen=True), note(ms=0, dead=True)]
    assert sorted(notes, key=lambda n: n.rank) == notes


def verdict(found: Note, chosen: Register, *, referred=(), now=2):
    return judge(found, chosen, set(referred), now_ms=BORN + now, limits=LIMITS)


ID = body().data_id


def test_a_body_that_is_referred_to_is_kept_when_the_state_is_new_enough():
    assert verdict(note(ms=3), held(state(body()), ms=3), referred=[ID]) is Verdict.KEEP
    assert verdict(note(ms=4), held(state(body()), ms=3), referred=[ID]) is Verdict.LATER
    late = verdict(note(ms=4), held(state(body()), ms=3), referred=[ID], now=105)
    assert late is Verdict.FENCE


def test_a_body_of_a_long_part_list_is_referred_to():
    assert verdict(note(), held(KeyState(), ms=AGE + 9), referred=[ID]) is Verdict.KEEP


@pytest.mark.parametrize(
    ("found", "chosen", "now", "expected"),
    [
        (note(), held(state(removed=[ID])), 2, Verdict.COLLECT),
        (note(seen=True), held(state()), 2, Verdict.COLLECT),
        (note(), held(state()), 2, Verdict.LATER),
        (note(), held(state(), ms=AGE), 2, Verdict.LATER),
        (note(), held(state(), ms=AGE + 1), 2, Verdict.COLLECT),
        (note(), held(state()), AGE + 1, Verdict.FENCE),
        (note(), Register(BALLOT_ZERO, KeyState(), chosen=True), AGE + 1, Verdict.FENCE),
        (note(dead=True), Register(BALLOT_ZERO, KeyState(), chosen=True), 0, Verdict.COLLECT),
    ],
)
def test_a_direct_body_goes_when_no_state_can_name_it_any_more(found, chosen, now, expected):
    assert verdict(found, chosen, now=now) is expected


def test_what_may_be_a_part_of_an_open_upload_is_kept_whatever_its_age():
    """A shard that was staged and never noted does not know whether it belongs to one."""
    open_before, open_after = state(uploads=[opened(-10)]), state(uploads=[opened(10)])
    assert verdict(note(), held(open_before, ms=AGE + 1), now=AGE + 2) is Verdict.OPEN
    assert verdict(note(), held(open_after, ms=AGE + 1), now=AGE + 2) is Verdict.COLLECT
    assert verdict(note(seen=True), held(open_before)) is Verdict.COLLECT


def test_a_part_waits_for_its_upload_and_goes_when_that_is_closed_without_it():
    found = note(row=PART_ROW)
    assert verdict(found, held(state(uploads=[opened()]), ms=AGE + 1)) is Verdict.OPEN
    other = opened(upload=UploadId(b"o" * 16))
    assert verdict(found, held(state(uploads=[other]))) is Verdict.COLLECT
    assert verdict(found, held(state(), ms=0)) is Verdict.FENCE
    assert verdict(found, held(state(body())), referred=[ID]) is Verdict.KEEP
