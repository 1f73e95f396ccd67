"""The words in which S3 and the object store speak of buckets, objects, uploads and listings."""

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from cluster.ids import BucketId, UploadId
from cluster.register.mutations import Absent, Precondition, Present, ValidatorIn
from cluster.register.records import Part, Upload, Version

Blob = bytes | bytearray | memoryview

__all__ = [  # S3 knows the store through this module; what lies below is the cluster's own business
    "NULL_VERSION", "Absent", "Bucket", "Digest", "Entry", "Listing", "Object", "Objects", "Part", "PartChoice", "PartInfo",
    "Precondition", "Present", "PutRequest", "Reader", "Seal", "Source", "Upload", "UploadInfo", "ValidatorIn", "Version",
    "VersionEntry", "VersionListing", "VersionPlace", "Versioning",
]  # fmt: skip

# How a caller names the version that has no id; every other id is the 16 bytes of Version.version_id.
NULL_VERSION = b""


class Versioning(enum.Enum):
    """What a put does to the version before it. A bucket leaves UNVERSIONED once, and for ever."""

    UNVERSIONED = "unversioned"  # takes its place; a deletion leaves nothing
    ENABLED = "enabled"  # stands beside it, with an id; a deletion inserts a marker
    SUSPENDED = "suspended"  # takes the place of the null version; so does a marker


@attrs.frozen(kw_only=True)
class Bucket:
    """A bucket as its register says. `epoch` rises with every fence; `generation` never changes."""

    name: str
    bucket_id: BucketId
    epoch: int
    generation: tuple[int, ...]  # set ids, ordered: where the keys' registers live
    created_ms: int
    owner: str
    attributes: bytes  # opaque to the cluster: S3's bucket settings
    versioning: Versioning = Versioning.UNVERSIONED

    @property
    def names_versions(self) -> bool:
        """Whether a put gets an id and leaves the versions before it alone."""
        return self.versioning is Versioning.ENABLED


class Source(Protocol):
    """Where the bytes of a PUT come from."""

    @property
    def size_hint(self) -> int | None:
        """Plaintext bytes, when known beforehand."""
        ...

    async def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer from its start with as much as is there, at least one byte; 0: the end.

        Raises whatever the S3 layer defines for a broken body; the PUT is then abandoned, nothing visible.
        """
        ...


class Digest(Protocol):
    """A running hash over the plaintext (MD5, SHA-256, CRC32C): updated in order, in a worker thread, never concurrently."""

    def update(self, data: Blob, /) -> object:
        """Take the next bytes."""
        ...


@attrs.frozen(kw_only=True)
class Seal:
    """What the S3 layer says of a body once its last byte is hashed and checked."""

    validator: str  # the ETag, without quotes
    attributes: bytes


@attrs.frozen(kw_only=True)
class PutRequest:
    """One body to store under a key."""

    source: Source
    digests: Sequence[Digest] = ()
    seal: Callable[
        [int], Seal
    ]  # called with the size after the last byte was hashed; raises to abandon the PUT
    expect: tuple[Precondition, ...] = ()


@attrs.frozen(kw_only=True)
class UploadInfo:
    """An open multipart upload."""

    key: bytes
    upload: Upload


@attrs.frozen(kw_only=True)
class PartInfo:
    """One uploaded part; `mtime_ms` is when it was committed."""

    part: Part
    mtime_ms: int


@attrs.frozen(kw_only=True)
class PartChoice:
    """A part that Complete lists."""

    number: int
    validator: str


@attrs.frozen(kw_only=True)
class Entry:
    """One row of a listing: a key with its versions (newest first), or a common prefix (versions empty)."""

    key: bytes  # or the common prefix
    versions: tuple[Version, ...]

    @property
    def is_prefix(self) -> bool:
        """Whether this is a common prefix."""
        return not self.versions


@attrs.frozen(kw_only=True)
class Listing:
    """A page, in byte order, keys and common prefixes together. `resume`: start the next page here; None: the end."""

    entries: tuple[Entry, ...]
    resume: bytes | None


@attrs.frozen(kw_only=True)
class VersionEntry:
    """One row of a listing of versions: a version or delete marker of a key, or a common prefix (no version)."""

    key: bytes  # or the common prefix
    version: Version | None = None
    is_latest: bool = False


@attrs.frozen
class VersionPlace:
    """Where a listing of versions goes on: at a key, behind one of its versions (None: at its newest).

    `behind` is the version's packed stamp, which is its id if it has one, and says where it was when it is gone;
    NULL_VERSION is the null version where it is now, and where there is none, the key begins at its newest.
    """

    key: bytes
    behind: bytes | None = None


@attrs.frozen(kw_only=True)
class VersionListing:
    """A page: keys in byte order, versions of a key from the newest on. `resume` None: the end."""

    entries: tuple[VersionEntry, ...]
    resume: VersionPlace | None


class Reader(Protocol):
    """A range of one version, verified before it is handed out."""

    async def next(self) -> Sequence[memoryview] | None:
        """The next verified buffers (at most one chunk), valid until the next call, which empties the list; None: the end.

        Raises CorruptError or UnavailableError; after the first buffer went out, the caller must break off the
        connection, never end the body cleanly.
        """
        ...

    async def aclose(self) -> None:
        """Give the buffers back. Idempotent."""
        ...


class Object(Protocol):
    """One version of a key, found and ready to be read."""

    @property
    def version(self) -> Version:
        """The record. Its part list may be a body row: ask `parts`."""
        ...

    async def parts(self) -> tuple[Part, ...]:
        """The part list, fetched if it lies beside the record; () for inline and empty objects."""
        ...

    async def open(self, start: int, stop: int) -> Reader:
        """Read bytes start..stop-1, 0 <= start <= stop <= size. The first chunk is verified when this returns."""
        ...


class Objects(Protocol):
    """Everything that S3 may see of the cluster. Errors: cluster.errors.

    Bucket arguments are as `get_bucket` returned them; a bucket that was deleted or fenced meanwhile raises
    NotFoundError("bucket").
    """

    async def create_bucket(self, name: str, owner: str, attributes: bytes) -> Bucket:
        """Raises ExistsError."""
        ...

    async def get_bucket(self, name: str) -> Bucket:
        """Linearizable; a miss is never cached. Raises NotFoundError("bucket")."""
        ...

    async def list_buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        ...

    async def delete_bucket(self, bucket: Bucket) -> None:
        """Raises NotEmptyError: versions and delete markers keep a bucket. Open uploads do not; they go with it."""
        ...

    async def set_versioning(self, bucket: Bucket, versioning: Versioning) -> Bucket:
        """Enable or suspend versioning; the bucket as it is now. No write that begins later is one of the old mode.

        Raises NotFoundError("bucket"), and UnavailableError: the new mode may stand then, and a repetition completes it.
        """
        ...

    async def put(self, bucket: Bucket, key: bytes, request: PutRequest) -> Version:
        """Store a body. Returns the version as committed.

        Raises PreconditionError, TooManyVersionsError, StorageFullError, UnavailableError.
        """
        ...

    async def get(self, bucket: Bucket, key: bytes, version_id: bytes | None = None) -> Object:
        """The current version, or the one of that id.

        Raises NotFoundError("key"), NotFoundError("version"), DeleteMarkerError.
        """
        ...

    async def copy(
        self, source: Object, bucket: Bucket, key: bytes, request: PutRequest
    ) -> Version:
        """Store source's bytes anew under a key; request.source reads from it (see `object_source`)."""
        ...

    async def delete(
        self,
        bucket: Bucket,
        key: bytes,
        expect: tuple[Precondition, ...] = (),
        *,
        version_id: bytes | None = None,
    ) -> Version | None:
        """Remove the version of that id; without one, the object in the bucket's mode: a marker, where it keeps versions.

        `expect` is about the current version, and where there is none it is a success whatever it says, as S3 has it.
        Returns the marker that was inserted, or else the version that was removed, as far as that is known: None where
        nothing was, or where a repeated proposal met its own effect. Raises PreconditionError, TooManyVersionsError.
        """
        ...

    async def check(self, bucket: Bucket, key: bytes, expect: tuple[Precondition, ...]) -> None:
        """Whether a write with these preconditions would be refused now. Raises PreconditionError."""
        ...

    async def list(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: bytes, limit: int
    ) -> Listing:
        """Live keys >= start (byte order) that begin with prefix; common prefixes count like keys. limit >= 1."""
        ...

    async def list_versions(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, start: VersionPlace, limit: int
    ) -> VersionListing:
        """Versions and delete markers from `start` on, of keys that begin with prefix; common prefixes count. limit >= 1."""
        ...

    async def create_upload(self, bucket: Bucket, key: bytes, attributes: bytes) -> UploadId:
        """Open a multipart upload."""
        ...

    async def get_upload(self, bucket: Bucket, key: bytes, upload: UploadId) -> Upload:
        """Raises NotFoundError("upload")."""
        ...

    async def put_part(
        self, bucket: Bucket, key: bytes, upload: UploadId, number: int, request: PutRequest
    ) -> Part:
        """Store a part; the last finisher of a number wins. Raises NotFoundError("upload")."""
        ...

    async def list_parts(
        self, bucket: Bucket, key: bytes, upload: UploadId, *, after: int, limit: int
    ) -> tuple[Sequence[PartInfo], bool]:
        """Parts with number > after, ascending, and whether there are more. Raises NotFoundError("upload")."""
        ...

    async def complete_upload(
        self,
        bucket: Bucket,
        key: bytes,
        upload: UploadId,
        choices: Sequence[PartChoice],
        judge: Callable[[Upload, Sequence[Part]], Seal],
        expect: tuple[Precondition, ...] = (),
    ) -> Version:
        """Make the listed parts the object: one compare-and-set. Idempotent: a repeat returns the same version.

        `judge` sees the chosen parts in order and returns the object's validator and attributes, or raises.
        Raises NotFoundError("upload"), NotFoundError("part") (missing, or another validator), PreconditionError.
        """
        ...

    async def abort_upload(self, bucket: Bucket, key: bytes, upload: UploadId) -> None:
        """Raises NotFoundError("upload")."""
        ...

    async def list_uploads(
        self, bucket: Bucket, *, prefix: bytes, start: bytes, limit: int
    ) -> tuple[Sequence[UploadInfo], bool]:
        """Open uploads by (key, creation) with key >= start, whole keys only, and whether there are more."""
        ...
