"""From a request head to the operation that it names, by tables. Decoded here once, to (bucket, key); nothing below decodes again.

A sub-resource that S3 knows and we do not is answered as such, never by the plain operation: `PUT /b?inventory` must not create a bucket.
Query parameters that S3 does not know (the SDKs' x-id) are ignored.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

import attrs

from s3.errors import S3Error
from s3.messages import RequestHead
from s3.names import check_key
from s3.sigv4 import query_pairs


@attrs.frozen
class Query:
    """Decoded query parameters; the first of each name counts."""

    pairs: Sequence[tuple[str, str]]

    def get(self, name: str) -> str | None:
        """The value of a parameter ("" where it has none); None: it is not there."""
        return next((value for known, value in self.pairs if known == name), None)

    def __contains__(self, name: str) -> bool:
        return any(known == name for known, _ in self.pairs)


@attrs.frozen(kw_only=True)
class Route:
    """What a request asks for."""

    operation: str
    bucket: str | None
    key: bytes | None
    query: Query


NOWHERE = Route(operation="-", bucket=None, key=None, query=Query(()))
HEALTH = Route(operation="Health", bucket=None, key=None, query=Query(()))

# Sub-resource -> method -> operation. A method that is missing is NotImplemented.
_BUCKET_SUBRESOURCES: Mapping[str, Mapping[str, str]] = {
    "location": {"GET": "GetBucketLocation"},
    "versions": {"GET": "ListObjectVersions"},
    "uploads": {"GET": "ListMultipartUploads"},
    "delete": {"POST": "DeleteObjects"},
    "versioning": {"GET": "GetBucketVersioning", "PUT": "PutBucketVersioning"},
    "tagging": {"GET": "NoSuchTagSet"},
    "policy": {"GET": "NoSuchBucketPolicy"},
    "policyStatus": {"GET": "NoSuchBucketPolicy"},
    "cors": {"GET": "NoSuchCORSConfiguration"},
    "lifecycle": {"GET": "NoSuchLifecycleConfiguration"},
    "encryption": {"GET": "ServerSideEncryptionConfigurationNotFoundError"},
    "object-lock": {"GET": "ObjectLockConfigurationNotFoundError"},
    "ownershipControls": {"GET": "OwnershipControlsNotFoundError"},
    "publicAccessBlock": {"GET": "NoSuchPublicAccessBlockConfiguration"},
    "replication": {"GET": "ReplicationConfigurationNotFoundError"},
    "website": {"GET": "NoSuchWebsiteConfiguration"},
    "acl": {"GET": "GetBucketAcl"},
    "accelerate": {"GET": "GetBucketAccelerateConfiguration"},
    "requestPayment": {"GET": "GetBucketRequestPayment"},
    "logging": {"GET": "GetBucketLogging"},
    "notification": {"GET": "GetBucketNotificationConfiguration"},
    "inventory": {"GET": "ListBucketInventoryConfigurations"},
    "analytics": {"GET": "ListBucketAnalyticsConfigurations"},
    "metrics": {"GET": "ListBucketMetricsConfigurations"},
    "intelligent-tiering": {"GET": "ListBucketIntelligentTieringConfigurations"},
    "abac": {}, "metadataConfiguration": {}, "metadataInventoryTable": {}, "metadataJournalTable": {}, "metadataTable": {},
    "metadataAnnotationTable": {}, "session": {},
}  # fmt: skip
_OBJECT_SUBRESOURCES: Mapping[str, Mapping[str, str]] = {
    "uploads": {"POST": "CreateMultipartUpload"},
    "uploadId": {
        "PUT": "UploadPart",
        "POST": "CompleteMultipartUpload",
        "DELETE": "AbortMultipartUpload",
        "GET": "ListParts",
    },
    "attributes": {"GET": "GetObjectAttributes"},
    "tagging": {"GET": "GetObjectTagging"},
    "acl": {"GET": "GetObjectAcl"},
    "encryption": {}, "annotation": {}, "retention": {}, "legal-hold": {}, "torrent": {}, "restore": {}, "select": {}, "renameObject": {},
}  # fmt: skip
_BUCKET_PLAIN = {
    "GET": "ListObjects",
    "PUT": "CreateBucket",
    "HEAD": "HeadBucket",
    "DELETE": "DeleteBucket",
}
_OBJECT_PLAIN = {
    "GET": "GetObject",
    "PUT": "PutObject",
    "HEAD": "HeadObject",
    "DELETE": "DeleteObject",
}
NOT_IMPLEMENTED = "NotImplemented"


def route(head: RequestHead, base_domains: Sequence[str] = ()) -> Route:
    """The operation that a request names. Raises S3Error where there is none."""
    query = Query(query_pairs(head.query))
    bucket, key = _address(head, base_domains)
    if bucket is None:
        if head.method == "GET":
            return Route(operation="ListBuckets", bucket=None, key=None, query=query)
        raise S3Error(
            "MethodNotAllowed",
            headers=((b"Allow", b"GET"),),
            Method=head.method,
            ResourceType="SERVICE",
        )
    if key is None:
        operation = _choose(head.method, query, _BUCKET_SUBRESOURCES, _BUCKET_PLAIN, "BUCKET")
        if operation == "ListObjects" and query.get("list-type") == "2":
            operation = "ListObjectsV2"
    else:
        check_key(key)
        operation = _choose(head.method, query, _OBJECT_SUBRESOURCES, _OBJECT_PLAIN, "OBJECT")
        copies = b"x-amz-copy-source" in head.headers
        if copies:
            operation = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}.get(
                operation, operation
            )
    return Route(operation=operation, bucket=bucket, key=key, query=query)


def _choose(
    method: str,
    query: Query,
    subresources: Mapping[str, Mapping[str, str]],
    plain: Mapping[str, str],
    resource: str,
) -> str:
    for name, _ in query.pairs:
        if name in subresources:
            return subresources[name].get(method, NOT_IMPLEMENTED)
    if method not in {"GET", "HEAD"} and any(
        _changes_meaning(name, value) for name, value in query.pairs
    ):
        return NOT_IMPLEMENTED
    operation = plain.get(method)
    if operation is None:
        if method == "POST":
            return NOT_IMPLEMENTED
        allowed = ", ".join(plain).encode()
        raise S3Error(
            "MethodNotAllowed", headers=((b"Allow", allowed),), Method=method, ResourceType=resource
        )
    return operation


def _changes_meaning(name: str, value: str) -> bool:
    """Whether a plain PUT or DELETE would destroy what the client did not mean.

    A sub-resource of the other kind (of a key that came out empty), a part without its upload, or one newer than our
    tables: sub-resources have no value.
    """
    if name in _BUCKET_SUBRESOURCES or name in _OBJECT_SUBRESOURCES or name == "partNumber":
        return True
    return not value and name != "versionId" and not name.lower().startswith("x-")


def host_bucket(head: RequestHead, base_domains: Sequence[str]) -> str | None:
    """The bucket that the Host header names (virtual-host style); None: path style."""
    if not base_domains:
        return None
    host = (head.headers.get(b"host") or "").rsplit(":", 1)[0].lower()
    for domain in base_domains:
        if host.endswith(f".{domain}"):
            return host[: -len(domain) - 1]
    return None


def _address(head: RequestHead, base_domains: Sequence[str]) -> tuple[str | None, bytes | None]:
    path = head.path[1:]
    bucket = host_bucket(head, base_domains)
    if bucket is None:
        first, slash, path = path.partition(b"/")
        if not first:
            if slash:
                raise S3Error("InvalidBucketName", BucketName="")
            return None, None
        bucket = unquote_to_bytes(first).decode("utf-8", "replace")
    return bucket, unquote_to_bytes(path) if path else None
