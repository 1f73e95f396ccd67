"""ListObjectVersions: versions and delete markers, keys in order, newest first."""

from cluster.objects.model import VersionEntry, VersionListing, VersionPlace
from s3.errors import S3Error
from s3.messages import Response
from s3.object_meta import STANDARD, decode
from s3.ops.access import find_bucket
from s3.ops.listing import ListParams, after_key, owner_element, query_bytes
from s3.ops.objects import XML_TYPE
from s3.request import Context, S3Request
from s3.versions import parse_version_id, version_text
from s3.xml import document, element, timestamp


async def list_object_versions(context: Context, request: S3Request) -> Response:
    """ListObjectVersions: in a bucket without versioning, every object as its null version."""
    params = ListParams.of(request)
    marker = query_bytes(request.query.get("key-marker"))
    version_marker = request.query.get("version-id-marker")
    if version_marker and not marker:
        raise S3Error(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
        )
    start = VersionPlace(after_key(marker, params))
    if version_marker:
        start = VersionPlace(marker, parse_version_id(version_marker, "version-id-marker"))
    bucket = await find_bucket(context, request)
    listing = VersionListing(entries=(), resume=None)
    if params.max_keys:
        listing = await context.objects.list_versions(
            bucket,
            prefix=params.prefix,
            delimiter=params.delimiter,
            start=start,
            limit=params.max_keys,
        )
    xml = element("Name", request.bucket) + params.element("Prefix", params.prefix)
    xml += params.element("KeyMarker", marker) + element("VersionIdMarker", version_marker or "")
    xml += _next_markers(listing, params)
    xml += element("MaxKeys", params.max_keys)
    xml += params.element("Delimiter", params.delimiter or None)
    xml += element("EncodingType", params.encoding_type)
    xml += element("IsTruncated", str(listing.resume is not None).lower())
    owner = owner_element(request.identity.owner)
    rows = [_row(entry, params, owner) for entry in listing.entries if entry.version is not None]
    rows += [
        f"<CommonPrefixes>{params.element('Prefix', entry.key)}</CommonPrefixes>"
        for entry in listing.entries
        if entry.version is None
    ]
    body = document("ListVersionsResult", [xml, *rows])
    return Response(status=200, headers=[XML_TYPE], body=body)


def _next_markers(listing: VersionListing, params: ListParams) -> str:
    if listing.resume is None:
        return ""
    last = listing.entries[-1]
    xml = params.element("NextKeyMarker", last.key)
    if listing.resume.behind is not None:
        # Of the null version, too, it tells where it was: by then it may be another, or gone.
        xml += element("NextVersionIdMarker", version_text(listing.resume.behind))
    return xml


def _row(entry: VersionEntry, params: ListParams, owner: str) -> str:
    version = entry.version
    assert version is not None
    xml = (
        f"<Key>{params.encode(entry.key)}</Key><VersionId>{version_text(version.version_id)}</VersionId>"
        f"<IsLatest>{str(entry.is_latest).lower()}</IsLatest><LastModified>{timestamp(version.mtime_ms)}</LastModified>"
    )
    if version.delete_marker:
        return f"<DeleteMarker>{xml}{owner}</DeleteMarker>"
    storage_class = decode(version.attributes).storage_class or STANDARD
    return (
        f'<Version>{xml}<ETag>"{version.validator}"</ETag><Size>{version.size}</Size>{owner}'
        f"<StorageClass>{storage_class}</StorageClass></Version>"
    )
