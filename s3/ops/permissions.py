"""Which permissions a request asks for: one row per operation, and no default ("Actions, resources, and condition keys for Amazon S3")."""

from collections.abc import Callable, Mapping, Sequence

import attrs

from s3.errors import S3Error
from s3.messages import Headers
from s3.ops.buckets import LIST_BUCKETS
from s3.ops.copying import parse_source
from s3.ops.delete_many import DELETE, DELETE_VERSION
from s3.policy import bucket_arn, object_arn
from s3.request import Identity
from s3.router import Query, Route

_COPIES = frozenset({"CopyObject", "UploadPartCopy"})
_SOURCE = b"x-amz-copy-source"


@attrs.frozen
class Need:
    """An action that must be allowed on a resource; None: on any, and the operation looks at each."""

    action: str
    resource: str | None


_Row = Callable[[Route, Headers], Sequence[Need]]


def _service(action: str) -> _Row:
    return lambda _route, _headers: [Need(action, None)]


def _bucket(action: str) -> _Row:
    return lambda route, _headers: [Need(action, bucket_arn(route.bucket or ""))]


def _object(*actions: str, versioned: Sequence[str] = ()) -> _Row:
    """`versioned`: where the query names a version."""

    def needs(route: Route, _headers: Headers) -> Sequence[Need]:
        asked = versioned if versioned and "versionId" in route.query else actions
        return [Need(action, object_arn(route.bucket or "", route.key or b"")) for action in asked]

    return needs


def _copy(route: Route, headers: Headers) -> Sequence[Need]:
    text = headers.get(_SOURCE) or ""
    source = parse_source(text)
    read = "s3:GetObject" if source.version_id is None else "s3:GetObjectVersion"
    return [
        Need(read, object_arn(source.bucket, source.key)),
        Need("s3:PutObject", object_arn(route.bucket or "", route.key or b"")),
    ]


def _nothing(_route: Route, _headers: Headers) -> Sequence[Need]:
    return []


NEEDS: Mapping[str, _Row] = {
    "ListBuckets": _service(LIST_BUCKETS),
    "CreateBucket": _bucket("s3:CreateBucket"),
    "HeadBucket": _bucket("s3:ListBucket"),
    "DeleteBucket": _bucket("s3:DeleteBucket"),
    "ListObjects": _bucket("s3:ListBucket"),
    "ListObjectsV2": _bucket("s3:ListBucket"),
    "ListObjectVersions": _bucket("s3:ListBucketVersions"),
    "ListMultipartUploads": _bucket("s3:ListBucketMultipartUploads"),
    "GetBucketLocation": _bucket("s3:GetBucketLocation"),
    "GetBucketAcl": _bucket("s3:GetBucketAcl"),
    "GetBucketVersioning": _bucket("s3:GetBucketVersioning"),
    "PutBucketVersioning": _bucket("s3:PutBucketVersioning"),
    "GetBucketAccelerateConfiguration": _bucket("s3:GetAccelerateConfiguration"),
    "GetBucketLogging": _bucket("s3:GetBucketLogging"),
    "GetBucketNotificationConfiguration": _bucket("s3:GetBucketNotification"),
    "GetBucketRequestPayment": _bucket("s3:GetBucketRequestPayment"),
    "ListBucketAnalyticsConfigurations": _bucket("s3:GetAnalyticsConfiguration"),
    "ListBucketInventoryConfigurations": _bucket("s3:GetInventoryConfiguration"),
    "ListBucketMetricsConfigurations": _bucket("s3:GetMetricsConfiguration"),
    "ListBucketIntelligentTieringConfigurations": _bucket("s3:GetIntelligentTieringConfiguration"),
    "NoSuchTagSet": _bucket("s3:GetBucketTagging"),
    "NoSuchBucketPolicy": _bucket("s3:GetBucketPolicy"),
    "NoSuchCORSConfiguration": _bucket("s3:GetBucketCORS"),
    "NoSuchLifecycleConfiguration": _bucket("s3:GetLifecycleConfiguration"),
    "ServerSideEncryptionConfigurationNotFoundError": _bucket("s3:GetEncryptionConfiguration"),
    "ObjectLockConfigurationNotFoundError": _bucket("s3:GetBucketObjectLockConfiguration"),
    "OwnershipControlsNotFoundError": _bucket("s3:GetBucketOwnershipControls"),
    "NoSuchPublicAccessBlockConfiguration": _bucket("s3:GetBucketPublicAccessBlock"),
    "ReplicationConfigurationNotFoundError": _bucket("s3:GetReplicationConfiguration"),
    "NoSuchWebsiteConfiguration": _bucket("s3:GetBucketWebsite"),
    "PutObject": _object("s3:PutObject"),
    "GetObject": _object("s3:GetObject", versioned=["s3:GetObjectVersion"]),
    "HeadObject": _object("s3:GetObject", versioned=["s3:GetObjectVersion"]),
    "DeleteObject": _object(DELETE, versioned=[DELETE_VERSION]),
    "GetObjectAttributes": _object(
        "s3:GetObject",
        "s3:GetObjectAttributes",
        versioned=["s3:GetObjectVersion", "s3:GetObjectVersionAttributes"],
    ),
    "GetObjectAcl": _object("s3:GetObjectAcl", versioned=["s3:GetObjectVersionAcl"]),
    "GetObjectTagging": _object("s3:GetObjectTagging", versioned=["s3:GetObjectVersionTagging"]),
    "CopyObject": _copy,
    "UploadPartCopy": _copy,
    "CreateMultipartUpload": _object("s3:PutObject"),
    "UploadPart": _object("s3:PutObject"),
    "CompleteMultipartUpload": _object("s3:PutObject"),
    "AbortMultipartUpload": _object("s3:AbortMultipartUpload"),
    "ListParts": _object("s3:ListMultipartUploadParts"),
    "DeleteObjects": _nothing,  # each key asks for itself
    "NotImplemented": _nothing,  # and does nothing
}


def authorize(identity: Identity, route: Route, headers: Headers) -> None:
    """Raises S3Error AccessDenied where the identity may not do what the request asks for."""
    grants = identity.grants
    if grants.everything:
        return
    for need in NEEDS[route.operation](route, headers):
        if not (
            grants.may_somewhere(need.action)
            if need.resource is None
            else grants.may(need.action, need.resource)
        ):
            raise S3Error("AccessDenied")


def betrays(code: str, identity: Identity, route: Route, headers: Headers) -> bool:
    """Whether an error would tell that a key or version does not exist to somebody who may not list its bucket."""
    if code not in {"NoSuchKey", "NoSuchVersion"} or identity.grants.everything:
        return False
    copies = route.operation in _COPIES
    bucket = parse_source(headers.get(_SOURCE) or "").bucket if copies else route.bucket
    return not identity.grants.may("s3:ListBucket", bucket_arn(bucket or ""))


def all_actions() -> Sequence[str]:
    """Every action that some request asks for."""
    route = Route(operation="-", bucket="b", key=b"k", query=Query([]))
    version = Query([("versionId", "null")])
    headers = Headers([(_SOURCE, b"bucket/key")])
    routes = [route, attrs.evolve(route, query=version)]
    found = {need.action for row in NEEDS.values() for r in routes for need in row(r, headers)}
    return sorted(found | {DELETE, DELETE_VERSION})
