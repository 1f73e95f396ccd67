"""The Range header: RFC 9110 section 14 with S3's habits."""

import pytest
from hypothesis import given, strategies as st

from s3.errors import S3Error
from s3.ranges import parse_copy_range, parse_range


@pytest.mark.parametrize(
    ("header", "size", "span"),
    [
        (None, 10, None),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=9-9", 10, (9, 10)),
        ("bytes=2-99", 10, (2, 10)),
        ("bytes=-1", 10, (9, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=5-2", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("items=0-1", 10, None),
        ("bytes=0x1-2", 10, None),
        ("", 10, None),
    ],
)
def test_ranges(header: str | None, size: int, span: tuple[int, int] | None) -> None:
    assert parse_range(header, size) == span


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-5", 0)],
)
def test_ranges_that_hold_nothing(header: str, size: int) -> None:
    with pytest.raises(S3Error) as caught:
        parse_range(header, size)
    assert caught.value.status == 416
    assert caught.value.headers == ((b"Content-Range", b"bytes */%d" % size),)


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_gives_what_a_slice_gives(size: int, first: int, last: int) -> None:
    data = bytes(range(size))
    try:
        span = parse_range(f"bytes={first}-{last}", size)
    except S3Error:
        assert not data[first : last + 1]
        return
    if span is not None:
        assert data[span[0] : span[1]] == data[first : last + 1]
        assert 0 <= span[0] < span[1] <= size
    else:
        assert last < first


@given(
    st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}"), st.integers(0, 1 << 50)
)
def test_any_header_gives_a_range_or_an_error(header: str, size: int) -> None:
    for parse in (parse_range, parse_copy_range):
        try:
            span = parse(header, size)
        except S3Error:
            continue
        assert span is None or 0 <= span[0] < span[1] <= size


def test_ranges_of_sources() -> None:
    assert parse_copy_range("bytes=0-9", 10) == (0, 10)
    for header, code in (
        ("bytes=0-10", "InvalidRange"), ("bytes=5-4", "InvalidRange"), ("bytes=0-", "InvalidArgument"), ("0-1", "InvalidArgument"),
    ):  # fmt: skip
        with pytest.raises(S3Error) as caught:
            parse_copy_range(header, 10)
        assert caught.value.code == code
