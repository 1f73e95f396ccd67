"""Behaviours of S3 that are easily got wrong, one row each: what is sent, and what S3 answers."""

import attrs
import pytest

from s3.errors import S3Error
from tests.s3.client import Client, etag, md5_header
from tests.s3.ops.test_multipart import BIG, begin, listing, part

TAG = etag(b"hello")
PAST, FUTURE = "Thu, 01 Jan 1998 00:00:00 GMT", "Fri, 01 Jan 2038 00:00:00 GMT"
SOURCE = "x-amz-copy-source"
UNKNOWN = "0" * 32  # a version id that names nothing


@attrs.frozen
class Row:
    """A request on the world of `client` and the answer: its status, a code or the body, and some of its headers or texts."""

    method: str
    target: str
    headers: dict[str, str]
    answer: str  # "206 body", or "416 Code"
    more: dict[str, str | None] = attrs.field(factory=dict)
    body: bytes = b""


async def world() -> Client:
    client = Client()
    await client("PUT", "/bkt")
    sent = {"Cache-Control": "no-cache", "x-amz-checksum-crc32": "NhCmhg=="}
    await client("PUT", "/bkt/k", body=b"hello", headers=sent)
    await client("PUT", "/bkt/empty")
    upload = await begin(client, "gaps", x_amz_storage_class="STANDARD_IA")
    for number, body in ((3, BIG), (7, b"mid" + BIG), (9, b"tail")):
        await part(client, upload, number, body, "gaps")
    parts = listing((3, etag(BIG)), (7, etag(b"mid" + BIG)), (9, etag(b"tail")))
    await client("POST", "/bkt/gaps", f"uploadId={upload}", body=parts)
    return client


MIB5 = len(BIG)
WHOLE = 2 * MIB5 + 7
READS = [
    # Conditions: the first of each pair wins, tags come quoted, unquoted and in lists.
    Row("GET", "k", {"If-Match": TAG, "If-Unmodified-Since": PAST}, "200 hello"),
    Row("GET", "k", {"If-Match": '"x"', "If-Unmodified-Since": FUTURE}, "412 PreconditionFailed", {"Condition": "If-Match"}),
    Row("GET", "k", {"If-None-Match": '"x"', "If-Modified-Since": FUTURE}, "200 hello"),
    Row("GET", "k", {"If-None-Match": TAG, "If-Modified-Since": PAST}, "304 NotModified", {"ETag": TAG, "Cache-Control": "no-cache"}),
    Row("GET", "k", {"If-Match": TAG, "If-None-Match": TAG}, "304 NotModified"),
    Row("GET", "k", {"If-None-Match": f'"x", W/{TAG}'}, "304 NotModified"),
    Row("GET", "k", {"If-Match": TAG.strip('"')}, "200 hello"),
    Row("GET", "k", {"If-Unmodified-Since": PAST}, "412 PreconditionFailed", {"Condition": "If-Unmodified-Since"}),
    Row("GET", "k", {"If-Modified-Since": "yesterday"}, "200 hello"),
    Row("GET", "absent", {"If-None-Match": "*"}, "404 NoSuchKey", {"Key": "absent"}),
    # Ranges: one, clamped; what cannot be read is ignored.
    Row("GET", "k", {"Range": "bytes=1-18446744073709551615"}, "206 ello", {"content-range": "bytes 1-4/5"}),
    Row("GET", "k", {"Range": "bytes=-99999999999999999999"}, "206 hello", {"content-range": "bytes 0-4/5"}),
    Row("GET", "k", {"Range": "bytes=99999999999999999999-"}, "416 InvalidRange", {"Content-Range": "bytes */5"}),
    Row("GET", "k", {"Range": "bytes=-0"}, "416 InvalidRange", {"Content-Range": "bytes */5"}),
    Row("GET", "empty", {"Range": "bytes=-5"}, "416 InvalidRange", {"Content-Range": "bytes */0"}),
    Row("GET", "k", {"Range": "bytes=\u0663-"}, "200 hello"),
    Row("GET", "k", {"Range": f"bytes={'1' * 5000}-"}, "200 hello"),
    Row("GET", "k", {"Range": "bytes=1-2", "x-amz-checksum-mode": "ENABLED"}, "206 el", {"x-amz-checksum-crc32": None}),
    Row("GET", "k", {"x-amz-checksum-mode": "ENABLED"}, "200 hello", {"x-amz-checksum-type": "FULL_OBJECT"}),
    Row("GET", "k", {}, "200 hello", {"x-amz-checksum-crc32": None, "content-type": "binary/octet-stream"}),
    # Parts are counted in order, whatever numbers they were uploaded under: SDKs ask for 1 to x-amz-mp-parts-count.
    Row("GET", "gaps?partNumber=3", {}, "206 tail", {"x-amz-mp-parts-count": "3", "content-range": f"bytes {WHOLE - 4}-{WHOLE - 1}/{WHOLE}"}),
    Row("HEAD", "gaps?partNumber=1", {}, "206 ", {"content-range": f"bytes 0-{MIB5 - 1}/{WHOLE}"}),
    Row("HEAD", "gaps?partNumber=2", {}, "206 ", {"content-range": f"bytes {MIB5}-{2 * MIB5 + 2}/{WHOLE}"}),
    Row("GET", "gaps?partNumber=4", {}, "416 InvalidPartNumber", {"ActualPartCount": "3"}),
    Row("GET", "gaps?partNumber=7", {}, "416 InvalidPartNumber", {"PartNumberRequested": "7"}),
    Row("GET", "gaps?partNumber=10001", {}, "400 InvalidArgument", {"ArgumentName": "partNumber"}),
    Row("GET", f"gaps?partNumber={'9' * 5000}", {}, "400 InvalidArgument", {"ArgumentName": "partNumber"}),
    Row("GET", "gaps?partNumber=%D9%A3", {}, "400 InvalidArgument", {"ArgumentName": "partNumber"}),
    Row("GET", "gaps?partNumber=1", {"Range": "bytes=0-1"}, "400 InvalidRequest"),
    Row("GET", "k?partNumber=1", {}, "206 hello", {"x-amz-mp-parts-count": None}),
    Row("GET", "k?partNumber=2", {}, "416 InvalidPartNumber"),
    Row("GET", "k?x-id=GetObject&response-content-type=a/b", {}, "200 hello", {"content-type": "a/b"}),
]  # fmt: skip
WRITES = [
    Row("PUT", "new", {"If-Match": "*"}, "404 NoSuchKey"),
    Row("PUT", "k", {"If-None-Match": TAG}, "501 NotImplemented", {"Header": "If-None-Match"}),
    Row("PUT", "k", {"If-None-Match": "*", "If-Match": TAG}, "501 NotImplemented"),
    Row("PUT", "new", {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-sha1": "x"}, "400 InvalidRequest"),
    Row("PUT", "new", {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-trailer": "x-amz-checksum-crc32"}, "400 InvalidRequest"),
    Row("PUT", "new", {"x-amz-checksum-md4": "AAAAAA=="}, "400 InvalidRequest"),
    Row("PUT", "n" * 1025, {}, "400 KeyTooLongError"),
    Row("PUT", "k?inventory", {}, "501 NotImplemented"),
    Row("PUT", "k?partNumber=1", {}, "501 NotImplemented"),
    Row("PUT", "k?torrent", {}, "501 NotImplemented"),
    Row("PUT", "k", {SOURCE: "bkt/k"}, "400 InvalidRequest"),
    Row("PUT", "k", {SOURCE: "bkt/k", "x-amz-meta-a": "b"}, "400 InvalidRequest"),
    Row("PUT", "new", {SOURCE: f"bkt/k?versionId={UNKNOWN}"}, "404 NoSuchVersion", {"Key": "k", "VersionId": UNKNOWN}),
    Row("PUT", "new", {SOURCE: "bkt/k?versionId=other"}, "400 InvalidArgument", {"ArgumentName": "x-amz-copy-source"}),
    Row("PUT", "new", {SOURCE: "bkt/k", "x-amz-metadata-directive": "MERGE"}, "400 InvalidArgument"),
    Row("POST", "k?uploads", {"x-amz-storage-class": "PAPER"}, "400 InvalidStorageClass"),
    Row("POST", "k?restore", {}, "501 NotImplemented"),
    Row("PUT", f"k?versionId={UNKNOWN}", {}, "400 InvalidArgument", {"ArgumentName": "versionId"}),
    Row("DELETE", f"k?versionId={UNKNOWN}", {}, "204 ", {"x-amz-version-id": UNKNOWN}),
    Row("DELETE", "k?versionId=other", {}, "400 InvalidArgument", {"ArgumentValue": "other"}),
    Row("DELETE", "k?versionId=", {}, "400 InvalidArgument", {"ArgumentName": "versionId"}),
    Row("DELETE", "absent", {"If-Match": '"x"'}, "204 "),
    Row("DELETE", "k", {"If-Match": '"x"'}, "412 PreconditionFailed"),
]  # fmt: skip
DELETE = "<Delete>{}<Object><Key>absent</Key></Object></Delete>"
MANY = b"<Delete>" + b"<Object><Key>k</Key></Object>" * 1001 + b"</Delete>"
BUCKETS = [
    Row("GET", "?list-type=2&max-keys=0", {}, "200", {"IsTruncated": "false", "KeyCount": "0", "NextContinuationToken": None}),
    Row("GET", "?list-type=2&max-keys=2000", {}, "200", {"MaxKeys": "1000", "KeyCount": "3", "NextContinuationToken": None}),
    Row("GET", "?list-type=2&fetch-owner=true", {}, "200", {"Contents/Owner/ID": "root"}),
    Row("GET", "?list-type=2", {}, "200", {"Contents/Owner/ID": None}),
    Row("GET", "?list-type=2&continuation-token=", {}, "400 InvalidArgument"),
    Row("GET", "?list-type=2&max-keys=-1", {}, "400 InvalidArgument"),
    Row("GET", "?max-keys=1", {}, "200", {"IsTruncated": "true", "NextMarker": None, "Contents/Key": "empty"}),
    Row("GET", "?max-keys=1&delimiter=/", {}, "200", {"IsTruncated": "true", "NextMarker": "empty"}),
    Row("GET", "?marker=gaps", {}, "200", {"Contents/Key": "k"}),
    Row("GET", "?encoding-type=url&prefix=a%20/%2B&delimiter=%0A&marker=%C3%BC", {}, "200", {"Prefix": "a%20/%2B", "Delimiter": "%0A", "Marker": "%C3%BC"}),
    Row("GET", "?encoding-type=base64", {}, "400 InvalidArgument"),
    Row("GET", "?location", {}, "200", {".": ""}),
    Row("GET", "?versioning", {}, "200", {"Status": None}),
    Row("PUT", "?inventory&id=x", {}, "501 NotImplemented"),
    Row("PUT", "", {}, "409 BucketAlreadyOwnedByYou"),
    Row("DELETE", "", {}, "409 BucketNotEmpty", {"BucketName": "bkt"}),
    Row("PATCH", "", {}, "405 MethodNotAllowed", {"Method": "PATCH", "ResourceType": "BUCKET"}),
    Row("POST", "?delete", {}, "400 InvalidRequest", body=DELETE.format("").encode()),
    Row("POST", "?delete", md5_header(MANY), "400 MalformedXML", body=MANY),
    Row("POST", "?delete", md5_header(DELETE.format("").encode()), "200", {"Deleted/Key": "absent"}, DELETE.format("").encode()),
    Row("POST", "?delete", md5_header(DELETE.format("<Quiet>true</Quiet>").encode()), "200", {"Deleted/Key": None}, DELETE.format("<Quiet>true</Quiet>").encode()),
]  # fmt: skip


# In a bucket that keeps versions: `k` has a null version below another, `gone` a marker on top. Ids stand in braces.
VERSIONS = [
    Row("GET", "gone", {}, "404 NoSuchKey", {"x-amz-delete-marker": "true", "x-amz-version-id": "{marker}"}),
    Row("HEAD", "gone", {}, "404 NoSuchKey", {"x-amz-delete-marker": "true"}),
    Row("GET", "gone?versionId={marker}", {}, "405 MethodNotAllowed", {"x-amz-delete-marker": "true", "Allow": "DELETE"}),
    Row("HEAD", "gone?versionId={marker}", {}, "405 MethodNotAllowed", {"x-amz-version-id": "{marker}"}),
    Row("GET", "k?versionId=null", {}, "200 hello", {"x-amz-version-id": "null"}),
    Row("GET", "gone?versionId=null", {}, "404 NoSuchVersion", {"Key": "gone", "VersionId": "null"}),
    Row("GET", "never", {}, "404 NoSuchKey", {"x-amz-delete-marker": None}),
    Row("PUT", "gone", {"If-Match": "*"}, "404 NoSuchKey", {"Key": "gone"}),
    Row("PUT", "gone", {"If-None-Match": "*"}, "200 "),
    Row("PUT", "k", {"If-Match": TAG}, "412 PreconditionFailed"),  # the older version's
    Row("PUT", "k", {SOURCE: "bkt/gone?versionId={marker}"}, "400 InvalidRequest"),
    Row("DELETE", "gone", {"If-Match": '"x"'}, "204 ", {"x-amz-delete-marker": None}),
    Row("DELETE", "never", {}, "204 ", {"x-amz-delete-marker": "true"}),
    Row("DELETE", "gone?versionId={marker}", {}, "204 ", {"x-amz-delete-marker": "true", "x-amz-version-id": "{marker}"}),
    Row("DELETE", "k?versionId=null", {}, "204 ", {"x-amz-delete-marker": None, "x-amz-version-id": "null"}),
    Row("DELETE", "k?versionId=null", {"If-Match": '"x"'}, "412 PreconditionFailed"),
]  # fmt: skip


async def versioned() -> tuple[Client, str]:
    client = await world()
    body = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    await client("PUT", "/bkt", "versioning", body=body)
    await client("PUT", "/bkt/k", body=b"newer")
    await client("PUT", "/bkt/gone", body=b"once")
    return client, (await client("DELETE", "/bkt/gone")).headers["x-amz-version-id"]


@pytest.mark.parametrize("row", VERSIONS, ids=lambda row: f"{row.method} {row.target[:30]}")
async def test_versions_behave_as_in_s3(row: Row) -> None:
    client, marker = await versioned()

    def filled(facts: dict[str, str | None]) -> dict[str, str | None]:
        return {name: value and value.replace("{marker}", marker) for name, value in facts.items()}

    asked = attrs.evolve(
        row, target=row.target.replace("{marker}", marker), headers=filled(row.headers)
    )
    assert await answered(asked, whole=True, client=client) == (row.answer, filled(row.more))


async def answered(
    row: Row, *, whole: bool, client: Client | None = None
) -> tuple[str, dict[str, str | None]]:
    client = client or await world()
    path, _, query = row.target.partition("?")
    path = f"/bkt/{path}" if path else "/bkt"
    try:
        answer = await client(row.method, path, query, body=row.body, headers=row.headers)
    except S3Error as error:
        facts = {name.decode(): value.decode() for name, value in error.headers}
        facts |= {name: str(value) for name, value in error.fields.items()}
        return f"{error.status} {error.code}", {name: facts.get(name) for name in row.more}
    if not whole:
        root = answer.xml if answer.body else None
        return str(answer.status), {
            name: None if root is None else root.findtext(name) for name in row.more
        }
    seen = {name: answer.headers.get(name) for name in row.more}
    return f"{answer.status} {answer.body.decode()}", seen


@pytest.mark.parametrize("row", READS + WRITES, ids=lambda row: f"{row.method} {row.target[:30]}")
async def test_objects_behave_as_in_s3(row: Row) -> None:
    assert await answered(row, whole=True) == (row.answer, row.more)


@pytest.mark.parametrize("row", BUCKETS, ids=lambda row: f"{row.method} {row.target[:30]}")
async def test_buckets_behave_as_in_s3(row: Row) -> None:
    assert await answered(row, whole=False) == (row.answer, row.more)


async def test_the_storage_class_of_an_upload_is_told() -> None:
    client = await world()
    assert (await client("HEAD", "/bkt/gaps")).headers["x-amz-storage-class"] == "STANDARD_IA"
    upload = await begin(client, "open", x_amz_storage_class="STANDARD_IA")
    parts = await client("GET", "/bkt/open", f"uploadId={upload}")
    assert parts.text("StorageClass") == "STANDARD_IA"
    uploads = await client("GET", "/bkt", "uploads")
    assert uploads.texts("Upload/StorageClass") == ["STANDARD_IA"]
