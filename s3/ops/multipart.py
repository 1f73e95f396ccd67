"""Multipart uploads: create, upload parts, abort, list ("Uploading and copying objects using multipart upload")."""

import re
from collections.abc import Sequence

import msgspec

from cluster.ids import UploadId
from cluster.objects.model import PutRequest, Seal, Upload, UploadInfo
from s3.checksums import (
    ALGORITHMS,
    algorithm_named,
    encode_value,
    multipart_type,
)
from s3.errors import S3Error
from s3.messages import Response
from s3.object_meta import (
    STANDARD,
    ObjectMeta,
    PartMeta,
    decode,
    decode_part,
    encode,
    from_headers,
)
from s3.ops import objects
from s3.ops.access import find_bucket
from s3.ops.listing import ListParams
from s3.ops.objects import XML_TYPE, bounded_int, quoted
from s3.request import Context, S3Request
from s3.xml import document, element, timestamp

_PAGE = 1000


def upload_id(request: S3Request) -> UploadId:
    """The upload that the query names. Raises S3Error NoSuchUpload for what cannot be one."""
    text = request.query.get("uploadId") or ""
    if not re.fullmatch(r"[0-9a-f]{32}", text):
        raise S3Error("NoSuchUpload", UploadId=text)
    return UploadId(bytes.fromhex(text))


def part_number(request: S3Request) -> int:
    """The part number that the query names. Raises S3Error."""
    return objects.part_number(request.query.get("partNumber") or "")


def upload_meta(upload: Upload) -> ObjectMeta:
    """What CreateMultipartUpload said of the object to be."""
    return decode(upload.attributes)


async def create_multipart_upload(context: Context, request: S3Request) -> Response:
    """CreateMultipartUpload: it carries the object's metadata and checksum algorithm; parts and Complete do not."""
    meta = from_headers(request.headers)
    wish = request.headers.get(b"x-amz-checksum-algorithm")
    kind = request.headers.get(b"x-amz-checksum-type")
    headers = [XML_TYPE]
    if wish is not None:
        algorithm = algorithm_named(wish)
        meta = msgspec.structs.replace(
            meta, checksum=algorithm.name, checksum_type=multipart_type(algorithm, kind)
        )
        headers += [
            (b"x-amz-checksum-algorithm", algorithm.name.encode()),
            (b"x-amz-checksum-type", meta.checksum_type.encode()),
        ]
    elif kind is not None:
        raise S3Error(
            "InvalidRequest",
            "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
        )
    bucket = await find_bucket(context, request)
    upload = await context.objects.create_upload(bucket, request.key, encode(meta))
    xml = (
        element("Bucket", request.bucket)
        + element("Key", request.key.decode())
        + element("UploadId", upload.hex())
    )
    return Response(
        status=200, headers=headers, body=document("InitiateMultipartUploadResult", xml)
    )


async def upload_part(context: Context, request: S3Request) -> Response:
    """UploadPart."""
    number, upload = part_number(request), upload_id(request)
    body = request.body()
    bucket = await find_bucket(context, request)
    opened = upload_meta(await context.objects.get_upload(bucket, request.key, upload))
    if opened.checksum:
        body.compute(ALGORITHMS[opened.checksum])
    stored = PartMeta()

    def seal(size: int) -> Seal:
        nonlocal stored
        sealed = body.seal(size)
        if sealed.checksum is not None:
            stored = PartMeta(checksum=sealed.checksum[0].name, value=sealed.checksum[1])
        return Seal(validator=sealed.md5.hex(), attributes=encode(stored))

    part = await context.objects.put_part(
        bucket,
        request.key,
        upload,
        number,
        PutRequest(source=body, digests=body.digests, seal=seal),
    )
    headers = [(b"ETag", quoted(part.validator))]
    if stored.checksum:
        headers.append((ALGORITHMS[stored.checksum].header, encode_value(stored.value).encode()))
    return Response(status=200, headers=headers)


async def abort_multipart_upload(context: Context, request: S3Request) -> Response:
    """AbortMultipartUpload."""
    bucket = await find_bucket(context, request)
    await context.objects.abort_upload(bucket, request.key, upload_id(request))
    return Response(status=204)


async def list_parts(context: Context, request: S3Request) -> Response:
    """ListParts."""
    upload = upload_id(request)
    limit_text, marker_text = (
        request.query.get("max-parts"),
        request.query.get("part-number-marker"),
    )
    limit = min(bounded_int(limit_text, "max-parts") if limit_text else _PAGE, _PAGE)
    after = bounded_int(marker_text, "part-number-marker") if marker_text else 0
    bucket = await find_bucket(context, request)
    meta = upload_meta(await context.objects.get_upload(bucket, request.key, upload))
    parts, more = await context.objects.list_parts(
        bucket, request.key, upload, after=after, limit=max(limit, 1)
    )
    shown = parts[:limit]
    owner = request.identity.owner
    xml = (
        element("Bucket", request.bucket)
        + element("Key", request.key.decode())
        + element("UploadId", upload.hex())
    )
    xml += f"<Initiator>{element('ID', owner)}{element('DisplayName', owner)}</Initiator>"
    xml += f"<Owner>{element('ID', owner)}{element('DisplayName', owner)}</Owner>"
    xml += element("StorageClass", meta.storage_class or STANDARD) + element(
        "PartNumberMarker", after
    )
    if meta.checksum:
        xml += element("ChecksumAlgorithm", meta.checksum) + element(
            "ChecksumType", meta.checksum_type
        )
    if shown:
        xml += element("NextPartNumberMarker", shown[-1].part.number)
    xml += element("MaxParts", limit) + element("IsTruncated", str(more and limit > 0).lower())
    for info in shown:
        known = decode_part(info.part.attributes)
        checksum = (
            element(f"Checksum{known.checksum}", encode_value(known.value))
            if known.checksum
            else ""
        )
        xml += (
            f"<Part>{element('PartNumber', info.part.number)}{element('LastModified', timestamp(info.mtime_ms))}"
            f'<ETag>"{info.part.validator}"</ETag>{element("Size", info.part.size)}{checksum}</Part>'
        )
    return Response(status=200, headers=[XML_TYPE], body=document("ListPartsResult", xml))


async def list_multipart_uploads(context: Context, request: S3Request) -> Response:
    """ListMultipartUploads: by key, uploads of a key by their initiation."""
    params = ListParams.of(request, "max-uploads")
    key_marker = (request.query.get("key-marker") or "").encode("utf-8", "surrogateescape")
    id_marker = request.query.get("upload-id-marker") or ""
    rows = await _collect_uploads(context, request, params, key_marker, id_marker)
    shown, more = rows[: params.max_keys], len(rows) > params.max_keys > 0
    owner = f"<ID>{request.identity.owner}</ID><DisplayName>{request.identity.owner}</DisplayName>"
    xml = (
        element("Bucket", request.bucket)
        + params.element("KeyMarker", key_marker)
        + element("UploadIdMarker", id_marker)
    )
    if more and shown:
        last_key, last_upload = shown[-1]
        xml += params.element("NextKeyMarker", last_key)
        xml += element(
            "NextUploadIdMarker", last_upload.upload_id.hex() if last_upload is not None else ""
        )
    xml += params.element("Prefix", params.prefix) + params.element(
        "Delimiter", params.delimiter or None
    )
    xml += element("EncodingType", params.encoding_type) + element("MaxUploads", params.max_keys)
    xml += element("IsTruncated", str(more).lower())
    for key, upload in shown:
        if upload is None:
            xml += f"<CommonPrefixes>{params.element('Prefix', key)}</CommonPrefixes>"
        else:
            xml += (
                f"<Upload>{params.element('Key', key)}{element('UploadId', upload.upload_id.hex())}"
                f"<Initiator>{owner}</Initiator><Owner>{owner}</Owner>"
                f"{element('StorageClass', upload_meta(upload).storage_class or STANDARD)}"
                f"{element('Initiated', timestamp(upload.mtime_ms))}</Upload>"
            )
    return Response(
        status=200, headers=[XML_TYPE], body=document("ListMultipartUploadsResult", xml)
    )


def _behind_marker(uploads: Sequence[UploadInfo], key_marker: bytes, id_marker: str) -> int:
    """The first upload behind the markers; where the marker is aborted meanwhile, the first of its key."""
    first_of_key = last_of_key = 0
    for index, info in enumerate(uploads):
        if info.key > key_marker:
            break
        last_of_key = index + 1
        if info.key < key_marker:
            first_of_key = index + 1
        elif info.upload.upload_id.hex() == id_marker:
            return index + 1
    return first_of_key if id_marker else last_of_key


async def _collect_uploads(
    context: Context, request: S3Request, params: ListParams, key_marker: bytes, id_marker: str
) -> list[tuple[bytes, Upload | None]]:
    """One row more than fits, in order; None stands for a common prefix."""
    bucket = await find_bucket(context, request)
    rows: list[tuple[bytes, Upload | None]] = []
    start = max(key_marker, params.prefix)
    more = True
    while more and len(rows) <= params.max_keys:
        uploads, more = await context.objects.list_uploads(
            bucket, prefix=params.prefix, start=start, limit=_PAGE
        )
        behind = _behind_marker(uploads, key_marker, id_marker)
        for info in uploads[behind:]:
            cut = info.key.find(params.delimiter, len(params.prefix)) if params.delimiter else -1
            if cut < 0:
                rows.append((info.key, info.upload))
                continue
            prefix = info.key[: cut + len(params.delimiter)]
            if (not rows or rows[-1][0] != prefix) and prefix != key_marker:
                rows.append((prefix, None))
        if uploads:
            start = uploads[-1].key + b"\0"
        else:
            break
    return rows
