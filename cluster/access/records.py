"""What the registers of users, access keys and policies hold, and under which names. Pure (docs/formats/access.md)."""

import re
from typing import TypeVar

import msgspec

from cluster.errors import ClusterError, ConfigError

MAGIC = b"SCAC"
VERSION = 1
MAX_DOCUMENT = 20_480  # bytes of a policy; a bucket policy of AWS may be as long
MAX_POLICIES = 16  # of one user

USERS, KEYS, POLICIES = b"access/user/", b"access/key/", b"access/policy/"
_NAME = re.compile(r"[A-Za-z0-9._+=@-]{1,64}")
_KEY_ID = re.compile(r"SK[A-Z2-7]{18}")

R = TypeVar("R", bound="Record")


class RecordError(ClusterError):
    """The bytes of a register are no record that this program knows."""


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class User(_Record, frozen=True, tag="user"):
    """Somebody who may hold access keys. `user_id` is new at every creation: a name's next life is another user."""

    name: str
    user_id: bytes
    disabled: bool
    policies: tuple[str, ...]  # names, in order
    created_ms: int


class AccessKey(_Record, frozen=True, tag="key"):
    """An access key of a user. Its secret is sealed with the cluster's key (cluster.secrets)."""

    key_id: str
    sealed: bytes
    user: str
    user_id: bytes
    disabled: bool
    created_ms: int


class Policy(_Record, frozen=True, tag="policy"):
    """A document that says what is allowed; the cluster stores it and does not read it."""

    name: str
    document: str


Record = User | AccessKey | Policy
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_PREFIXES: dict[type[Record], bytes] = {User: USERS, AccessKey: KEYS, Policy: POLICIES}


def user_name(name: str) -> bytes:
    """The register of a user."""
    return USERS + name.encode()


def key_name(key_id: str) -> bytes:
    """The register of an access key."""
    return KEYS + key_id.encode()


def policy_name(name: str) -> bytes:
    """The register of a policy."""
    return POLICIES + name.encode()


def name_of(record: Record) -> bytes:
    """The register that a record belongs into."""
    own = record.key_id if isinstance(record, AccessKey) else record.name
    return _PREFIXES[type(record)] + own.encode()


def check_name(what: str, name: str) -> str:
    """The name of a user or policy, as it is. Raises ConfigError for one that cannot be used."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{what} {name!r}: 1 to 64 letters, digits and ._+=@-")
    return name


def is_key_id(text: str) -> bool:
    """Whether it can be an access key of a user: others are unknown without anybody being asked."""
    return _KEY_ID.fullmatch(text) is not None


def encode_record(record: Record) -> bytes:
    """The document that the register holds."""
    return MAGIC + bytes([VERSION]) + msgspec.msgpack.encode(record)


def decode_record(name: bytes, data: bytes, kind: type[R]) -> R:
    """Inverse of encode_record for the register of that name. Raises RecordError on anything else."""
    if data[: len(MAGIC)] != MAGIC:
        raise RecordError(f"{name.decode()} is no record of users, keys or policies")
    version = data[len(MAGIC) : len(MAGIC) + 1]
    if version != bytes([VERSION]):
        raise RecordError(
            f"{name.decode()} has format {version.hex() or 'missing'}, which this program does not know"
        )
    try:
        record = _decoder.decode(data[len(MAGIC) + 1 :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{name.decode()} cannot be read: {error}") from error
    if not isinstance(record, kind) or name_of(record) != name:
        raise RecordError(f"{name.decode()} holds what belongs elsewhere")
    return record
