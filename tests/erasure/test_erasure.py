"""Any k of n shards give the data back; any damage is found; geometry agrees with a byte array."""

import itertools
import random

import pytest
from hypothesis import given, settings, strategies as st

from cluster.erasure.codec import CODEC, codec_for
from cluster.erasure.geometry import Geometry
from cluster.erasure.profile import (
    DEFAULT_CODES,
    Profile,
    default_profile,
    parse_profile,
    whole_sets,
)
from cluster.erasure.shard_format import (
    ShardFormatError,
    ShardHeader,
    block_crc,
    check_header,
    digest_root,
    pack_footer,
    pack_header,
    unpack_footer,
)  # fmt: skip
from cluster.errors import ConfigError, CorruptError
from cluster.ids import ClusterId, DataId, RowKey

CLUSTER = ClusterId(b"c" * 16)
PROFILES = [
    (1, 0),
    (1, 1),
    (2, 1),
    (2, 2),
    (4, 2),
    (6, 3),
    (8, 4),
    (7, 5),
    (6, 6),
    (10, 10),
    (15, 5),
    (5, 0),
]


def header(position=0):
    return ShardHeader(
        data_id=DataId(b"d" * 16),
        owner=RowKey(b"owner"),
        position=position,
        k=4,
        m=2,
        block=64,
        codec=CODEC,
    )


@pytest.mark.parametrize(("k", "m"), PROFILES)
def test_any_k_of_n_blocks_give_the_stripe_back(k, m):
    rng = random.Random(k * 100 + m)
    codec = codec_for(k, m)
    for length in (1, 7, 64, 1000):
        plaintext = rng.randbytes(k * length)
        blocks = [plaintext[i * length : (i + 1) * length] for i in range(k)]
        blocks += [bytes(block) for block in codec.parity(plaintext)]
        assert all(len(block) == length for block in blocks)
        losses = list(itertools.combinations(range(k + m), m))
        rng.shuffle(losses)
        for lost in losses[:25]:
            kept = {p: block for p, block in enumerate(blocks) if p not in lost}
            assert codec.decode(kept, length) == plaintext
            assert codec.rebuild(kept, length, lost) == [blocks[p] for p in lost]


def test_too_few_blocks_are_an_error():
    with pytest.raises(CorruptError):
        codec_for(4, 2).decode({0: b"a", 1: b"b", 5: b"c"}, 1)


def test_a_foreign_code_is_refused():
    with pytest.raises(CorruptError):
        codec_for(4, 2, "jerasure_rs_vand/8")


@given(
    size=st.integers(0, 5000),
    k=st.integers(1, 6),
    block=st.integers(1, 64),
    chunk=st.integers(1, 500),
    data=st.data(),
)
def test_geometry_agrees_with_a_byte_array(size, k, block, chunk, data):
    shape = Geometry(size=size, k=k, block=block, chunk=chunk)
    body = bytes(i % 251 for i in range(size))
    shards = [b""] * k
    for stripe in range(shape.stripes):
        start, stop = shape.stripe_range(stripe)
        length = shape.block_bytes(stripe)
        padded = body[start:stop].ljust(k * length, b"\0")
        for p in range(k):
            shards[p] += padded[p * length : (p + 1) * length]
    assert {len(shard) for shard in shards} == {shape.shard_bytes}
    if size:
        a = data.draw(st.integers(0, size - 1))
        b = data.draw(st.integers(a + 1, size))
        got, covered = b"", []
        for run in shape.chunks_for(a, b):
            covered += list(run)
            assert len(run) <= shape.stripes_per_chunk
            for stripe in run:
                start, stop = shape.stripe_range(stripe)
                offset, length = stripe * block, shape.block_bytes(stripe)
                got += b"".join(shard[offset : offset + length] for shard in shards)[: stop - start]
        first = shape.stripe_range(covered[0])[0]
        assert got[a - first : b - first] == body[a:b]
        assert covered == list(shape.stripes_for(a, b))


@given(st.binary(min_size=1, max_size=300), st.integers(0, 5), st.integers(0, 1000), st.data())
def test_any_flipped_bit_and_any_other_place_fails_the_crc(payload, position, number, data):
    good = block_crc(b"d" * 16, position, number, payload)
    bit = data.draw(st.integers(0, len(payload) * 8 - 1))
    damaged = bytearray(payload)
    damaged[bit // 8] ^= 1 << bit % 8
    assert block_crc(b"d" * 16, position, number, damaged) != good
    assert block_crc(b"d" * 16, position + 1, number, payload) != good
    assert block_crc(b"d" * 16, position, number + 1, payload) != good
    assert block_crc(b"e" * 16, position, number, payload) != good


@given(st.data())
@settings(max_examples=200)
def test_any_damage_to_header_or_footer_is_found(data):
    packed = bytearray(pack_header(header(), CLUSTER))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ShardFormatError):
        check_header(bytes(packed), header(), CLUSTER)
    footer = bytearray(pack_footer(header(), 100, bytes(32)))
    footer[data.draw(st.integers(0, len(footer) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ShardFormatError):
        unpack_footer(bytes(footer), header().data_id)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_footer_or_an_error(junk):
    with pytest.raises(ShardFormatError):
        unpack_footer(junk, b"d" * 16)


def test_header_and_footer_survive_the_round_trip():
    check_header(pack_header(header(3), CLUSTER), header(3), CLUSTER)
    with pytest.raises(ShardFormatError):
        check_header(pack_header(header(3), CLUSTER), header(2), CLUSTER)
    footer = unpack_footer(b"payload" + pack_footer(header(), 7, b"1" * 32), header().data_id)
    assert (footer.payload_bytes, footer.digests) == (7, b"1" * 32)
    assert digest_root([b"1" * 16, b"1" * 16]) == digest_root(b"1" * 32)


@pytest.mark.parametrize(
    "text", ["", "4", "4+", "+2", "a+b", "0+1", "2+3", "18+3", "4+2+1", "-4+2", "400+2"]
)
def test_a_bad_code_is_refused(text):
    with pytest.raises(ConfigError):
        parse_profile(text)


@pytest.mark.parametrize(
    ("drives", "code"),
    [(1, "1+0"), (3, "2+1"), (4, "2+2"), (6, "4+2"), (12, "8+4"), (24, "8+4"), (18, "6+3")],
)
def test_the_default_code_follows_from_the_number_of_drives(drives, code):
    assert str(default_profile(drives)) == code
    assert whole_sets(drives, default_profile(drives)) * default_profile(drives).n == drives
    assert set(DEFAULT_CODES) == set(range(1, 13))


def test_numbers_that_make_no_whole_sets_name_the_nearest_that_do():
    with pytest.raises(ConfigError, match="12 or 14"):
        default_profile(13)
    with pytest.raises(ConfigError, match="6 or 12"):
        whole_sets(7, Profile(4, 2))
    with pytest.raises(ConfigError):
        default_profile(0)
