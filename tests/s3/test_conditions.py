"""Conditions by the table of RFC 9110 section 13.2.2, and the writes' as preconditions."""

import pytest
from hypothesis import given, strategies as st

from cluster.objects.model import Absent, Present, ValidatorIn
from s3.conditions import check_read, delete_condition, etags, http_seconds, write_conditions
from s3.errors import S3Error
from s3.messages import Headers

MTIME_MS = 784_111_777_500  # half a second behind the full one
AT = "Sun, 06 Nov 1994 08:49:37 GMT"
BEFORE = "Sun, 06 Nov 1994 08:49:36 GMT"
AFTER = "Sun, 06 Nov 1994 08:49:38 GMT"


def headers(**values: str) -> Headers:
    return Headers(
        [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]
    )


def outcome(sent: Headers, prefix: bytes = b"") -> int:
    try:
        check_read(sent, "abc", MTIME_MS, prefix=prefix)
    except S3Error as error:
        return error.status
    return 200


READS = [
    ({}, 200),
    ({"if_match": '"abc"'}, 200),
    ({"if_match": "abc"}, 200),
    ({"if_match": '"x", "abc"'}, 200),
    ({"if_match": "*"}, 200),
    ({"if_match": '"x"'}, 412),
    ({"if_unmodified_since": AT}, 200),
    ({"if_unmodified_since": AFTER}, 200),
    ({"if_unmodified_since": BEFORE}, 412),
    ({"if_match": '"abc"', "if_unmodified_since": BEFORE}, 200),
    ({"if_match": '"x"', "if_unmodified_since": AFTER}, 412),
    ({"if_none_match": '"abc"'}, 304),
    ({"if_none_match": 'W/"abc"'}, 304),
    ({"if_none_match": "*"}, 304),
    ({"if_none_match": '"x"'}, 200),
    ({"if_modified_since": AT}, 304),
    ({"if_modified_since": AFTER}, 304),
    ({"if_modified_since": BEFORE}, 200),
    ({"if_none_match": '"x"', "if_modified_since": AFTER}, 200),
    ({"if_none_match": '"abc"', "if_modified_since": BEFORE}, 304),
    ({"if_match": '"abc"', "if_none_match": '"abc"'}, 304),
    ({"if_modified_since": "nonsense"}, 200),
    ({"if_unmodified_since": "nonsense"}, 200),
    ({"if_modified_since": "Sun, 06 Nov 1994 08:49:37 -0000"}, 304),
]


@pytest.mark.parametrize(("sent", "status"), READS)
def test_reads(sent: dict[str, str], status: int) -> None:
    assert outcome(headers(**sent)) == status


@pytest.mark.parametrize(("sent", "status"), READS)
def test_sources_of_copies_are_never_304(sent: dict[str, str], status: int) -> None:
    prefixed = headers(**{f"x_amz_copy_source_{name}": value for name, value in sent.items()})
    assert outcome(prefixed, b"x-amz-copy-source-") == (412 if status == 304 else status)


def test_writes() -> None:
    assert write_conditions(headers()) == ()
    assert write_conditions(headers(if_none_match="*")) == (Absent(),)
    assert write_conditions(headers(if_match="*")) == (Present(),)
    assert write_conditions(headers(if_match='"a"')) == (ValidatorIn(validators=("a",)),)
    for refused in ({"if_none_match": '"a"'}, {"if_none_match": "*", "if_match": '"a"'}):
        with pytest.raises(S3Error) as caught:
            write_conditions(headers(**refused))
        assert caught.value.code == "NotImplemented"


def test_deletes() -> None:
    assert delete_condition(None) == ()
    assert delete_condition("*") == (Present(),)
    assert delete_condition('"a"') == (ValidatorIn(validators=("a",)),)


@given(st.text(max_size=60))
def test_no_date_breaks_the_reader(text: str) -> None:
    assert http_seconds(text) is None or isinstance(http_seconds(text), float)


@given(st.binary(max_size=60))
def test_no_tag_breaks_the_reader(value: bytes) -> None:
    sent = Headers([(b"if-none-match", value)])
    assert outcome(sent) in {200, 304}
    assert etags(sent.get(b"if-none-match") or "")
