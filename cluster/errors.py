"""What can go wrong below S3: whose fault it is, and whether a retry can help.

ClusterError
  UnavailableError        a retry may succeed; nothing of the request is half visible
    QuorumError           fewer drives answered than the quorum asks for
    OutcomeUnknownError   the write may or may not have taken effect; it is never half applied
    SupersededError       what was being read was replaced or deleted meanwhile: get it again
    StaleBucketError      the bucket was fenced since it was looked up: look again
    OverloadedError       a bounded queue or budget is full
  StorageFullError        the drives have no room; deletes still work
  NotFoundError           bucket, key, version or upload does not exist
    DeleteMarkerError     what was named is a delete marker
  ExistsError             a bucket of that name exists
  NotEmptyError           a bucket that is not empty cannot be deleted
  PreconditionError       the state did not meet the caller's precondition
  TooManyVersionsError    the key has no room for one more version
  CorruptError            bytes at rest do not match their checksum and cannot be rebuilt
  ConfigError             the operator's input cannot be used; the message says what to do
"""


class ClusterError(Exception):
    """Base of all errors that the cluster raises on purpose; anything else is a bug."""


class UnavailableError(ClusterError):
    """The store cannot answer now. A retry may succeed; nothing is half visible."""


class QuorumError(UnavailableError):
    """Fewer drives answered than the quorum asks for."""

    def __init__(self, needed: int, answered: int, what: str = "answered") -> None:
        super().__init__(f"{answered} of {needed} needed drives {what}")
        self.needed, self.answered = needed, answered


class OutcomeUnknownError(UnavailableError):
    """The write may have taken effect or may still; a read will tell."""


class SupersededError(UnavailableError):
    """The version that was being read was replaced or deleted meanwhile, and its bytes are gone: get the key again."""


class StaleBucketError(UnavailableError):
    """The bucket was fenced since it was looked up: look it up again, it may stand at a higher epoch. Nothing took effect."""

    def __init__(self) -> None:
        super().__init__("the bucket was changed meanwhile")


class OverloadedError(UnavailableError):
    """A bounded queue or budget is full: back off and retry."""


class StorageFullError(ClusterError):
    """Too few drives have room for this object. Deletes still work."""


class NotFoundError(ClusterError):
    """What was named does not exist; `kind` is "bucket", "key", "version", "upload", "part", "user", "access key" or "policy"."""

    def __init__(self, kind: str, name: str = "") -> None:
        super().__init__(f"no such {kind}" + (f": {name}" if name else ""))
        self.kind, self.name = kind, name


class DeleteMarkerError(NotFoundError):
    """The version is a delete marker: the current one, or, with `asked`, the one that was asked for by its id."""

    def __init__(self, version_id: bytes | None, mtime_ms: int, *, asked: bool) -> None:
        super().__init__("key")
        self.version_id, self.mtime_ms, self.asked = version_id, mtime_ms, asked


class ExistsError(ClusterError):
    """A bucket of that name exists already."""


class NotEmptyError(ClusterError):
    """The bucket holds versions or delete markers."""


class PreconditionError(ClusterError):
    """The state did not meet the caller's precondition. `absent`: there was no live object."""

    def __init__(
        self, message: str = "the precondition does not hold", *, absent: bool = False
    ) -> None:
        super().__init__(message)
        self.absent = absent


class TooManyVersionsError(ClusterError):
    """The key has as many versions as its record can hold: some must be deleted before another is put."""

    def __init__(self, versions: int) -> None:
        super().__init__(f"a record cannot hold more than these {versions} versions")
        self.versions = versions


class CorruptError(ClusterError):
    """Bytes at rest do not match their checksum and cannot be rebuilt from the others."""


class ConfigError(ClusterError):
    """The operator's input cannot be used; the message says what to do about it."""
