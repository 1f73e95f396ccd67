"""What operations look at before they begin: the bucket, and the object that a write is to replace."""

from cluster.errors import NotFoundError
from cluster.objects.model import Bucket, Precondition
from s3.conditions import check_write
from s3.errors import S3Error
from s3.names import is_bucket_name
from s3.request import Context, S3Request

EXPECTED_OWNER = b"x-amz-expected-bucket-owner"
EXPECTED_SOURCE_OWNER = b"x-amz-source-expected-bucket-owner"


async def find_bucket(
    context: Context,
    request: S3Request,
    name: str | None = None,
    *,
    expected_owner: bytes = EXPECTED_OWNER,
) -> Bucket:
    """The bucket of that name (None: the request's). Raises S3Error: a NotFoundError("bucket") that comes later is of a stale look.

    A caller who says whose bucket it must be is believed to mean it: AccessDenied where it is another's.
    """
    wanted = request.bucket if name is None else name
    if not is_bucket_name(wanted):
        raise S3Error("NoSuchBucket", BucketName=wanted)
    try:
        bucket = await context.objects.get_bucket(wanted)
    except NotFoundError:
        raise S3Error("NoSuchBucket", BucketName=wanted) from None
    owner = request.headers.get(expected_owner)
    if owner is not None and owner != bucket.owner:
        raise S3Error("AccessDenied")
    return bucket


async def refuse_early(
    context: Context, bucket: Bucket, key: bytes, expect: tuple[Precondition, ...]
) -> None:
    """Refuse a write whose conditions do not hold now, before anything is read for it. Raises S3Error."""
    if not expect:
        return
    etag: str | None = None
    try:
        etag = (await context.objects.get(bucket, key)).version.validator
    except NotFoundError as error:
        if error.kind != "key":
            raise
    check_write(expect, etag, key)
