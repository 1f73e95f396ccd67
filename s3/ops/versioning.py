"""PutBucketVersioning and GetBucketVersioning."""

from cluster.objects.model import Versioning
from s3.errors import S3Error
from s3.messages import Response
from s3.ops.access import find_bucket
from s3.ops.objects import XML_TYPE
from s3.request import Context, S3Request
from s3.xml import document, element, parse

_MAX_CONFIGURATION_BYTES = 4096
_STATUS = {Versioning.ENABLED: "Enabled", Versioning.SUSPENDED: "Suspended"}


def parse_versioning(body: bytes) -> Versioning:
    """The mode that a VersioningConfiguration asks for. Raises S3Error."""
    root = parse(body, "VersioningConfiguration")
    mfa, status = root.get("MfaDelete"), root.get("Status")
    if mfa not in {None, "Enabled", "Disabled"}:
        raise S3Error("MalformedXML")
    if mfa == "Enabled":  # ignored, it would leave versions with less protection than was asked for
        raise S3Error("NotImplemented", "MfaDelete is not supported.")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    for versioning, name in _STATUS.items():
        if status == name:
            return versioning
    raise S3Error("MalformedXML")


async def put_bucket_versioning(context: Context, request: S3Request) -> Response:
    """PutBucketVersioning: in force on every node when this returns."""
    body = await request.body().read_all(_MAX_CONFIGURATION_BYTES)
    if not body:
        raise S3Error("MissingRequestBodyError")
    versioning = parse_versioning(body)
    await context.objects.set_versioning(await find_bucket(context, request), versioning)
    return Response(status=200)


async def get_bucket_versioning(context: Context, request: S3Request) -> Response:
    """GetBucketVersioning: empty where it was never set."""
    bucket = await find_bucket(context, request)
    xml = element("Status", _STATUS.get(bucket.versioning))
    return Response(status=200, headers=[XML_TYPE], body=document("VersioningConfiguration", xml))
