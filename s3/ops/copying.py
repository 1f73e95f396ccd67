"""CopyObject and UploadPartCopy: the source is read and written anew; nothing is shared between keys."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes

import attrs
import trio

from cluster.errors import DeleteMarkerError, NotFoundError
from cluster.objects.model import Bucket, Object, PutRequest, Seal, Source, Version
from cluster.objects.source import object_source
from s3.checksums import ALGORITHMS, Algorithm, algorithm_named, encode_value
from s3.conditions import check_read, write_conditions
from s3.errors import S3Error
from s3.messages import Response
from s3.names import check_key, is_bucket_name
from s3.object_meta import (
    ObjectMeta,
    PartMeta,
    decode,
    encode,
    from_headers,
    with_checksum,
)
from s3.ops.access import EXPECTED_SOURCE_OWNER, find_bucket
from s3.ops.multipart import part_number, upload_id, upload_meta
from s3.ops.objects import MAX_PUT_BYTES, XML_TYPE, read_body
from s3.ranges import parse_copy_range
from s3.request import Context, S3Request
from s3.versions import parse_version_id, version_headers, version_text
from s3.xml import document, element, timestamp

_SMALL_BYTES = 1 << 20  # read whole before it is written
_CLOSE_SECONDS = 5


@attrs.frozen(kw_only=True)
class CopySource:
    """What x-amz-copy-source names."""

    bucket: str
    key: bytes
    version_id: bytes | None


def parse_source(header: str) -> CopySource:
    """The source: a bucket and a key, URL-encoded, maybe with ?versionId=. Raises S3Error."""
    path, _, query = header.partition("?")
    # Some SDKs write a space as a plus here, and a plus as %2B.
    raw = unquote_to_bytes(path.replace("+", " ")).lstrip(b"/")
    bucket, slash, key = raw.partition(b"/")
    name = bucket.decode("utf-8", "replace")
    is_version = not query or query.startswith("versionId=")
    if not (slash and key and is_version and is_bucket_name(name)):
        raise S3Error(
            "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            ArgumentName="x-amz-copy-source", ArgumentValue=header,
        )  # fmt: skip
    check_key(key)
    version = query.partition("=")[2]
    version_id = parse_version_id(version, "x-amz-copy-source") if version else None
    return CopySource(bucket=name, key=key, version_id=version_id)


async def _find_source(context: Context, request: S3Request) -> tuple[CopySource, Bucket, Object]:
    source = parse_source(request.headers.get(b"x-amz-copy-source") or "")
    bucket = await find_bucket(
        context, request, source.bucket, expected_owner=EXPECTED_SOURCE_OWNER
    )
    try:
        found = await context.objects.get(bucket, source.key, source.version_id)
    except DeleteMarkerError as error:
        if not error.asked:
            raise S3Error("NoSuchKey", Key=source.key.decode()) from None
        raise S3Error(
            "InvalidRequest",
            "The source of a copy request may not specifically refer to a delete marker by version id.",
        ) from None
    except NotFoundError as error:
        if error.kind != "version":
            raise
        version_id = version_text(source.version_id)
        raise S3Error("NoSuchVersion", Key=source.key.decode(), VersionId=version_id) from None
    version = found.version
    check_read(request.headers, version.validator, version.mtime_ms, prefix=b"x-amz-copy-source-")
    return source, bucket, found


@attrs.define
class _Bytes:
    """A Source over bytes in memory."""

    data: bytes
    at: int = 0

    @property
    def size_hint(self) -> int | None:
        return len(self.data)

    async def readinto(self, buffer: memoryview) -> int:
        piece = self.data[self.at : self.at + len(buffer)]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


@asynccontextmanager
async def _reading(context: Context, found: Object, start: int, stop: int) -> AsyncIterator[Source]:
    """The bytes start..stop-1 as a Source, when it is this copy's turn."""
    if stop - start <= _SMALL_BYTES:
        async with context.small_copies:
            yield _Bytes(await read_body(await found.open(start, stop), stop - start))
        return
    async with context.large_copies:
        source = await object_source(found, start, stop)
        try:
            yield source
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_SECONDS):
                await source.aclose()


class _Copied:
    """What is computed of the bytes while they pass: the ETag, and the checksum that the copy is to have."""

    def __init__(self, algorithm: Algorithm | None) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._algorithm = algorithm
        self._checksum = None if algorithm is None else algorithm.new()
        self.digests = [self._md5] if self._checksum is None else [self._md5, self._checksum]

    @property
    def validator(self) -> str:
        return self._md5.hexdigest()

    @property
    def checksum(self) -> tuple[Algorithm, bytes] | None:
        if self._algorithm is None or self._checksum is None:
            return None
        return self._algorithm, self._checksum.digest()

    def response(self, root: str, validator: str, mtime_ms: int) -> Response:
        xml = element("LastModified", timestamp(mtime_ms)) + f'<ETag>"{validator}"</ETag>'
        if self.checksum is not None:
            algorithm, value = self.checksum
            xml += element(f"Checksum{algorithm.name}", encode_value(value))
        return Response(status=200, headers=[XML_TYPE], body=document(root, xml))


async def copy_object(context: Context, request: S3Request) -> Response:
    """CopyObject."""
    source, source_bucket, found = await _find_source(context, request)
    size = found.version.size
    if size > MAX_PUT_BYTES:
        raise S3Error(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PUT_BYTES}",
        )
    old = decode(found.version.attributes)
    meta = _new_attributes(request, source, old)
    wish = request.headers.get(b"x-amz-checksum-algorithm")
    copied = _Copied(algorithm_named(wish) if wish else ALGORITHMS.get(old.checksum))

    def seal(_size: int) -> Seal:
        return Seal(
            validator=copied.validator, attributes=encode(with_checksum(meta, copied.checksum))
        )

    expect = write_conditions(request.headers)
    bucket = await find_bucket(context, request)
    async with _reading(context, found, 0, size) as body:
        put = PutRequest(source=body, digests=copied.digests, seal=seal, expect=expect)
        version = await context.objects.copy(found, bucket, request.key, put)
    response = copied.response("CopyObjectResult", version.validator, version.mtime_ms)
    response.headers += [
        *_source_headers(source_bucket, found.version),
        *version_headers(bucket, version),
    ]
    return response


def _source_headers(bucket: Bucket, version: Version) -> list[tuple[bytes, bytes]]:
    return version_headers(bucket, version, b"x-amz-copy-source-version-id")


def _new_attributes(request: S3Request, source: CopySource, old: ObjectMeta) -> ObjectMeta:
    """The copy's attributes but for its checksum. Raises S3Error."""
    directive = request.headers.get(b"x-amz-metadata-directive") or "COPY"
    if directive not in {"COPY", "REPLACE"}:
        raise S3Error(
            "InvalidArgument",
            "Unknown metadata directive.",
            ArgumentName="x-amz-metadata-directive",
            ArgumentValue=directive,
        )
    same = (source.bucket, source.key) == (request.bucket, request.key)
    # To copy an older version onto its key is how it is restored.
    if (
        same
        and source.version_id is None
        and directive == "COPY"
        and b"x-amz-storage-class" not in request.headers
    ):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
            "metadata, storage class, website redirect location or encryption attributes.",
        )
    sent = from_headers(request.headers)  # refuses what it must in either case
    if directive == "REPLACE":
        return sent
    return ObjectMeta(
        content_type=old.content_type,
        headers=old.headers,
        user=old.user,
        storage_class=sent.storage_class,
    )


async def upload_part_copy(context: Context, request: S3Request) -> Response:
    """UploadPartCopy."""
    number, upload = part_number(request), upload_id(request)
    bucket = await find_bucket(context, request)
    opened = upload_meta(await context.objects.get_upload(bucket, request.key, upload))
    _, source_bucket, found = await _find_source(context, request)
    span = request.headers.get(b"x-amz-copy-source-range")
    size = found.version.size
    start, stop = (0, size) if span is None else parse_copy_range(span, size)
    if stop - start > MAX_PUT_BYTES:
        raise S3Error("EntityTooLarge", ProposedSize=stop - start, MaxSizeAllowed=MAX_PUT_BYTES)
    copied = _Copied(ALGORITHMS.get(opened.checksum))

    def seal(_size: int) -> Seal:
        part = PartMeta()
        if copied.checksum is not None:
            part = PartMeta(checksum=copied.checksum[0].name, value=copied.checksum[1])
        return Seal(validator=copied.validator, attributes=encode(part))

    async with _reading(context, found, start, stop) as body:
        put = PutRequest(source=body, digests=copied.digests, seal=seal)
        part = await context.objects.put_part(bucket, request.key, upload, number, put)
    response = copied.response("CopyPartResult", part.validator, int(context.now() * 1000))
    response.headers += _source_headers(source_bucket, found.version)
    return response
