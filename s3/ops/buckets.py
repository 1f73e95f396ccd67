"""ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation, and what is truthfully not configured."""

from collections.abc import Mapping

from cluster.errors import ExistsError
from s3.errors import S3Error
from s3.messages import Response
from s3.names import check_bucket_name
from s3.object_meta import check_acl
from s3.ops.access import find_bucket
from s3.ops.objects import XML_TYPE, bounded_int, find_object
from s3.policy import bucket_arn
from s3.request import Context, S3Request
from s3.xml import document, element, parse, timestamp

LIST_BUCKETS = "s3:ListAllMyBuckets"
_MAX_CONFIGURATION_BYTES = 64 * 1024
_MAX_BUCKETS = 10_000
_END_OF_LIST = "<IsTruncated>false</IsTruncated>"


# Answers for what was never configured. "id" in the query asks for one of a list, and there is none.
EMPTY_CONFIGURATIONS: Mapping[str, tuple[str, str]] = {
    "GetBucketAccelerateConfiguration": ("AccelerateConfiguration", ""),
    "GetBucketLogging": ("BucketLoggingStatus", ""),
    "GetBucketNotificationConfiguration": ("NotificationConfiguration", ""),
    "GetBucketRequestPayment": ("RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
    "ListBucketAnalyticsConfigurations": ("ListBucketAnalyticsConfigurationsResult", _END_OF_LIST),
    "ListBucketInventoryConfigurations": ("ListInventoryConfigurationsResult", _END_OF_LIST),
    "ListBucketMetricsConfigurations": ("ListMetricsConfigurationsResult", _END_OF_LIST),
    "ListBucketIntelligentTieringConfigurations": (
        "ListBucketIntelligentTieringConfigurationsOutput",
        _END_OF_LIST,
    ),
}


async def list_buckets(context: Context, request: S3Request) -> Response:
    """ListBuckets: those of the account that the caller may see, by name; the continuation token is the last name."""
    owner, query, may = request.identity.owner, request.query, request.identity.grants.may
    prefix, after = query.get("prefix"), query.get("continuation-token") or ""
    limit_text = query.get("max-buckets")
    limit = bounded_int(limit_text, "max-buckets") if limit_text else _MAX_BUCKETS
    if not 1 <= limit <= _MAX_BUCKETS:
        raise S3Error("InvalidArgument", ArgumentName="max-buckets", ArgumentValue=limit_text)
    found = []
    if query.get("bucket-region") in {None, "", context.region}:
        found = [
            bucket
            for bucket in await context.objects.list_buckets()
            if bucket.owner == owner
            and bucket.name > after
            and bucket.name.startswith(prefix or "")
            and may(LIST_BUCKETS, bucket_arn(bucket.name))
        ]
    rows = [
        f"<Bucket>{element('Name', bucket.name)}{element('CreationDate', timestamp(bucket.created_ms))}"
        f"{element('BucketRegion', context.region)}</Bucket>"
        for bucket in found[:limit]
    ]
    xml = f"<Owner>{element('ID', owner)}{element('DisplayName', owner)}</Owner><Buckets>{''.join(rows)}</Buckets>"
    if len(found) > limit:
        xml += element("ContinuationToken", found[limit - 1].name)
    xml += element("Prefix", prefix)
    return Response(status=200, headers=[XML_TYPE], body=document("ListAllMyBucketsResult", xml))


async def create_bucket(context: Context, request: S3Request) -> Response:
    """CreateBucket."""
    check_bucket_name(request.bucket)
    if (request.headers.get(b"x-amz-bucket-object-lock-enabled") or "").lower() == "true":
        raise S3Error("NotImplemented", Header="x-amz-bucket-object-lock-enabled")
    ownership = request.headers.get(b"x-amz-object-ownership")
    if ownership in {"BucketOwnerPreferred", "ObjectWriter"}:  # these are for buckets with ACLs
        raise S3Error("NotImplemented", Header="x-amz-object-ownership")
    if ownership not in {None, "BucketOwnerEnforced"}:
        raise S3Error(
            "InvalidArgument", ArgumentName="x-amz-object-ownership", ArgumentValue=ownership
        )
    check_acl(request.headers)
    if request.raw_body.length != 0:
        _check_location(await request.body().read_all(_MAX_CONFIGURATION_BYTES), context.region)
    if not await _create(context, request):
        known = await find_bucket(context, request)
        mine = known.owner == request.identity.owner
        raise S3Error(
            "BucketAlreadyOwnedByYou" if mine else "BucketAlreadyExists", BucketName=request.bucket
        )
    return Response(status=200, headers=[(b"Location", f"/{request.bucket}".encode())])


async def _create(context: Context, request: S3Request) -> bool:
    try:
        await context.objects.create_bucket(request.bucket, request.identity.owner, b"")
    except ExistsError:
        return False
    return True


def _check_location(body: bytes, region: str) -> None:
    if not body.strip():
        return
    root = parse(body, "CreateBucketConfiguration")
    for node in root.children:
        if node.name != "LocationConstraint":
            raise S3Error("NotImplemented", f"{node.name} of a bucket is not supported.")
    location = root.get("LocationConstraint")
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


async def empty_configuration(context: Context, request: S3Request) -> Response:
    """A configuration that was never set."""
    await find_bucket(context, request)
    if "id" in request.query:
        raise S3Error("NoSuchConfiguration", BucketName=request.bucket)
    root, body = EMPTY_CONFIGURATIONS[request.route.operation]
    return Response(status=200, headers=[XML_TYPE], body=document(root, body))


async def get_acl(context: Context, request: S3Request) -> Response:
    """GetBucketAcl, GetObjectAcl: everything belongs to the bucket's owner alone."""
    bucket = await find_bucket(context, request)
    if request.route.key is not None:
        await find_object(context, request)
    who = element("ID", bucket.owner) + element("DisplayName", bucket.owner)
    xml = (
        f"<Owner>{who}</Owner><AccessControlList><Grant>"
        f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">{who}</Grantee>'
        "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList>"
    )
    return Response(status=200, headers=[XML_TYPE], body=document("AccessControlPolicy", xml))


async def not_configured(context: Context, request: S3Request) -> Response:
    """The exact code that SDKs probe for, once the bucket is known to exist."""
    await find_bucket(context, request)
    raise S3Error(request.route.operation, BucketName=request.bucket)


async def not_implemented(_context: Context, _request: S3Request) -> Response:
    """A sub-resource or method that S3 knows and this version does not."""
    raise S3Error("NotImplemented")
