"""CopyObject and UploadPartCopy: the source is read and written anew; nothing is shared between keys."""

import hashlib
from urllib.parse import unquote_to_bytes

import attrs

from cluster.objects.model import Object, PutRequest, Seal
from cluster.objects.source import object_source
from s3.checksums import ALGORITHMS, Algorithm, algorithm_named
from s3.conditions import check_read, write_conditions
from s3.errors import S3Error
from s3.messages import Response
from s3.names import check_key, is_bucket_name
from s3.object_meta import (
    ObjectMeta,
    PartMeta,
    checksum_headers,
    decode,
    encode,
    from_headers,
    with_checksum,
)
from s3.ops.access import EXPECTED_SOURCE_OWNER, find_bucket
from s3.ops.multipart import part_number, upload_id, upload_meta
from s3.ops.objects import MAX_PUT_BYTES, XML_TYPE
from s3.ranges import parse_copy_range
from s3.request import Context, S3Request
from s3.xml import document, element, timestamp


@attrs.frozen(kw_only=True)
class CopySource:
    """What x-amz-copy-source names."""

    bucket: str
    key: bytes


def parse_source(header: str) -> CopySource:
    """The source: a bucket and a key, URL-encoded, maybe with ?versionId=null. Raises S3Error."""
    path, _, query = header.partition("?")
    # Some SDKs write a space as a plus here, and a plus as %2B.
    raw = unquote_to_bytes(path.replace("+", " ")).lstrip(b"/")
    bucket, slash, key = raw.partition(b"/")
    name = bucket.decode("utf-8", "replace")
    if not slash or not key or not is_bucket_name(name):
        raise S3Error(
            "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName="x-amz-copy-source", ArgumentValue=header,
        )  # fmt: skip
    check_key(key)
    if query and query not in {"versionId=null", "versionId="}:
        raise S3Error("NoSuchVersion", Key=key.decode(), VersionId=query.partition("=")[2])
    return CopySource(bucket=name, key=key)


async def _find_source(context: Context, request: S3Request) -> tuple[CopySource, Object]:
    source = parse_source(request.headers.get(b"x-amz-copy-source") or "")
    bucket = await find_bucket(
        context, request, source.bucket, expected_owner=EXPECTED_SOURCE_OWNER
    )
    found = await context.objects.get(bucket, source.key)
    version = found.version
    check_read(request.headers, version.validator, version.mtime_ms, prefix=b"x-amz-copy-source-")
    return source, found


async def copy_object(context: Context, request: S3Request) -> Response:
    """CopyObject."""
    source, found = await _find_source(context, request)
    directive = request.headers.get(b"x-amz-metadata-directive") or "COPY"
    if directive not in {"COPY", "REPLACE"}:
        raise S3Error(
            "InvalidArgument",
            "Unknown metadata directive.",
            ArgumentName="x-amz-metadata-directive",
            ArgumentValue=directive,
        )
    same = (source.bucket, source.key) == (request.bucket, request.key)
    if same and directive == "COPY" and b"x-amz-storage-class" not in request.headers:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
            "metadata, storage class, website redirect location or encryption attributes.",
        )
    if found.version.size > MAX_PUT_BYTES:
        raise S3Error(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PUT_BYTES}",
        )
    old = decode(found.version.attributes)
    replacing = from_headers(request.headers)  # refuses what it must in either case
    meta = replacing if directive == "REPLACE" else attributes_of(old, replacing.storage_class)
    wish = request.headers.get(b"x-amz-checksum-algorithm")
    algorithm = algorithm_named(wish) if wish else ALGORITHMS.get(old.checksum)
    md5 = hashlib.md5(usedforsecurity=False)
    checksum = algorithm.new() if algorithm is not None else None
    stored = meta

    def seal(_size: int) -> Seal:
        nonlocal stored
        if algorithm is not None and checksum is not None:
            stored = with_checksum(meta, (algorithm, checksum.digest()))
        return Seal(validator=md5.hexdigest(), attributes=encode(stored))

    bucket = await find_bucket(context, request)
    version = await context.objects.copy(
        found,
        bucket,
        request.key,
        PutRequest(
            source=await object_source(found),
            digests=[md5] if checksum is None else [md5, checksum],
            seal=seal,
            expect=write_conditions(request.headers),
        ),
    )
    return _copied("CopyObjectResult", version.validator, version.mtime_ms, stored)


def attributes_of(meta: ObjectMeta, storage_class: str) -> ObjectMeta:
    """An object's attributes without those that a copy never takes over: checksum and storage class."""
    return ObjectMeta(
        content_type=meta.content_type,
        headers=meta.headers,
        user=meta.user,
        storage_class=storage_class,
    )


def _copied(root: str, validator: str, mtime_ms: int, meta: ObjectMeta) -> Response:
    xml = element("LastModified", timestamp(mtime_ms)) + f'<ETag>"{validator}"</ETag>'
    for name, value in checksum_headers(meta)[:1]:
        del name
        xml += element(f"Checksum{meta.checksum}", value.decode()) + element(
            "ChecksumType", meta.checksum_type
        )
    return Response(status=200, headers=[XML_TYPE], body=document(root, xml))


async def upload_part_copy(context: Context, request: S3Request) -> Response:
    """UploadPartCopy."""
    number, upload = part_number(request), upload_id(request)
    bucket = await find_bucket(context, request)
    opened = upload_meta(await context.objects.get_upload(bucket, request.key, upload))
    _, found = await _find_source(context, request)
    header = request.headers.get(b"x-amz-copy-source-range")
    start, stop = (
        (0, found.version.size) if header is None else parse_copy_range(header, found.version.size)
    )
    if stop - start > MAX_PUT_BYTES:
        raise S3Error("EntityTooLarge", ProposedSize=stop - start, MaxSizeAllowed=MAX_PUT_BYTES)
    algorithm: Algorithm | None = ALGORITHMS.get(opened.checksum)
    md5 = hashlib.md5(usedforsecurity=False)
    checksum = algorithm.new() if algorithm is not None else None

    def seal(_size: int) -> Seal:
        part = PartMeta()
        if algorithm is not None and checksum is not None:
            part = PartMeta(checksum=algorithm.name, value=checksum.digest())
        return Seal(validator=md5.hexdigest(), attributes=encode(part))

    part = await context.objects.put_part(
        bucket,
        request.key,
        upload,
        number,
        PutRequest(
            source=await object_source(found, start, stop),
            digests=[md5] if checksum is None else [md5, checksum],
            seal=seal,
        ),
    )
    return _copied("CopyPartResult", part.validator, int(context.now() * 1000), ObjectMeta())
