"""Bucket names, keys, XML in and out."""

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, strategies as st

from s3.errors import CODES, S3Error
from s3.names import check_key, is_bucket_name
from s3.ops.completing import parse_complete
from s3.ops.delete_many import parse_delete
from s3.xml import MAX_DEPTH, document, element, parse, text, timestamp


@pytest.mark.parametrize("name", ["abc", "a-b", "a.b.c", "123", "0" * 63, "1.2.3.4.5", "a1.b-2"])
def test_bucket_names(name: str) -> None:
    assert is_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "ab", "a" * 64, "A-b", "a_b", "-ab", "ab-", ".ab", "ab.", "a..b", "192.168.5.4", "xn--ab", "sthree-ab", "ab-s3alias",
        "ab--ol-s3", "a/b", "a b", "äöü", "abc\n", "..", "-",
    ],
)  # fmt: skip
def test_names_that_no_bucket_has(name: str) -> None:
    assert not is_bucket_name(name)


@given(st.binary(max_size=1100))
def test_a_key_is_utf8_of_up_to_1024_bytes(key: bytes) -> None:
    try:
        key.decode()
        is_text = True
    except UnicodeDecodeError:
        is_text = False
    try:
        check_key(key)
    except S3Error as error:
        code: str | None = error.code
    else:
        code = None
    expected = "KeyTooLongError" if len(key) > 1024 else None if is_text else "InvalidURI"
    assert code == expected


XML_TEXT = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=[
        *map(chr, range(0x20)), "\ufffe", "\uffff",
    ]) | st.sampled_from("\t\n\r&<>\"'")
)  # fmt: skip


@given(XML_TEXT)
def test_what_is_written_is_read_back(value: str) -> None:
    data = document("Root", element("Value", value))
    assert ET.fromstring(data)[0].text == (value or None)
    got = parse(data, "Root").children[0].text
    assert got == value


@given(st.text())
def test_any_text_is_escaped(value: str) -> None:
    escaped = text(value)
    assert "<" not in escaped
    assert ">" not in escaped
    assert not any(ord(char) < 0x20 and char not in "\t\n" for char in escaped)


def test_times_have_milliseconds() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(784_111_777_007) == "1994-11-06T08:49:37.007Z"


BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>'
OUTSIDE = b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><Delete/>'


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"<", b"<Delete>", b"<Delete></delete>", b"<Other/>", b"<Delete/><Delete/>", b"text", b"\xff\xfe", b"\0",
        BOMB, OUTSIDE, b"<!DOCTYPE Delete><Delete/>", b"<Delete>&nothing;</Delete>",
        b'<?xml version="1.0" encoding="nonsense"?><Delete/>',
        b"<Delete>" + b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH + b"</Delete>",
        b"<Delete>" + b"<a/>" * 60_001 + b"</Delete>",
    ],
)  # fmt: skip
def test_documents_that_are_refused(data: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        parse(data, "Delete")
    assert caught.value.code == "MalformedXML"


def test_documents_that_are_read() -> None:
    plain = b"<Delete><Quiet> true </Quiet><Object><Key> a </Key></Object></Delete>"
    spaced = plain.replace(b"<Delete>", b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">')
    wide = b"\xff\xfe" + f'<?xml version="1.0" encoding="utf-16"?>{plain.decode()}'.encode(
        "utf-16-le"
    )
    for data in (plain, spaced, b"\xef\xbb\xbf" + plain, wide):
        entries, quiet = parse_delete(data)
        assert [entry.key for entry in entries] == [" a "]
        assert quiet


PIECES = st.sampled_from([
    b"<Delete>", b"</Delete>", b"<Object>", b"</Object>", b"<Key>", b"</Key>", b"k", b"<ETag>", b"</ETag>", b"&amp;", b"&x;", b"1",
    b"<CompleteMultipartUpload>", b"</CompleteMultipartUpload>", b"<Part>", b"</Part>", b"<PartNumber>", b"</PartNumber>",
    b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?xml?>", b"\xff", b"\0", b"<!DOCTYPE a>",
])  # fmt: skip


@given(st.binary(max_size=200) | st.lists(PIECES, max_size=20).map(b"".join))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (parse_delete, parse_complete):
        try:
            read(data)
        except S3Error as error:
            assert error.code in {"MalformedXML", "InvalidArgument", "InvalidPartOrder"}  # noqa: PT017


def test_every_code_has_a_status_and_a_text() -> None:
    for code, (status, message) in CODES.items():
        error = S3Error(code)
        assert (error.status, error.message) == (status, message)
        assert 300 <= status < 600
        assert message
