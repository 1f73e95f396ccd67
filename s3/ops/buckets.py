"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation, and what is truthfully not configured."""

from cluster.errors import ExistsError
from s3.errors import S3Error
from s3.messages import Response
from s3.names import check_bucket_name
from s3.ops.access import find_bucket
from s3.ops.objects import XML_TYPE
from s3.request import Context, S3Request
from s3.xml import document, element, parse, timestamp

_MAX_CONFIGURATION_BYTES = 64 * 1024


async def list_buckets(context: Context, request: S3Request) -> Response:
    """ListBuckets: those of the caller."""
    owner = request.identity.owner
    xml = f"<Owner>{element('ID', owner)}{element('DisplayName', owner)}</Owner><Buckets>"
    for bucket in await context.objects.list_buckets():
        if bucket.owner == owner:
            xml += f"<Bucket>{element('Name', bucket.name)}{element('CreationDate', timestamp(bucket.created_ms))}</Bucket>"
    return Response(
        status=200, headers=[XML_TYPE], body=document("ListAllMyBucketsResult", xml + "</Buckets>")
    )


async def create_bucket(context: Context, request: S3Request) -> Response:
    """CreateBucket."""
    check_bucket_name(request.bucket)
    if (request.headers.get(b"x-amz-bucket-object-lock-enabled") or "").lower() == "true":
        raise S3Error("NotImplemented", Header="x-amz-bucket-object-lock-enabled")
    ownership = request.headers.get(b"x-amz-object-ownership")
    if ownership not in {None, "BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"}:
        raise S3Error(
            "InvalidArgument", ArgumentName="x-amz-object-ownership", ArgumentValue=ownership
        )
    if request.headers.get(b"x-amz-acl") not in {None, "private"}:
        raise S3Error("AccessControlListNotSupported")
    if request.raw_body.length != 0:
        _check_location(await request.body().read_all(_MAX_CONFIGURATION_BYTES), context.region)
    try:
        await context.objects.create_bucket(request.bucket, request.identity.owner, b"")
    except ExistsError:
        known = await find_bucket(context, request)
        mine = known.owner == request.identity.owner
        raise S3Error(
            "BucketAlreadyOwnedByYou" if mine else "BucketAlreadyExists", BucketName=request.bucket
        ) from None
    return Response(status=200, headers=[(b"Location", f"/{request.bucket}".encode())])


def _check_location(body: bytes, region: str) -> None:
    if not body.strip():
        return
    location = parse(body, "CreateBucketConfiguration").get("LocationConstraint")
    if location and location != region:
        raise S3Error("InvalidLocationConstraint", LocationConstraint=location)


async def head_bucket(context: Context, request: S3Request) -> Response:
    """HeadBucket."""
    await find_bucket(context, request)
    headers = [
        (b"x-amz-bucket-region", context.region.encode()),
        (b"x-amz-access-point-alias", b"false"),
        XML_TYPE,
    ]
    return Response(status=200, headers=headers)


async def delete_bucket(context: Context, request: S3Request) -> Response:
    """DeleteBucket."""
    await context.objects.delete_bucket(await find_bucket(context, request))
    return Response(status=204)


async def get_bucket_location(context: Context, request: S3Request) -> Response:
    """GetBucketLocation: empty in us-east-1, as AWS has it."""
    await find_bucket(context, request)
    region = "" if context.region == "us-east-1" else context.region
    return Response(status=200, headers=[XML_TYPE], body=document("LocationConstraint", region))


async def get_bucket_versioning(context: Context, request: S3Request) -> Response:
    """GetBucketVersioning: never configured."""
    await find_bucket(context, request)
    return Response(status=200, headers=[XML_TYPE], body=document("VersioningConfiguration", ""))


async def not_configured(context: Context, request: S3Request) -> Response:
    """The exact code that SDKs probe for, once the bucket is known to exist."""
    await find_bucket(context, request)
    raise S3Error(request.route.operation, BucketName=request.bucket)


async def not_implemented(_context: Context, _request: S3Request) -> Response:
    """A sub-resource or method that S3 knows and this version does not."""
    raise S3Error("NotImplemented")
