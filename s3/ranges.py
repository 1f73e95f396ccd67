"""The Range header (RFC 9110 section 14): one byte range; S3 ignores what it cannot read."""

import re

from s3.errors import S3Error

_RANGE = re.compile(
    r"bytes=([0-9]{0,40})-([0-9]{0,40})"
)  # some clients mean "to the end" by 2**64 - 1


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes start..stop-1 that are asked for; None: the whole. Raises S3Error InvalidRange (416)."""
    if header is None:
        return None
    found = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if found is None or found[0] == "bytes=-":
        return None  # several ranges, other units, nonsense: the whole object, with 200
    first, last = found[1], found[2]
    if not first:
        length = int(last)
        if length == 0 or size == 0:
            raise unsatisfiable(header, size)
        return max(0, size - length), size
    start = int(first)
    stop = size if not last else min(int(last) + 1, size)
    if last and int(last) < start:
        return None
    if start >= size:
        raise unsatisfiable(header, size)
    return start, stop


def unsatisfiable(header: str, size: int) -> S3Error:
    """The 416 with its Content-Range."""
    return S3Error(
        "InvalidRange",
        headers=((b"Content-Range", b"bytes */%d" % size),),
        RangeRequested=header,
        ActualObjectSize=size,
    )


def parse_copy_range(header: str, size: int) -> tuple[int, int]:
    """x-amz-copy-source-range: both ends given and inside the source. Raises S3Error."""
    found = re.fullmatch(r"bytes=([0-9]{1,19})-([0-9]{1,19})", header)
    if found is None:
        raise S3Error(
            "InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last",
            ArgumentName="x-amz-copy-source-range", ArgumentValue=header,
        )  # fmt: skip
    start, stop = int(found[1]), int(found[2]) + 1
    if start >= stop or stop > size:
        raise S3Error("InvalidRange", RangeRequested=header, ActualObjectSize=size)
    return start, stop
