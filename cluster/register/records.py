"""What a register holds: versions of one key, open uploads, and the memory that makes writes happen at most once.

Everything here is frozen, array-like msgspec: it is stored and sent as it stands (docs/formats/records.md). The
cluster does not read `attributes` (S3's metadata) nor invent `validator` (S3's ETag); it stores and compares them.
"""

from typing import NewType

import msgspec

from cluster.clock import BALLOT_ZERO, Ballot
from cluster.ids import DataId, OpId, UploadId

BodyId = NewType(
    "BodyId", bytes
)  # 16 bytes, unique: the data id of an inline object, or the hash of a part list

INLINE_LIMIT = (
    4096  # bytes of an object that live in the record itself, replicated on all n home drives
)
PARTS_IN_RECORD = 16  # a longer part list lies in a body row of its own, so that HEAD and LIST cost nothing per part


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of all stored structs: positional on the wire, frozen in memory.

    They hold nothing that could refer back to them, so the garbage collector need not look at them: a page of a listing
    makes five thousand, a row cache keeps as many.
    """


class Part(_Record, frozen=True):
    """One body as it was written: a whole PUT, or one part of a multipart upload."""

    number: int  # part number as S3 knows it; 1 for a plain PUT
    size: int  # bytes of plaintext
    validator: str  # the part's ETag
    attributes: bytes  # opaque: the part's checksums
    data_id: DataId
    intro: Ballot  # ballot at which this data_id entered the KeyState
    codec: str  # identity of the code, e.g. "isa_l_rs_cauchy/8"
    set_id: int  # position p lives on layout.sets[set_id][p]
    k: int
    m: int
    block: int  # bytes of a block: the unit of coding and of CRC
    staged: int  # bitmap of the n positions that were durable at commit
    digest_root: bytes  # XXH3-128 over the list of stripe digests


class BodyRef(_Record, frozen=True):
    """A body row beside the record: an inline object's bytes, or an encoded part list."""

    id: BodyId
    size: int  # bytes of the body row
    digest: bytes  # XXH3-128 of the body row
    count: int = 0  # parts in an encoded part list; 0: the bytes of an inline object


class Version(_Record, frozen=True):
    """One version of a key, or a delete marker. Exactly one of body and parts, or neither for an empty object."""

    version_id: (
        bytes | None
    )  # its stamp, packed; None: S3's "null" version, of which a key has at most one
    delete_marker: bool
    stamp: Ballot  # ballot of its introduction, for ever: versions of a key are ordered by it
    op_hlc: int  # hybrid clock when the coordinator began to commit: the age rule I8
    size: int
    validator: str
    attributes: bytes
    mtime_ms: int
    body: BodyRef | None = None
    parts: tuple[Part, ...] = ()
    upload_id: UploadId | None = None  # of the multipart upload that made it


class Upload(_Record, frozen=True):
    """An open multipart upload. Closed is absent: `done` remembers the last completions."""

    upload_id: UploadId
    created: Ballot
    attributes: bytes
    mtime_ms: int


class Done(_Record, frozen=True):
    """A completed upload, so that a repeated Complete gets the same answer."""

    upload_id: UploadId
    stamp: Ballot
    validator: str


class Applied(_Record, frozen=True):
    """An operation that is part of this state: the memory that makes its effect happen at most once (I19)."""

    op_id: OpId
    ballot: Ballot
    removed: tuple[DataId, ...]  # data that this operation superseded: collectable once chosen


class KeyState(_Record, frozen=True):
    """The value of one register. Unversioned: at most one version; no version and no upload is a tombstone."""

    versions: tuple[Version, ...] = ()  # newest first: their stamps fall strictly
    uploads: tuple[Upload, ...] = ()  # by creation
    done: tuple[Done, ...] = ()  # the last 16
    ring: tuple[Applied, ...] = ()  # oldest first; the last one made this state

    @property
    def head(self) -> Version | None:
        """The newest version (it may be a delete marker); None: there is no version."""
        return self.versions[0] if self.versions else None

    @property
    def live(self) -> Version | None:
        """The current version that a plain GET serves; None: absent, or a delete marker."""
        head = self.head
        return head if head is not None and not head.delete_marker else None

    @property
    def is_tombstone(self) -> bool:
        """Whether nothing is left but the memory of what was."""
        return not self.versions and not self.uploads

    def body_ids(self) -> frozenset[BodyId]:
        """The body rows that this state refers to."""
        return frozenset(v.body.id for v in self.versions if v.body is not None)


EMPTY = KeyState()


class Register(_Record, frozen=True):
    """What one drive holds for one key: (acc_ballot, state, chosen). Absent is ⊥ = (0, empty, not chosen)."""

    ballot: Ballot = BALLOT_ZERO
    state: KeyState = EMPTY
    chosen: bool = False


BOTTOM = Register()

_encoder = msgspec.msgpack.Encoder()
_state_decoder = msgspec.msgpack.Decoder(KeyState)
_parts_decoder = msgspec.msgpack.Decoder(tuple[Part, ...])


def encode_state(state: KeyState) -> bytes:
    """The stored form of a state."""
    return _encoder.encode(state)


def decode_state(data: bytes | memoryview) -> KeyState:
    """Inverse of encode_state. Raises msgspec.DecodeError (ValidationError included) on anything else."""
    try:
        return _state_decoder.decode(data)
    except UnicodeDecodeError as error:  # msgspec lets it through
        raise msgspec.DecodeError(str(error)) from error


def encode_parts(parts: tuple[Part, ...]) -> bytes:
    """The body row of a long part list."""
    return _encoder.encode(parts)


def decode_parts(data: bytes) -> tuple[Part, ...]:
    """Inverse of encode_parts. Raises msgspec.DecodeError on anything else."""
    try:
        return _parts_decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(str(error)) from error
