"""PutObject, GetObject, HeadObject, DeleteObject, GetObjectAttributes."""

import re
from collections.abc import Sequence
from contextlib import suppress

from cluster.errors import SupersededError
from cluster.objects.model import (
    Bucket,
    Object,
    Part,
    PutRequest,
    Reader,
    Seal,
    Version,
)
from s3.checksums import ALGORITHMS, encode_value
from s3.conditions import check_read, delete_condition, write_conditions
from s3.errors import S3Error
from s3.messages import Response, http_date
from s3.object_meta import (
    STANDARD,
    ObjectMeta,
    checksum_headers,
    decode,
    decode_part,
    encode,
    from_headers,
    response_headers,
    storage_class_headers,
    with_checksum,
)
from s3.ops.access import find_bucket
from s3.ranges import parse_range
from s3.request import Context, S3Request
from s3.versions import (
    DELETE_MARKER,
    VERSION_ID,
    asked_version,
    version_headers,
    version_text,
)
from s3.xml import document, element

MAX_PUT_BYTES = 5 << 30
MAX_LOOKS = 3  # for an object that is replaced, and its old data gone, between look and read
MAX_PARTS = 10_000
_INLINE_RESPONSE_BYTES = 64 * 1024  # smaller bodies go out with the head, in one send
_NOT_IN_HEADERS = re.compile("[\\x00-\\x1f\\x7f\\ud800-\\udfff]")
_OVERRIDES = {
    "response-content-type": "content-type",
    "response-content-language": "content-language",
    "response-expires": "expires",
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
}


async def put_object(context: Context, request: S3Request) -> Response:
    """PutObject."""
    if "versionId" in request.query:
        raise S3Error(
            "InvalidArgument", "This operation does not accept a version-id.",
            ArgumentName="versionId", ArgumentValue=request.query.get("versionId"),
        )  # fmt: skip
    meta = from_headers(request.headers)
    expect = write_conditions(request.headers)
    body = request.body()
    stored = meta

    def seal(size: int) -> Seal:
        nonlocal stored
        sealed = body.seal(size)
        stored = with_checksum(meta, sealed.checksum)
        return Seal(validator=sealed.md5.hex(), attributes=encode(stored))

    bucket = await find_bucket(context, request)
    if expect:
        # Spares a client the upload of a body whose condition does not hold now. The commit decides, not this.
        await context.objects.check(bucket, request.key, expect)
    version = await context.objects.put(
        bucket, request.key, PutRequest(source=body, digests=body.digests, seal=seal, expect=expect)
    )
    headers = [(b"ETag", quoted(version.validator)), *checksum_headers(stored)]
    headers += version_headers(bucket, version)
    return Response(status=200, headers=headers)


async def get_object(context: Context, request: S3Request) -> Response:
    """GetObject."""
    for _ in range(MAX_LOOKS - 1):
        with suppress(SupersededError):
            return await _get_object(context, request)
    return await _get_object(context, request)


async def _get_object(context: Context, request: S3Request) -> Response:
    bucket, found = await find_object(context, request)
    start, stop, headers, status = await _selection(request, bucket, found)
    size = stop - start
    reader = await found.open(start, stop)
    if size <= _INLINE_RESPONSE_BYTES:
        body = await read_body(reader, size)
        return Response(status=status, headers=headers, body=body)
    return Response(status=status, headers=headers, body=reader, length=size)


async def read_body(reader: Reader, size: int) -> bytes:
    """All of a small body."""
    try:
        data = b""
        while len(data) < size and (buffers := await reader.next()) is not None:
            data = b"".join((data, *buffers)) if data else b"".join(buffers)
        return data
    finally:
        await reader.aclose()


async def head_object(context: Context, request: S3Request) -> Response:
    """HeadObject."""
    bucket, found = await find_object(context, request)
    start, stop, headers, status = await _selection(request, bucket, found)
    return Response(status=status, headers=headers, length=stop - start)


async def find_object(context: Context, request: S3Request) -> tuple[Bucket, Object]:
    """The version that a GET or HEAD names, its conditions checked, and its bucket. Raises S3Error."""
    version_id = asked_version(request.query)
    bucket = await find_bucket(context, request)
    found = await context.objects.get(bucket, request.key, version_id)
    version = found.version
    try:
        check_read(request.headers, version.validator, version.mtime_ms)
    except S3Error as error:
        if error.code == "NotModified":
            meta = decode(version.attributes)
            error.headers = tuple(_common_headers(bucket, version, meta, {}))
        raise
    return bucket, found


async def _selection(
    request: S3Request, bucket: Bucket, found: Object
) -> tuple[int, int, list[tuple[bytes, bytes]], int]:
    """The bytes to send, the response headers and the status."""
    version = found.version
    meta = decode(version.attributes)
    headers = _common_headers(bucket, version, meta, _overrides(request))
    part_number = request.query.get("partNumber")
    wanted = request.headers.get(b"range")
    if part_number is not None:
        if wanted is not None:
            raise S3Error(
                "InvalidRequest", "Cannot specify both Range header and partNumber query parameter"
            )
        start, stop, count = await _part_range(found, part_number)
        if count:
            headers.append((b"x-amz-mp-parts-count", b"%d" % count))
        span: tuple[int, int] | None = (start, stop)
    else:
        span = parse_range(wanted, version.size)
    if span is None:
        if (request.headers.get(b"x-amz-checksum-mode") or "").upper() == "ENABLED":
            headers += checksum_headers(meta)
        return 0, version.size, headers, 200
    if version.size:
        headers.append((b"Content-Range", b"bytes %d-%d/%d" % (span[0], span[1] - 1, version.size)))
    return *span, headers, 206


def _overrides(request: S3Request) -> dict[str, str]:
    """Headers of the response that the query sets. Raises S3Error."""
    if not request.query.pairs:
        return {}
    overrides = {}
    for name, header in _OVERRIDES.items():
        value = request.query.get(name)
        if value is None:
            continue
        if _NOT_IN_HEADERS.search(value):
            raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=value)
        overrides[header] = value
    return overrides


async def _part_range(found: Object, text: str) -> tuple[int, int, int]:
    """Start, stop and part count (0: not a multipart object).

    Parts are counted in their order, whatever numbers they were uploaded under: a client that is told of x-amz-mp-parts-count
    asks for 1 up to that.
    """
    number = part_number(text)
    version = found.version
    if version.upload_id is None:
        if number != 1:
            raise S3Error("InvalidPartNumber", ActualPartCount=1, PartNumberRequested=number)
        return 0, version.size, 0
    parts = await found.parts()
    if number > len(parts):
        raise S3Error("InvalidPartNumber", ActualPartCount=len(parts), PartNumberRequested=number)
    start = sum(part.size for part in parts[: number - 1])
    return start, start + parts[number - 1].size, len(parts)


def part_number(text: str) -> int:
    """A part's number as it stands in a query. Raises S3Error."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= MAX_PARTS):
        raise S3Error(
            "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive",
            ArgumentName="partNumber", ArgumentValue=text,
        )  # fmt: skip
    return int(text)


def _common_headers(
    bucket: Bucket, version: Version, meta: ObjectMeta, overrides: dict[str, str]
) -> list[tuple[bytes, bytes]]:
    return [
        (b"ETag", quoted(version.validator)),
        (b"Last-Modified", http_date(version.mtime_ms // 1000)),
        (b"Accept-Ranges", b"bytes"),
        *response_headers(meta, overrides),
        *storage_class_headers(meta),
        *version_headers(bucket, version),
    ]


def quoted(validator: str) -> bytes:
    """An ETag as it stands in headers."""
    return f'"{validator}"'.encode()


async def delete_object(context: Context, request: S3Request) -> Response:
    """DeleteObject: a key or version that is not there is deleted, too."""
    version_id = asked_version(request.query)
    bucket = await find_bucket(context, request)
    for name in (b"x-amz-if-match-last-modified-time", b"x-amz-if-match-size"):
        if name in request.headers:  # a condition that is ignored would delete too much
            raise S3Error("NotImplemented", Header=name.decode())
    expect = delete_condition(request.headers.get(b"if-match"))
    done = await context.objects.delete(bucket, request.key, expect, version_id=version_id)
    headers = []
    if done is not None and done.delete_marker:  # inserted, or removed by its id
        headers += [DELETE_MARKER, (VERSION_ID, version_text(done.version_id).encode())]
    elif version_id is not None:
        headers.append((VERSION_ID, version_text(version_id).encode()))
    return Response(status=204, headers=headers)


async def get_object_attributes(context: Context, request: S3Request) -> Response:
    """GetObjectAttributes."""
    wanted = {
        name.strip()
        for value in request.headers.all(b"x-amz-object-attributes")
        for name in value.decode("latin-1").split(",")
    }
    known = {"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"}
    if not wanted or not wanted <= known:
        raise S3Error(
            "InvalidArgument",
            "Invalid attribute name specified.",
            ArgumentName="x-amz-object-attributes",
        )
    bucket, found = await find_object(context, request)
    version, meta = found.version, decode(found.version.attributes)
    xml = ""
    if "ETag" in wanted:
        xml += element("ETag", version.validator)
    if "Checksum" in wanted and meta.checksum_value:
        xml += (
            f"<Checksum>{element(f'Checksum{meta.checksum}', meta.checksum_value)}"
            f"{element('ChecksumType', meta.checksum_type)}</Checksum>"
        )
    if "ObjectParts" in wanted and version.upload_id is not None:
        xml += _object_parts(request, await found.parts())
    if "StorageClass" in wanted:
        xml += element("StorageClass", meta.storage_class or STANDARD)
    if "ObjectSize" in wanted:
        xml += element("ObjectSize", version.size)
    headers = [(b"Last-Modified", http_date(version.mtime_ms // 1000)), XML_TYPE]
    headers += version_headers(bucket, version)
    return Response(status=200, headers=headers, body=document("GetObjectAttributesResponse", xml))


def _object_parts(request: S3Request, parts: Sequence[Part]) -> str:
    limit = min(int_header(request, b"x-amz-max-parts", 1000), 1000)
    marker = int_header(request, b"x-amz-part-number-marker", 0)
    rest = [part for part in parts if part.number > marker]
    shown = rest[:limit]
    xml = element("PartsCount", len(parts)) + element("PartNumberMarker", marker)
    xml += element("MaxParts", limit) + element("IsTruncated", str(len(rest) > limit).lower())
    if shown:
        xml += element("NextPartNumberMarker", shown[-1].number)
    if any(part.attributes for part in parts):
        for part in shown:
            meta = decode_part(part.attributes)
            xml += f"<Part>{element('PartNumber', part.number)}{element('Size', part.size)}"
            if meta.checksum in ALGORITHMS:
                xml += element(f"Checksum{meta.checksum}", encode_value(meta.value))
            xml += "</Part>"
    return f"<ObjectParts>{xml}</ObjectParts>"


XML_TYPE = (b"Content-Type", b"application/xml")


def int_header(request: S3Request, name: bytes, default: int) -> int:
    """A non-negative number in a header. Raises S3Error."""
    value = request.headers.get(name)
    return default if value is None else bounded_int(value, name.decode())


def bounded_int(value: str, name: str) -> int:
    """A non-negative number of up to nine digits. Raises S3Error InvalidArgument."""
    if not (value.isascii() and value.isdecimal() and len(value) <= 10 and int(value) < 1 << 31):
        raise S3Error(
            "InvalidArgument",
            f"Provided {name} not an integer or within integer range",
            ArgumentName=name,
            ArgumentValue=value,
        )
    return int(value)


async def get_object_tagging(context: Context, request: S3Request) -> Response:
    """GetObjectTagging: objects carry no tags yet, and that is what is answered."""
    bucket, found = await find_object(context, request)
    headers = [XML_TYPE, *version_headers(bucket, found.version)]
    return Response(status=200, headers=headers, body=document("Tagging", "<TagSet/>"))
