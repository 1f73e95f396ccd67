"""Stored records: what was written comes back, and whatever else is read is refused, never half understood."""

import msgspec
import pytest
from hypothesis import given, strategies as st

from cluster.clock import Ballot
from cluster.drives.index_rows import pack_bodies, unpack_bodies
from cluster.ids import BucketId, UploadId
from cluster.register.keys import (
    bucket_of,
    is_object,
    is_part,
    object_key,
    object_row,
    owner_row,
    part_number,
    part_row,
    successor,
)
from cluster.register.records import (
    Applied,
    BodyRef,
    Done,
    KeyState,
    Part,
    Upload,
    Version,
    decode_parts,
    decode_state,
    encode_parts,
    encode_state,
)

BUCKET = BucketId(b"b" * 16)
UPLOAD = UploadId(b"u" * 16)
NUMBERS = st.integers(0, 2**40)
IDS = st.binary(min_size=16, max_size=16)
TEXT = st.text(max_size=6)
BYTES = st.binary(max_size=6)
BALLOTS = st.builds(Ballot, NUMBERS, NUMBERS, NUMBERS)
PARTS = st.builds(
    Part, number=NUMBERS, size=NUMBERS, validator=TEXT, attributes=BYTES, data_id=IDS, intro=BALLOTS,
    codec=TEXT, set_id=NUMBERS, k=NUMBERS, m=NUMBERS, block=NUMBERS, staged=NUMBERS, digest_root=IDS,
)  # fmt: skip
BODIES = st.builds(BodyRef, id=IDS, size=NUMBERS, digest=IDS, count=NUMBERS)
VERSIONS = st.builds(
    Version, version_id=st.none() | BYTES, delete_marker=st.booleans(), stamp=BALLOTS, op_hlc=NUMBERS,
    size=NUMBERS, validator=TEXT, attributes=BYTES, mtime_ms=NUMBERS, body=st.none() | BODIES,
    parts=st.lists(PARTS, max_size=2).map(tuple), upload_id=st.none() | IDS,
)  # fmt: skip
UPLOADS = st.builds(Upload, upload_id=IDS, created=BALLOTS, attributes=BYTES, mtime_ms=NUMBERS)
STATES = st.builds(
    KeyState,
    versions=st.lists(VERSIONS, max_size=2).map(tuple),
    uploads=st.lists(UPLOADS, max_size=2).map(tuple),
    done=st.lists(st.builds(Done, upload_id=IDS, stamp=BALLOTS, validator=TEXT), max_size=2).map(
        tuple
    ),
    ring=st.lists(
        st.builds(Applied, op_id=IDS, ballot=BALLOTS, removed=st.lists(IDS, max_size=2).map(tuple)),
        max_size=2,
    ).map(tuple),
)


@given(STATES)
def test_a_state_comes_back(state):
    assert decode_state(encode_state(state)) == state


@given(st.lists(PARTS, max_size=3).map(tuple))
def test_a_part_list_comes_back(parts):
    assert decode_parts(encode_parts(parts)) == parts


@pytest.mark.parametrize(
    ("decode", "encode", "records"),
    [
        (decode_state, encode_state, STATES),
        (decode_parts, encode_parts, st.lists(PARTS, max_size=3).map(tuple)),
    ],
)
@given(data=st.data())
def test_damage_is_refused_or_gives_another_whole_record(decode, encode, records, data):
    good = encode(data.draw(records))
    at = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.integers(0, len(good)))
    flipped = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    for damaged in (flipped, good[:cut], data.draw(st.binary(max_size=80))):
        try:
            found = decode(damaged)
        except msgspec.DecodeError:
            continue
        assert decode(encode(found)) == found


@given(st.dictionaries(IDS, NUMBERS, max_size=5))
def test_body_ids_come_back(bodies):
    assert unpack_bodies(pack_bodies(bodies.items())) == bodies


@given(st.binary(max_size=40), st.integers(0, 10_000))
def test_row_names_tell_what_they_name(key, number):
    row, part = object_row(BUCKET, key), part_row(BUCKET, UPLOAD, number, key)
    assert is_object(row)
    assert is_part(part)
    assert object_key(row) == key
    assert bucket_of(row) == bucket_of(part) == BUCKET
    assert part_number(part) == number
    assert owner_row(part) == owner_row(row) == row


@given(st.binary(max_size=20), st.binary(max_size=5), st.binary(max_size=20))
def test_the_successor_is_above_all_that_begin_so_and_below_the_rest(prefix, more, other):
    after = successor(prefix)
    assert after is None or prefix + more < after
    if not other.startswith(prefix) and other > prefix:
        assert after is not None
        assert other >= after
