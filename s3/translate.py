"""The store's errors in S3's words: the one place where they meet."""

import attrs

from cluster.errors import (
    ClusterError,
    CorruptError,
    DeleteMarkerError,
    ExistsError,
    NotEmptyError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    StorageFullError,
    TooManyVersionsError,
    UnavailableError,
)
from s3.errors import S3Error
from s3.messages import Headers, http_date
from s3.router import Route
from s3.versions import DELETE_MARKER, VERSION_ID, version_text

RETRY_AFTER = ((b"Retry-After", b"1"),)


@attrs.frozen(kw_only=True)
class Subject:
    """What a request is about, for the facts in its errors."""

    bucket: str | None = None
    key: str | None = None
    version: str | None = None
    upload: str | None = None
    condition: str | None = None  # the header that carries the precondition


def subject_of(found: Route, headers: Headers) -> Subject:
    """The subject of a routed request."""
    named = [n for n in ("If-None-Match", "If-Match") if n.lower().encode() in headers]
    return Subject(
        bucket=found.bucket,
        key=None if found.key is None else found.key.decode(),
        version=found.query.get("versionId"),
        upload=found.query.get("uploadId"),
        condition=named[0] if named else None,
    )


def translate(error: ClusterError, about: Subject) -> S3Error:
    """The S3 error for a cluster error."""
    match error:
        case DeleteMarkerError():
            return _marked(error, about)
        case NotFoundError(kind=kind, name=name):
            return _not_found(kind, name, about)
        case PreconditionError(absent=True):
            return S3Error("NoSuchKey", Key=about.key)
        case PreconditionError():
            return S3Error("PreconditionFailed", Condition=about.condition)
        case ExistsError():
            return S3Error("BucketAlreadyOwnedByYou", BucketName=about.bucket)
        case NotEmptyError():
            return S3Error("BucketNotEmpty", BucketName=about.bucket)
        case TooManyVersionsError(versions=versions):
            return S3Error(
                "InvalidRequest",
                f"The record of the object cannot hold more than its {versions} versions: delete some of them first.",
            )
        case StorageFullError():
            return S3Error("StorageFull")
        case OverloadedError():
            return S3Error("SlowDown", headers=RETRY_AFTER)
        case UnavailableError():
            return S3Error("ServiceUnavailable", headers=RETRY_AFTER)
        case CorruptError():
            return S3Error(
                "InternalError", "The object's data is damaged beyond what its parity can restore."
            )
        case _:
            return S3Error("InternalError")


def _marked(error: DeleteMarkerError, about: Subject) -> S3Error:
    """A delete marker is no object; asked for by its id it is there, and can only be deleted."""
    headers = (DELETE_MARKER, (VERSION_ID, version_text(error.version_id).encode()))
    if not error.asked:
        return S3Error("NoSuchKey", headers=headers, Key=about.key)
    more = ((b"Allow", b"DELETE"), (b"Last-Modified", http_date(error.mtime_ms // 1000)))
    return S3Error("MethodNotAllowed", headers=(*headers, *more), ResourceType="DeleteMarker")


def _not_found(kind: str, name: str, about: Subject) -> S3Error:
    match kind:
        case "bucket":
            return S3Error("NoSuchBucket", BucketName=about.bucket)
        case "upload":
            return S3Error("NoSuchUpload", UploadId=about.upload)
        case "part":
            return S3Error("InvalidPart", UploadId=about.upload, PartNumber=name)
        case "version":
            return S3Error("NoSuchVersion", Key=about.key, VersionId=about.version)
        case _:
            return S3Error("NoSuchKey", Key=about.key)
