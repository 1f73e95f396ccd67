"""Records cross the register unchanged, in pinned bytes; anything else is one named error."""

import pytest
from hypothesis import given, strategies as st

from cluster.access.records import (
    AccessKey,
    Policy,
    RecordError,
    User,
    check_name,
    decode_record,
    encode_record,
    is_key_id,
    name_of,
)
from cluster.errors import ConfigError

USER = User(name="ann", user_id=b"u" * 16, disabled=False, policies=("readonly",), created_ms=7)
KEY = AccessKey(
    key_id="SK" + "A" * 18, sealed=b"x", user="ann", user_id=b"u" * 16, disabled=True, created_ms=8
)
POLICY = Policy(name="mine", document="{}")
PINNED = {
    USER: "534341430196a475736572a3616e6ec410" + "75" * 16 + "c291a8726561646f6e6c7907",
    KEY: "534341430197a36b6579b4534b" + "41" * 18 + "c40178a3616e6ec410" + "75" * 16 + "c308",
    POLICY: "534341430193a6706f6c696379a46d696e65a27b7d",
}  # fmt: skip


@pytest.mark.parametrize("record", PINNED, ids=lambda record: type(record).__name__)
def test_the_stored_bytes_are_pinned(record):
    data = encode_record(record)
    assert data.hex() == PINNED[record]
    assert decode_record(name_of(record), data, type(record)) == record


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        (b"access/user/bob", encode_record(USER), User),  # another's
        (b"access/user/ann", encode_record(POLICY), User),
        (b"access/user/ann", b"SCAC\x02" + encode_record(USER)[5:], User),
        (b"access/user/ann", b"SCLY\x01" + encode_record(USER)[5:], User),
        (b"access/user/ann", encode_record(USER) + b"\0", User),
        (b"access/user/ann", b"", User),
    ],
)
def test_what_is_not_the_record_of_that_name_is_refused(name, data, kind):
    with pytest.raises(RecordError):
        decode_record(name, data, kind)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_one_error(tail):
    with pytest.raises(RecordError):
        decode_record(b"access/user/nobody", b"SCAC\x01" + tail, User)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "é", "x" * 65, "a\n"])
def test_names_that_cannot_be_used(name):
    with pytest.raises(ConfigError):
        check_name("user", name)


def test_the_shape_of_key_ids():
    assert is_key_id("SK" + "A2" * 9)
    for text in (
        "",
        "SK",
        "AK" + "A" * 18,
        "SK" + "A" * 19,
        "SK" + "a" * 18,
        "SK" + "A" * 18 + "\n",
    ):
        assert not is_key_id(text)  # fmt: skip


def test_a_sealed_secret_does_not_show():
    assert "secret" not in repr(KEY)
