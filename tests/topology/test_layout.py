"""The layout document: canonical, versioned, bounded."""

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from cluster.ids import DriveId, NodeId
from cluster.layout import (
    MAGIC,
    MAX_LAYOUT_BYTES,
    SYSTEM,
    ErasureSet,
    LayoutError,
    Node,
    Pool,
    Seat,
    check_layout,
    decode_layout,
    encode_layout,
)
from tests.topology.layouts import drive, make_layout, seat

LAYOUT = make_layout(3, 4, 2, 1, sets=2, system=3)
CHANGING = replace(
    LAYOUT,
    epoch=7,
    nodes=(*LAYOUT.nodes, Node(NodeId(9), "n9:9001", b"f" * 32, "draining")),
    pools=(Pool("first", (0,)), Pool("second", (1,))),
    system_next=(seat(1, 0),),
    system_since=6,
    sets=(
        ErasureSet(
            0,
            (
                replace(LAYOUT.sets[0].positions[0], learner=seat(9, 0)),
                replace(
                    LAYOUT.sets[0].positions[1],
                    voting=False, data_complete=False, since=5, vote_since=5, previous=seat(9, 1),
                ),
                LAYOUT.sets[0].positions[2],
            ),
        ),
        LAYOUT.sets[1],
    ),
)  # fmt: skip


@pytest.mark.parametrize("layout", [LAYOUT, CHANGING, make_layout(1, 6, 4, 2)])
def test_what_is_written_is_read_back(layout):
    assert decode_layout(encode_layout(layout)) == layout


def test_the_stored_bytes_are_pinned():
    layout = make_layout(1, 1, 1, 0)
    assert encode_layout(layout) == (
        b"SCLY\x01\x9f\x01\xc4\x10" + b"c" * 16
        + b"\x91\x94\x01\xad10.0.0.1:9001\xc4\x00\xa6active"
        + b"\x91\x92\x00\x91\x98\xc4\x10" + drive(1000) + b"\x01\xc3\xc3\x01\xc0\xc0\x01"
        + b"\x00\x01\x00\xb1isa_l_rs_cauchy/8\xce\x00\x01\x00\x00\xce\x00\x40\x00\x00"
        + b"\x90\x90\x90\x90\x00"
    )  # fmt: skip


@given(st.data())
def test_damaged_bytes_are_refused_or_mean_something_whole(data):
    good = encode_layout(CHANGING)
    at = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(damaged[: data.draw(st.sampled_from([len(good), at]))])
    try:
        read = decode_layout(cut)
    except LayoutError:
        return
    assert encode_layout(read) == cut  # canonical: no two byte strings mean one layout


@given(st.binary(max_size=64))
def test_any_other_bytes_are_refused_by_name(junk):
    for prefix in (b"", MAGIC, MAGIC + b"\x01", MAGIC + b"\x01\x9f"):
        with pytest.raises(LayoutError):
            decode_layout(prefix + junk)


def test_unknown_versions_long_documents_and_loose_encodings_are_refused():
    good = encode_layout(LAYOUT)
    with pytest.raises(LayoutError, match="version 02"):
        decode_layout(MAGIC + b"\x02" + good[5:])
    with pytest.raises(LayoutError, match="limit"):
        decode_layout(bytes(MAX_LAYOUT_BYTES + 1))
    assert good[6] == 1  # the epoch, as the shortest integer
    with pytest.raises(LayoutError, match="canonical"):
        decode_layout(good[:6] + b"\xcc\x01" + good[7:])


TWICE = replace(
    LAYOUT.sets[1], positions=(LAYOUT.sets[0].positions[0], *LAYOUT.sets[1].positions[1:])
)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epoch": 0}, "epoch"),
        ({"cluster": b"short"}, "cluster"),
        ({"k": 1, "m": 2}, "code"),
        ({"codec": ""}, "codec"),
        ({"block": 4096}, "blocks of 4096"),
        ({"chunk": 0}, "chunks of 0"),
        ({"sets": ()}, "sets"),
        ({"sets": LAYOUT.sets[1:]}, "stands at"),
        ({"k": 3}, "positions"),
        ({"sets": (LAYOUT.sets[0], TWICE)}, "two places"),
        ({"nodes": LAYOUT.nodes[:2]}, "unknown node"),
        ({"nodes": (*LAYOUT.nodes, LAYOUT.nodes[0])}, "twice"),
        ({"pools": (Pool("a", (0,)),)}, "pool"),
        ({"pools": (Pool("a", (0,)), Pool("a", (1,)))}, "one name"),
        ({"system": ()}, "system drives"),
        ({"system": LAYOUT.system[:2]}, "system drives"),
        ({"system": LAYOUT.system[:1] * 3}, "twice in the system set"),
        ({"system_set": 0}, "both"),
        ({"system_set": 2, "system": ()}, "system set 2"),
        ({"system_next": LAYOUT.system[:1]}, "beginning"),
        ({"system_next": LAYOUT.system[:2], "system_since": 1}, "size"),
        (
            {"system_next": LAYOUT.system[:1], "system_previous": LAYOUT.system, "system_since": 1},
            "at once",
        ),
        (
            {
                "system": (),
                "system_set": 0,
                "system_previous": LAYOUT.system,
                "system_since": 1,
            },
            "was left",
        ),
    ],
)
def test_a_layout_that_does_not_hold_together_is_refused(changes, why):
    bad = replace(LAYOUT, **changes)
    with pytest.raises(LayoutError, match=why):
        check_layout(bad)
    with pytest.raises(LayoutError):
        encode_layout(bad)


def test_every_drive_is_named_once():
    assert len(LAYOUT.seats()) == 6
    assert set(CHANGING.seats()) == set(LAYOUT.seats()) | {seat(9, 0), seat(9, 1)}
    assert CHANGING.system_seats == LAYOUT.system
    assert CHANGING.sets[0].positions[1].data == "partial"
    assert LAYOUT.system_set == SYSTEM
    assert Seat(DriveId(drive(1000)), NodeId(1)) in LAYOUT.system_seats
