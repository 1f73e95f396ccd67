"""ListObjects v1 and v2: the store's pages in S3's XML, written by hand."""

import base64
import binascii
from collections.abc import Callable
from urllib.parse import quote

import attrs

from cluster.objects.model import Entry, Listing
from s3.errors import S3Error
from s3.messages import Response
from s3.object_meta import STANDARD, decode
from s3.ops.access import find_bucket
from s3.ops.objects import XML_TYPE, bounded_int
from s3.request import Context, S3Request
from s3.xml import document, element, text, timestamp

MAX_KEYS = 1000
_TOKEN_PREFIX = b"1:"  # version of the token's form


@attrs.frozen(kw_only=True)
class ListParams:
    """What all listings take."""

    prefix: bytes
    delimiter: bytes
    max_keys: int
    encode: Callable[[bytes], str]
    encoding_type: str | None

    @classmethod
    def of(cls, request: S3Request, limit_name: str = "max-keys") -> "ListParams":
        """From the query. Raises S3Error."""
        query = request.query
        encoding = query.get("encoding-type") or None
        if encoding not in {None, "url"}:
            raise S3Error(
                "InvalidArgument",
                "Invalid Encoding Method specified in Request",
                ArgumentName="encoding-type",
                ArgumentValue=encoding,
            )
        limit = query.get(limit_name)
        return cls(
            prefix=query_bytes(query.get("prefix")),
            delimiter=query_bytes(query.get("delimiter")),
            max_keys=MAX_KEYS if not limit else min(bounded_int(limit, limit_name), MAX_KEYS),
            encode=_url if encoding else _plain,
            encoding_type=encoding,
        )

    def element(self, name: str, value: bytes | None) -> str:
        """An element whose content the encoding type applies to; absent for None."""
        return "" if value is None else f"<{name}>{self.encode(value)}</{name}>"


def query_bytes(value: str | None) -> bytes:
    """A key, prefix or delimiter in a query."""
    return b"" if value is None else value.encode("utf-8", "surrogateescape")


def _url(key: bytes) -> str:
    return quote(key, safe="/-_.~*")


def _plain(key: bytes) -> str:
    return text(key.decode("utf-8", "replace"))


async def _page(context: Context, request: S3Request, params: ListParams, start: bytes) -> Listing:
    """A full page, or the last one: the store says where to go on, not whether anything is left there."""
    bucket = await find_bucket(context, request)
    if params.max_keys == 0:
        return Listing(entries=(), resume=None)
    entries: list[Entry] = []
    resume: bytes | None = max(start, params.prefix)
    while resume is not None:
        room = params.max_keys - len(entries)
        page = await context.objects.list(
            bucket,
            prefix=params.prefix,
            delimiter=params.delimiter,
            start=resume,
            limit=room or 1,
        )
        if not room and page.entries:
            return Listing(entries=tuple(entries), resume=page.entries[0].key)
        entries += page.entries
        resume = page.resume
    return Listing(entries=tuple(entries), resume=None)


def after_key(key: bytes, params: ListParams) -> bytes:
    """Where a listing goes on behind a key, or behind the common prefix that it names or lies in."""
    if not key:
        return b""
    if params.delimiter and key.startswith(params.prefix):
        cut = key.find(params.delimiter, len(params.prefix))
        if cut >= 0 and cut + len(params.delimiter) == len(key):
            # A marker that is a common prefix: everything in it was listed. 0xff is in no UTF-8 text.
            return key + b"\xff"
    return key + b"\0"


def _contents(entry: Entry, params: ListParams, owner: str) -> str:
    version = entry.versions[0]
    meta = decode(version.attributes)
    checksum = ""
    if meta.checksum_value:
        checksum = f"<ChecksumAlgorithm>{meta.checksum}</ChecksumAlgorithm><ChecksumType>{meta.checksum_type}</ChecksumType>"
    return (
        f"<Contents><Key>{params.encode(entry.key)}</Key><LastModified>{timestamp(version.mtime_ms)}</LastModified>"
        f'<ETag>"{version.validator}"</ETag>{checksum}<Size>{version.size}</Size>{owner}'
        f"<StorageClass>{meta.storage_class or STANDARD}</StorageClass></Contents>"
    )


def _entries(listing: Listing, params: ListParams, owner: str) -> str:
    contents = [_contents(entry, params, owner) for entry in listing.entries if not entry.is_prefix]
    prefixes = [
        f"<CommonPrefixes><Prefix>{params.encode(entry.key)}</Prefix></CommonPrefixes>"
        for entry in listing.entries
        if entry.is_prefix
    ]
    return "".join(contents + prefixes)


def owner_element(name: str) -> str:
    """Whose an entry is."""
    return f"<Owner>{element('ID', name)}{element('DisplayName', name)}</Owner>"


async def list_objects_v1(context: Context, request: S3Request) -> Response:
    """ListObjects."""
    params = ListParams.of(request)
    marker = query_bytes(request.query.get("marker"))
    listing = await _page(context, request, params, after_key(marker, params))
    truncated = listing.resume is not None
    xml = element("Name", request.bucket) + params.element("Prefix", params.prefix)
    xml += params.element("Marker", marker)
    if truncated and params.delimiter:
        xml += params.element("NextMarker", listing.entries[-1].key)
    xml += element("MaxKeys", params.max_keys)
    xml += params.element("Delimiter", params.delimiter or None)
    xml += element("EncodingType", params.encoding_type) + element(
        "IsTruncated", str(truncated).lower()
    )
    xml += _entries(listing, params, owner_element(request.identity.owner))
    return Response(status=200, headers=[XML_TYPE], body=document("ListBucketResult", xml))


async def list_objects_v2(context: Context, request: S3Request) -> Response:
    """ListObjectsV2."""
    params = ListParams.of(request)
    token, start_after = request.query.get("continuation-token"), request.query.get("start-after")
    start = (
        decode_token(token) if token is not None else after_key(query_bytes(start_after), params)
    )
    listing = await _page(context, request, params, start)
    owner = (
        owner_element(request.identity.owner) if request.query.get("fetch-owner") == "true" else ""
    )
    xml = element("Name", request.bucket) + params.element("Prefix", params.prefix)
    xml += element("MaxKeys", params.max_keys) + params.element(
        "Delimiter", params.delimiter or None
    )
    xml += element("EncodingType", params.encoding_type) + element("KeyCount", len(listing.entries))
    xml += element("ContinuationToken", token)
    if start_after is not None:
        xml += params.element("StartAfter", query_bytes(start_after))
    xml += element("IsTruncated", str(listing.resume is not None).lower())
    if listing.resume is not None:
        xml += element("NextContinuationToken", encode_token(listing.resume))
    xml += _entries(listing, params, owner)
    return Response(status=200, headers=[XML_TYPE], body=document("ListBucketResult", xml))


def encode_token(resume: bytes) -> str:
    """An opaque continuation token: no server state, only where to go on."""
    return base64.urlsafe_b64encode(_TOKEN_PREFIX + resume).decode()


def decode_token(token: str) -> bytes:
    """Inverse of encode_token. Raises S3Error InvalidArgument."""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw.startswith(_TOKEN_PREFIX) or len(raw) > 4096:
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
        )
    return raw[len(_TOKEN_PREFIX) :]
