"""DeleteObjects: up to 1,000 keys, a bounded number at a time, each with its own outcome inside a 200."""

from collections.abc import Sequence

import attrs
import trio

from cluster.errors import ClusterError
from cluster.objects.model import Bucket, Version
from s3.conditions import delete_condition
from s3.errors import S3Error
from s3.messages import Response
from s3.names import check_key
from s3.ops.access import find_bucket
from s3.ops.objects import XML_TYPE
from s3.policy import object_arn
from s3.request import Context, S3Request
from s3.translate import Subject, translate
from s3.versions import parse_version_id, version_text
from s3.xml import document, element, parse

DELETE, DELETE_VERSION = "s3:DeleteObject", "s3:DeleteObjectVersion"
MAX_KEYS = 1000
MAX_BODY_BYTES = 2 << 20
_AT_A_TIME = 64
_KNOWN = frozenset({"Key", "VersionId", "ETag"})


@attrs.frozen(kw_only=True)
class _Entry:
    key: str
    version_id: str | None
    etag: str | None
    unsupported: str | None = (
        None  # a condition that we do not know: ignoring it would delete too much
    )


def parse_delete(body: bytes) -> tuple[list[_Entry], bool]:
    """The keys, and whether successes are to be left out. Raises S3Error."""
    root = parse(body, "Delete")
    entries = []
    for node in root.all("Object"):
        raw = next((child.text for child in node.children if child.name == "Key"), None)
        if not raw:
            raise S3Error("MalformedXML")
        strange = next((c.name for c in node.children if c.name not in _KNOWN), None)
        entries.append(
            _Entry(
                key=raw,
                version_id=node.get("VersionId"),
                etag=node.get("ETag"),
                unsupported=strange,
            )
        )
    if not entries or len(entries) > MAX_KEYS:
        raise S3Error("MalformedXML")
    return entries, (root.get("Quiet") or "").lower() == "true"


async def delete_objects(context: Context, request: S3Request) -> Response:
    """DeleteObjects."""
    body = request.body()
    if not body.is_protected:
        raise S3Error(
            "InvalidRequest",
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        )
    entries, quiet = parse_delete(await body.read_all(MAX_BODY_BYTES))
    outcomes: list[S3Error | Version | None] = [_refusal(request, entry) for entry in entries]
    if not all(outcomes):
        await _delete_all(context, request, entries, outcomes)
    xml = ""
    for entry, outcome in zip(entries, outcomes, strict=True):
        names = element("Key", entry.key) + element("VersionId", entry.version_id)
        if isinstance(outcome, S3Error):
            xml += f"<Error>{names}{element('Code', outcome.code)}{element('Message', outcome.message)}</Error>"
        elif not quiet:
            xml += f"<Deleted>{names}{_marker(outcome)}</Deleted>"
    return Response(status=200, headers=[XML_TYPE], body=document("DeleteResult", xml))


def _refusal(request: S3Request, entry: _Entry) -> S3Error | None:
    """Each key asks for itself."""
    action = DELETE if entry.version_id in {None, ""} else DELETE_VERSION
    resource = object_arn(request.bucket, entry.key.encode("utf-8", "replace"))
    return None if request.identity.grants.may(action, resource) else S3Error("AccessDenied")


async def _delete_all(
    context: Context,
    request: S3Request,
    entries: Sequence[_Entry],
    outcomes: list[S3Error | Version | None],
) -> None:
    """Delete what has no outcome yet."""
    bucket = await find_bucket(context, request)
    waiting = iter([index for index, outcome in enumerate(outcomes) if outcome is None])

    async def work() -> None:
        for index in waiting:
            outcomes[index] = await _delete_one(context, bucket, entries[index])

    async with trio.open_nursery() as nursery:
        for _ in range(min(_AT_A_TIME, len(entries))):
            nursery.start_soon(work)


def _marker(done: Version | None) -> str:
    """The marker that was inserted, or removed by its id."""
    if done is None or not done.delete_marker:
        return ""
    version_id = element("DeleteMarkerVersionId", version_text(done.version_id))
    return f"<DeleteMarker>true</DeleteMarker>{version_id}"


async def _delete_one(context: Context, bucket: Bucket, entry: _Entry) -> S3Error | Version | None:
    try:
        key = entry.key.encode("utf-8", "surrogateescape")
        check_key(key)
        if entry.unsupported is not None:
            return S3Error("NotImplemented", f"{entry.unsupported} of an object is not supported.")
        version_id = parse_version_id(entry.version_id, "VersionId") if entry.version_id else None
        expect = delete_condition(entry.etag)
        return await context.objects.delete(bucket, key, expect, version_id=version_id)
    except S3Error as error:
        return error
    except ClusterError as error:
        return translate(error, Subject(bucket=bucket.name, key=entry.key, condition="If-Match"))
