"""Attributes of objects: stored as they were said, in few bytes."""

from hypothesis import given, strategies as st

from s3.checksums import ALGORITHMS
from s3.errors import S3Error
from s3.messages import Headers, http_date
from s3.object_meta import (
    ObjectMeta,
    PartMeta,
    decode,
    decode_part,
    encode,
    from_headers,
    response_headers,
    with_checksum,
)

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        ObjectMeta, content_type=WORDS, headers=st.dictionaries(WORDS, WORDS, max_size=3),
        user=st.dictionaries(WORDS, WORDS, max_size=3), checksum=WORDS, checksum_type=WORDS, checksum_value=WORDS,
        storage_class=WORDS,
    )
)  # fmt: skip
def test_attributes_come_back(meta: ObjectMeta) -> None:
    assert decode(encode(meta)) == meta


@given(WORDS, st.binary(max_size=32))
def test_attributes_of_parts_come_back(checksum: str, value: bytes) -> None:
    part = PartMeta(checksum=checksum, value=value)
    assert decode_part(encode(part)) == part


def test_no_attributes_are_the_default_ones() -> None:
    assert decode(b"") == ObjectMeta()
    assert decode_part(b"") == PartMeta()
    assert len(encode(ObjectMeta())) < 40


def test_an_older_record_is_read() -> None:
    plain = ObjectMeta(content_type="a/b", user={"k": "v"})
    shorter = encode(plain)
    assert shorter[0] == 0x97  # an array of seven; the last one came later
    without_last = bytes([0x96]) + shorter[1:-1]
    assert decode(without_last) == plain


NAMES = st.sampled_from([
    b"content-type", b"cache-control", b"content-encoding", b"expires", b"x-amz-meta-a", b"x-amz-meta-", b"x-amz-acl",
    b"x-amz-storage-class", b"x-amz-tagging", b"x-amz-grant-read", b"host",
])  # fmt: skip
VALUES = st.binary(max_size=30).map(
    lambda value: bytes(c for c in value if c >= 0x20 and c != 0x7F)
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
def test_any_headers_are_attributes_or_an_error(items: list[tuple[bytes, bytes]]) -> None:
    try:
        meta = from_headers(Headers(items))
    except S3Error as error:
        assert error.status in {400, 501}  # noqa: PT017
        return
    assert decode(encode(meta)) == meta
    for name, value in response_headers(meta, {}):
        assert b"\r" not in name + value
        assert b"\n" not in name + value


def test_a_repeated_name_is_joined() -> None:
    meta = from_headers(Headers([(b"x-amz-meta-a", b"1"), (b"x-amz-meta-a", b"2")]))
    assert meta.user == {"a": "1,2"}


def test_a_checksum_is_added() -> None:
    meta = with_checksum(ObjectMeta(), (ALGORITHMS["CRC32"], b"\0\0\0\1"))
    assert (meta.checksum, meta.checksum_type, meta.checksum_value) == (
        "CRC32",
        "FULL_OBJECT",
        "AAAAAQ==",
    )
    assert with_checksum(meta, None) is meta


def test_dates() -> None:
    assert http_date(784_111_777) == b"Sun, 06 Nov 1994 08:49:37 GMT"
