"""The store's errors in S3's words: the one place where they meet."""

from cluster.errors import (
    ClusterError,
    CorruptError,
    ExistsError,
    NotEmptyError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    StorageFullError,
    UnavailableError,
)
from s3.errors import S3Error
from s3.messages import RequestHead
from s3.router import Route

RETRY_AFTER = ((b"Retry-After", b"1"),)


def translate_for(error: ClusterError, head: RequestHead, route: Route | None) -> S3Error:
    """The S3 error for a cluster error that a request met."""
    if isinstance(error, PreconditionError) and not error.absent:
        # A write has one condition at most.
        none_match = b"if-none-match" in head.headers
        condition = "If-None-Match" if none_match else "If-Match"
        return S3Error("PreconditionFailed", Condition=condition)
    if route is None:
        return translate(error, bucket=None, key=None)
    key = None if route.key is None else route.key.decode()
    return translate(error, bucket=route.bucket, key=key, upload=route.query.get("uploadId"))


def translate(
    error: ClusterError, *, bucket: str | None, key: str | None, upload: str | None = None
) -> S3Error:
    """The S3 error for a cluster error."""
    match error:
        case NotFoundError(kind="upload"):
            return S3Error("NoSuchUpload", UploadId=upload)
        case NotFoundError(kind=kind):
            return _not_found(kind, bucket, key)
        case PreconditionError(absent=True):
            return S3Error("NoSuchKey", Key=key)
        case PreconditionError():
            return S3Error("PreconditionFailed")
        case ExistsError():
            return S3Error("BucketAlreadyOwnedByYou", BucketName=bucket)
        case NotEmptyError():
            return S3Error("BucketNotEmpty", BucketName=bucket)
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


def _not_found(kind: str, bucket: str | None, key: str | None) -> S3Error:
    match kind:
        case "bucket":
            return S3Error("NoSuchBucket", BucketName=bucket)
        case "part":
            return S3Error("InvalidPart")
        case "version":
            return S3Error("NoSuchVersion", Key=key)
        case _:
            return S3Error("NoSuchKey", Key=key)
