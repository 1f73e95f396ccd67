"""S3 operations, translated to words of the object store. The table has no default: what is not in it cannot be reached."""

from collections.abc import Awaitable, Callable, Mapping

from s3.messages import Response
from s3.ops import (
    buckets,
    completing,
    copying,
    delete_many,
    listing,
    listing_versions,
    multipart,
    objects,
    versioning,
)
from s3.request import Context, S3Request

Operation = Callable[[Context, S3Request], Awaitable[Response]]

_NOT_CONFIGURED = (
    "NoSuchTagSet", "NoSuchBucketPolicy", "NoSuchCORSConfiguration", "NoSuchLifecycleConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError", "ObjectLockConfigurationNotFoundError",
    "OwnershipControlsNotFoundError", "NoSuchPublicAccessBlockConfiguration", "ReplicationConfigurationNotFoundError",
    "NoSuchWebsiteConfiguration",
)  # fmt: skip

HANDLERS: Mapping[str, Operation] = {
    "ListBuckets": buckets.list_buckets,
    "CreateBucket": buckets.create_bucket,
    "HeadBucket": buckets.head_bucket,
    "DeleteBucket": buckets.delete_bucket,
    "GetBucketLocation": buckets.get_bucket_location,
    "GetBucketVersioning": versioning.get_bucket_versioning,
    "PutBucketVersioning": versioning.put_bucket_versioning,
    "GetBucketAcl": buckets.get_acl,
    "GetObjectAcl": buckets.get_acl,
    "PutObject": objects.put_object,
    "GetObject": objects.get_object,
    "HeadObject": objects.head_object,
    "DeleteObject": objects.delete_object,
    "GetObjectAttributes": objects.get_object_attributes,
    "GetObjectTagging": objects.get_object_tagging,
    "DeleteObjects": delete_many.delete_objects,
    "CopyObject": copying.copy_object,
    "UploadPartCopy": copying.upload_part_copy,
    "ListObjects": listing.list_objects_v1,
    "ListObjectsV2": listing.list_objects_v2,
    "ListObjectVersions": listing_versions.list_object_versions,
    "CreateMultipartUpload": multipart.create_multipart_upload,
    "UploadPart": multipart.upload_part,
    "CompleteMultipartUpload": completing.complete_multipart_upload,
    "AbortMultipartUpload": multipart.abort_multipart_upload,
    "ListParts": multipart.list_parts,
    "ListMultipartUploads": multipart.list_multipart_uploads,
    "NotImplemented": buckets.not_implemented,
    **dict.fromkeys(_NOT_CONFIGURED, buckets.not_configured),
    **dict.fromkeys(buckets.EMPTY_CONFIGURATIONS, buckets.empty_configuration),
}
